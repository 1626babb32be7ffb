"""Watching a pipeline run: one hook, `Observer`, and what hangs on it.

`DumpIR` is in `dump`, `CheckNumerics` in `numerics`.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, TextIO

from typing_extensions import override

from detc.ir import Graph, Node, verify

from .base import Pass
from .lines import StableLines, changed_lines, graph_lines


class Observer:
    """Sees the graph before and after each pass. It must not change it. `index` counts the passes from 1."""

    def start(self, graph: Graph) -> None:
        """Before the first pass."""

    def before(self, graph: Graph, pass_: Pass, index: int) -> None:
        """Before a pass."""

    def after(self, graph: Graph, pass_: Pass, index: int, changed: bool) -> None:
        """After a pass; `changed` is what the pass said."""

    def finish(self) -> None:
        """After the last pass, and when one has failed."""


class VerifyEach(Observer):
    """Verifies the graph at the start and after each pass."""

    @override
    def start(self, graph: Graph) -> None:
        verify(graph)

    @override
    def after(self, graph: Graph, pass_: Pass, index: int, changed: bool) -> None:
        verify(graph, after=pass_.name)


class _Print(Observer):
    """Base of the observers that print graphs, of the named passes or of all.

    With `module`, only nodes of that part of the model are printed.
    """

    def __init__(
        self,
        names: Collection[str] | Literal["all"] = "all",
        stream: TextIO | None = None,
        *,
        module: str | None = None,
    ) -> None:
        self._names = names
        self._stream = stream
        self._module = module

    def _show(self, when: str, graph: Graph, pass_: Pass, index: int) -> None:
        if self._names == "all" or pass_.name in self._names:
            lines = "\n".join(graph_lines(graph, self._module))
            print(f"# {when} {index:03d} {pass_.spec}\n{lines}\n", file=self._stream or sys.stdout)


class PrintBefore(_Print):
    """Prints the graph before the named passes, or before all."""

    @override
    def before(self, graph: Graph, pass_: Pass, index: int) -> None:
        self._show("before", graph, pass_, index)


class PrintAfter(_Print):
    """Prints the graph after the named passes, or after all."""

    @override
    def after(self, graph: Graph, pass_: Pass, index: int, changed: bool) -> None:
        self._show("after", graph, pass_, index)


class PrintChanged(Observer):
    """Prints, after each pass, the lines of the nodes that it took away, changed or made.

    A value keeps the name that it is first printed with, so that nothing seems changed that is not. With `module`,
    only nodes of that part of the model are looked at.
    """

    def __init__(
        self, stream: TextIO | None = None, *, color: bool = False, module: str | None = None
    ) -> None:
        self._stream = stream
        self._color = color
        self._module = module
        self._printer = StableLines()
        self._lines: dict[object, str] = {}

    @override
    def start(self, graph: Graph) -> None:
        self._printer = StableLines()
        self._lines = self._printer.lines(graph, self._module)

    @override
    def after(self, graph: Graph, pass_: Pass, index: int, changed: bool) -> None:
        old, self._lines = self._lines, self._printer.lines(graph, self._module)
        stream = self._stream or sys.stdout
        diff = list(changed_lines(old, self._lines))
        if not diff:
            print(f"# {index:03d} {pass_.spec}: no change", file=stream)
            return
        removed = sum(line.startswith("-") for line in diff)
        print(f"# {index:03d} {pass_.spec}: -{removed} +{len(diff) - removed}", file=stream)
        for line in diff:
            code = "31" if line.startswith("-") else "32"
            print(f"\x1b[{code}m{line}\x1b[0m" if self._color else line, file=stream)


@dataclass(frozen=True)
class PassTime:
    """One pass's run time in seconds."""

    index: int
    name: str
    seconds: float


class Timing(Observer):
    """Measures each pass. Given as the last observer it measures the pass alone, without the other observers.

    Attributes:
        times: one entry per pass, in order.
    """

    def __init__(self) -> None:
        self.times: list[PassTime] = []
        self._started = 0.0

    @override
    def before(self, graph: Graph, pass_: Pass, index: int) -> None:
        self._started = time.perf_counter()

    @override
    def after(self, graph: Graph, pass_: Pass, index: int, changed: bool) -> None:
        self.times.append(PassTime(index, pass_.name, time.perf_counter() - self._started))

    def report(self) -> str:
        """A table: milliseconds, share, pass."""
        total = sum(t.seconds for t in self.times) or 1.0
        rows = [f"{t.seconds * 1e3:9.2f} ms {t.seconds / total:6.1%}  {t.name}" for t in self.times]
        return "\n".join([*rows, f"{total * 1e3:9.2f} ms 100.0%  all"])


class CountNodes(Observer):
    """Counts nodes by op.

    Attributes:
        history: (pass name, count of each op) at the start (named `start`) and after each pass.
    """

    def __init__(self) -> None:
        self.history: list[tuple[str, Counter[str]]] = []

    @override
    def start(self, graph: Graph) -> None:
        self.history = [("start", _count(graph))]

    @override
    def after(self, graph: Graph, pass_: Pass, index: int, changed: bool) -> None:
        self.history.append((pass_.name, _count(graph)))

    def report(self) -> str:
        """A line per pass: how many nodes, and how each op's count changed."""
        lines: list[str] = []
        before: Counter[str] = Counter()
        for name, counts in self.history:
            changes = [
                f"{op} {counts[op] - before[op]:+d}"
                for op in sorted({*counts, *before})
                if counts[op] != before[op] and name != "start"
            ]
            lines.append(f"{sum(counts.values()):6d}  {name}  {', '.join(changes)}".rstrip())
            before = counts
        return "\n".join(lines)


def _count(nodes: Graph | list[Node]) -> Counter[str]:
    return Counter(node.op.name for node in nodes)
