"""Cutting a graph on which a pass goes wrong down to the nodes that matter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detc.ir import DetcError, Graph, InputError, IRError, Node, Value
from detc.ir.interpreter import run

from ..core.base import Pass
from ..core.observers import VerifyEach
from ..core.pipeline import Pipeline
from .compare import Tolerances
from .numerics import CheckNumerics
from .slicing import extract


@dataclass(frozen=True)
class Reproducer:
    """A graph on which a pass goes wrong, the inputs that show it, and what goes wrong."""

    graph: Graph
    inputs: Mapping[str, Any]
    error: DetcError


def reduce(
    graph: Graph,
    pass_: Pass,
    inputs: Mapping[str, Any],
    tolerances: Tolerances | None = None,
    *,
    attempts: int = 300,
) -> Reproducer | None:
    """The smallest part of the graph found on which the pass fails in the same way; None if it does not on all of it.

    First what follows the fault is cut off, then what comes before it, each by halving; then outputs and single
    nodes are left out as long as the fault stays. Values at a cut become inputs, with what they had in the whole
    graph. At most about `attempts` runs of ever smaller graphs.
    """
    search = _Search(graph, pass_, inputs, tolerances, attempts)
    whole = search.fault(search.nodes)
    if whole is None:
        return None
    search.kind, search.best = type(whole.error), whole
    search.cut_ends()
    search.choose_output()
    search.leave_out()
    return search.best


class _Search:
    def __init__(
        self,
        graph: Graph,
        pass_: Pass,
        inputs: Mapping[str, Any],
        tolerances: Tolerances | None,
        attempts: int,
    ) -> None:
        self.graph = graph
        self.pass_ = pass_
        self.tolerances = tolerances
        self.attempts = attempts
        self.nodes = list(graph)
        self.outputs: Mapping[str, Value] | None = None
        self.kind: type[DetcError] = DetcError
        self.best: Reproducer | None = None
        self.values: dict[Value, Any] = {value: inputs[value.name] for value in graph.inputs}

        def keep(node: Node, results: Sequence[Any]) -> None:
            self.values.update(zip(node.results, results, strict=True))

        run(graph, inputs, hook=keep)

    def fault(self, nodes: Sequence[Node], outputs: Mapping[str, Value] | None = None) -> Reproducer | None:
        """These nodes as a graph, if the pass fails on it as it does on the whole one."""
        self.attempts -= 1
        try:
            part = extract(self.graph, nodes, outputs)
            inputs = {name: self.values[value] for name, value in part.inputs.items()}
            if len(nodes) < len(self.graph):
                run(part.graph, inputs)
        except (IRError, InputError):
            # What is cut off was needed to know a size.
            return None
        error = failure(part.graph, self.pass_, inputs, self.tolerances)
        return Reproducer(part.graph, inputs, error) if isinstance(error, self.kind) else None

    def _try(self, nodes: Sequence[Node], outputs: Mapping[str, Value] | None = None) -> bool:
        found = self.fault(nodes, outputs) if self.attempts > 0 else None
        if found is None:
            return False
        self.best, self.nodes, self.outputs = found, list(nodes), outputs
        return True

    def cut_ends(self) -> None:
        nodes = self.nodes
        end = _smallest(len(nodes), lambda n: self.fault(nodes[:n]) is not None)
        if self._try(nodes[:end]):
            nodes = self.nodes
        left = _smallest(len(nodes), lambda n: self.fault(nodes[len(nodes) - n :]) is not None)
        self._try(nodes[len(nodes) - left :])

    def choose_output(self) -> None:
        nodes = self.nodes
        for node in reversed(nodes):
            for value in node.results:
                name = value.name or "out"
                if self._try(_needed(nodes, value), {name: value}):
                    return

    def leave_out(self) -> None:
        size = max(len(self.nodes) // 2, 1)
        while size:
            start = 0
            while start < len(self.nodes) and len(self.nodes) > size:
                left = self.nodes[:start] + self.nodes[start + size :]
                if not self._try(left, self.outputs):
                    start += size
            size //= 2


def failure(
    graph: Graph, pass_: Pass, inputs: Mapping[str, Any], tolerances: Tolerances | None = None
) -> DetcError | None:
    """What goes wrong when the pass runs over the graph: it fails, the verifier does, or an output differs.

    None where nothing does, or where the graph itself is wrong.
    """
    try:
        check = CheckNumerics(inputs, tolerances=tolerances)
        Pipeline().run(graph, [check])
    except DetcError:
        return None
    try:
        Pipeline([pass_]).run(graph, [check, VerifyEach()], verify=False)
    except DetcError as error:
        return error
    return None


def _smallest(most: int, fails: Callable[[int], bool]) -> int:
    """The least n for which it fails, if it fails for all from some n on; it does for `most`."""
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fails(middle) else (middle, high)
    return high


def _needed(nodes: Sequence[Node], value: Value) -> list[Node]:
    """Those of the nodes that the value depends on."""
    wanted, found = {value}, []
    for node in reversed(nodes):
        if any(result in wanted for result in node.results):
            wanted.update(node.uses)
            found.append(node)
    return found[::-1]
