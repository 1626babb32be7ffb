"""What a pattern has matched so far, and in the end."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from detc.ir import Graph, IRError, Node

K = TypeVar("K")
V = TypeVar("V")


class Labelled(Protocol):
    """What may be matched by a node: its label is the name that the node gets, if any."""

    label: str


class Lists:
    """Lists that are matched in step: item i of one together with item i of the others.

    Attributes:
        same: names that stand for one thing in all items.
    """

    def __init__(self, same: Sequence[str]) -> None:
        self.same = frozenset(same)


_NO_WAY: Iterator[None] = iter(())

Place: TypeAlias = tuple[Lists, int] | None
"""Which item of which lists is being matched, None outside of all lists."""


class Match:
    """What a pattern matched. Variables, named nodes and captured attributes are attributes of it.

    What stands inside of `p.each` is a tuple there, with one entry for each item.

    Attributes:
        roots: the matched roots, in the pattern's order; `root` is the first.
        bindings: everything by name.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.bindings: dict[str, Any] = {}
        self.roots: tuple[Node, ...] = ()
        self._place: Place = None
        self._bound: dict[tuple[str, Place], Any] = {}
        self._nodes: dict[tuple[Labelled, Place], Node] = {}
        self._lengths: dict[Lists, int] = {}
        self._miss: tuple[int, tuple[object, ...]] = (-1, ())

    def __getattr__(self, name: str) -> Any:
        bindings = self.__dict__.get("bindings", {})
        if name in bindings:
            return bindings[name]
        raise AttributeError(f"the pattern has no {name!r}; there are {', '.join(bindings)}")

    @property
    def root(self) -> Node:
        return self.roots[0]

    @property
    def nearest_miss(self) -> str:
        """Why the attempt that got deepest did not match."""
        return "".join(map(str, self._miss[1]))

    def miss(self, *reason: object) -> Iterator[None]:
        """Note a reason not to match, in pieces. The one with the most nodes matched before it is kept.

        Returns no way to match, for a pattern to return.
        """
        if len(self._nodes) > self._miss[0]:
            self._miss = (len(self._nodes), reason)
        return _NO_WAY

    # For patterns: each of these binds and yields, and undoes it on resumption

    def unify(
        self, name: str, value: Any, equal: Callable[[Any, Any], bool], kind: str = ""
    ) -> Iterator[None]:
        """Bind a name, or see that it is bound to something equal. `kind` is what it stands for, in words."""
        why = (name, " is not the same ", kind, "in all its places")
        return self._note(self._bound, (name, self._place_of(name)), value, equal, why)

    def enter(self, pattern: Labelled, node: Node, inside: Callable[[], Iterator[None]]) -> Iterator[None]:
        """Note which node a pattern matches. What is inside of it is matched where that is new."""
        key = (pattern, self._place_of(pattern.label))
        known = self._nodes.get(key)
        if known is None:
            self._nodes[key] = node
            yield from inside()
            del self._nodes[key]
        elif known is node:
            yield
        else:
            self.miss(pattern, " is not the same node in all its places")

    def item(self, lists: Lists, index: int, attempt: Callable[[], Iterator[None]]) -> Iterator[None]:
        """Run an attempt to match for one item of lists."""
        outer = self._place
        if outer is not None:
            raise IRError("an `each` cannot stand in another")
        self._place = (lists, index)
        for _ in attempt():
            self._place = outer
            yield
            self._place = (lists, index)
        self._place = outer

    def length(self, lists: Lists, length: int) -> Iterator[None]:
        """Note how long lists are, or see that another one in step is as long."""
        why = ("a list of ", length, " in step with one of ", self._lengths.get(lists))
        return self._note(self._lengths, lists, length, operator.eq, why)

    def bound(self, name: str) -> Any:
        """What a name stands for outside of all lists, None if it is not bound yet."""
        return self._bound.get((name, None))

    def finish(self, roots: Sequence[Node]) -> None:
        """Keep what is bound now as the result."""
        self.roots = tuple(roots)
        if not self._lengths:
            named = {pattern.label: node for (pattern, _), node in self._nodes.items() if pattern.label}
            self.bindings = {name: value for (name, _), value in self._bound.items()} | named
            return
        places: dict[str, dict[Place, Any]] = {}
        for (name, place), value in self._bound.items():
            places.setdefault(name, {})[place] = value
        for (pattern, place), node in self._nodes.items():
            if pattern.label:
                places.setdefault(pattern.label, {})[place] = node
        self.bindings = {name: self._gathered(name, values) for name, values in places.items()}

    def _note(
        self, table: dict[K, V], key: K, value: V, equal: Callable[[V, V], bool], why: tuple[object, ...]
    ) -> Iterator[None]:
        if key not in table:
            table[key] = value
            yield
            del table[key]
        elif equal(table[key], value):
            yield
        else:
            self.miss(*why)

    def _place_of(self, name: str) -> Place:
        return None if self._place is None or name in self._place[0].same else self._place

    def _gathered(self, name: str, values: Mapping[Place, Any]) -> Any:
        lists = {None if place is None else place[0] for place in values}
        if len(lists) > 1:
            raise IRError(f"{name} stands in an `each` and outside of it: list it among its `same`")
        (owner,) = lists
        if owner is None:
            return values[None]
        return tuple(values.get((owner, i)) for i in range(self._lengths[owner]))
