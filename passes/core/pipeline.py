"""A pipeline: passes in the order in which they run. It is edited like a list."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from typing import Any, Self, SupportsIndex, overload

from typing_extensions import override

from detc.ir import DetcError, Graph, InputError, paused_collector
from detc.ir.spans import span

from .base import Context, Pass, PassRun, RewriteLimit
from .observers import Observer, VerifyEach


class PassError(DetcError):
    """A pass failed with an error that is not detc's own: a fault in the pass. `__cause__` has it."""


class Pipeline(MutableSequence[Pass]):
    """Passes in the order in which they run.

    It is a list to its user (indexing, slices, `append`, `insert`, `del`, `+`), and finds passes by name too:
    `pipeline.insert_before("dead-code", MyPass())`, `pipeline.remove("fuse")`, `"fuse" in pipeline`. Where a
    position is wanted, an index or a name will do; a name that several passes have is an error.
    """

    def __init__(self, passes: Iterable[Pass] = ()) -> None:
        self._passes: tuple[Pass, ...] = tuple(passes)
        for item in self._passes:
            _check(item)

    def run(
        self,
        graph: Graph,
        observers: Iterable[Observer] = (),
        *,
        stop_after: int | str | None = None,
        verify: bool = True,
        context: Context | None = None,
    ) -> Graph:
        """Run the passes on a copy of the graph, and return the copy. The graph itself stays as it is.

        Args:
            observers: called around each pass: `before` in this order, `after` in the reverse order.
            stop_after: how many passes to run, or the name of the last one to run.
            verify: whether the graph is verified at the start and after each pass.
            context: gets the statistics: what each pass did, how often each rule matched.

        Errors:
            VerificationError: the graph breaks a rule of the IR; the message names the pass.
            PassError: a pass failed with an error that is not detc's own.
            DetcError: a pass refused the graph. `pass_name` of the error says which, and so does the message.
        """
        passes = self._passes[: self._count(stop_after)]
        watching: list[Observer] = [VerifyEach(), *observers] if verify else list(observers)
        context = Context() if context is None else context
        current = graph.clone()
        try:
            for observer in watching:
                with span(type(observer).__name__):
                    observer.start(current)
            for index, item in enumerate(passes, 1):
                for observer in watching:
                    observer.before(current, item, index)
                changed = _run(item, current, index, context)
                for observer in reversed(watching):
                    with span(type(observer).__name__):
                        observer.after(current, item, index, changed)
        finally:
            for observer in reversed(watching):
                observer.finish()
        return current

    def _count(self, stop_after: int | str | None) -> int:
        if stop_after is None:
            return len(self)
        if isinstance(stop_after, str):
            return self.position(stop_after) + 1
        if not 0 <= stop_after <= len(self):
            raise InputError(f"cannot stop after {stop_after} passes: there are {len(self)}")
        return stop_after

    # Positions by name

    def position(self, where: int | str) -> int:
        """The index of the pass at an index (negative ones count from the end) or of that name.

        Errors:
            InputError: there is no such pass, or several have the name.
        """
        if isinstance(where, int):
            if not -len(self) <= where < len(self):
                raise InputError(f"there is no pass at {where}: the pipeline has {len(self)}")
            return where % len(self)
        found = [i for i, item in enumerate(self._passes) if item.name == where]
        if not found:
            raise InputError(
                f"there is no pass {where!r}; there are {', '.join(i.name for i in self) or 'none'}"
            )
        if len(found) > 1:
            raise InputError(f"{where!r} stands at {', '.join(map(str, found))}: give the index")
        return found[0]

    def insert_before(self, where: int | str, item: Pass) -> None:
        """Put a pass right before another."""
        self.insert(self.position(where), item)

    def insert_after(self, where: int | str, item: Pass) -> None:
        """Put a pass right after another."""
        self.insert(self.position(where) + 1, item)

    def replace(self, where: int | str, item: Pass) -> None:
        """Put a pass in the place of another."""
        self[self.position(where)] = item

    @override
    def remove(self, value: Pass | str) -> None:
        """Take out the pass that equals `value`, or has that name."""
        del self[self.index(value)]

    @override
    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """The index of the pass that equals `value` (ValueError if none does), or has that name."""
        if isinstance(value, str):
            return self.position(value)
        return self._passes.index(value, start, len(self) if stop is None else stop)

    @override
    def __contains__(self, value: object) -> bool:
        return any(value in (item, item.name) for item in self._passes)

    def copy(self) -> Pipeline:
        """A pipeline of the same passes."""
        return Pipeline(self._passes)

    # What a list has

    @overload
    def __getitem__(self, index: SupportsIndex) -> Pass: ...
    @overload
    def __getitem__(self, index: slice) -> Pipeline: ...
    @override
    def __getitem__(self, index: SupportsIndex | slice) -> Pass | Pipeline:
        if isinstance(index, slice):
            return Pipeline(self._passes[index])
        return self._passes[index]

    @override
    def __setitem__(self, index: Any, value: Any) -> None:
        passes = list(self._passes)
        for item in value if isinstance(index, slice) else [value]:
            _check(item)
        passes[index] = value
        self._passes = tuple(passes)

    @override
    def __delitem__(self, index: SupportsIndex | slice) -> None:
        passes = list(self._passes)
        del passes[index]
        self._passes = tuple(passes)

    @override
    def insert(self, index: SupportsIndex, value: Pass) -> None:
        """Put a pass before the one at `index`."""
        _check(value)
        passes = list(self._passes)
        passes.insert(index, value)
        self._passes = tuple(passes)

    @override
    def __len__(self) -> int:
        return len(self._passes)

    @override
    def __iter__(self) -> Iterator[Pass]:
        return iter(self._passes)

    def __add__(self, other: Sequence[Pass]) -> Pipeline:
        return Pipeline([*self, *other])

    def __radd__(self, other: Sequence[Pass]) -> Pipeline:
        return Pipeline([*other, *self])

    @override
    def __iadd__(self, values: Iterable[Pass]) -> Self:
        self.extend(values)
        return self

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pipeline) and self._passes == other._passes

    __hash__ = None  # type: ignore[assignment]  # as a list has none

    @override
    def __repr__(self) -> str:
        """The passes from top to bottom, with their options."""
        return "Pipeline([" + "".join(f"\n    {item!r}," for item in self) + ("\n])" if self else "])")


@paused_collector()
def apply_pass(item: Pass, graph: Graph, context: Context) -> bool:
    """Apply a pass, with the context made ready for it. Returns whether it changed anything.

    Errors:
        PassError: it failed with an error that is not detc's own.
        DetcError: it refused the graph. `pass_name` of the error says which pass.
    """
    context.pass_name, context.rewrites = item.name, []
    try:
        return item.apply(graph, context)
    except RewriteLimit:
        return bool(context.rewrites)
    except DetcError as error:
        error.pass_name = error.pass_name or item.name
        raise
    except Exception as error:
        raise PassError(f"the pass {item.name} failed: {type(error).__name__}: {error}") from error


def _run(item: Pass, graph: Graph, index: int, context: Context) -> bool:
    nodes, start = len(graph), time.perf_counter()
    with span(item.name, index=index, nodes_before=nodes) as facts:
        changed = apply_pass(item, graph, context)
        facts |= {"nodes_after": len(graph), "changed": changed, "rewrites": len(context.rewrites)}
    seconds = time.perf_counter() - start
    context.runs.append(PassRun(index, item.name, changed, seconds, nodes, len(graph)))
    return changed


def _check(item: object) -> None:
    if not isinstance(item, Pass):
        hint = f"; did you mean {item.__name__}()?" if isinstance(item, type) else ""
        raise InputError(f"a pipeline holds passes, not {item!r}{hint}")
