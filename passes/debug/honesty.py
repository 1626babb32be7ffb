"""Expensive checks of what passes promise: that "unchanged" is the truth, and that a graph's text is the graph."""

from __future__ import annotations

from typing_extensions import override

from detc.ir import DetcError, Graph, difference, parse_graph, print_graph

from ..core.base import Pass
from ..core.observers import Observer


class HonestyError(DetcError):
    """A pass said that it changed nothing, and did; or a graph's text does not read back as the graph."""


class ExpensiveChecks(Observer):
    """Compares the graph before and after each pass that said it changed nothing, and prints and parses each graph.

    Costs a copy of the graph, and its text, for each pass.

    Errors:
        HonestyError: naming the pass and the first thing that differs.
    """

    def __init__(self) -> None:
        self._before: Graph | None = None

    @override
    def start(self, graph: Graph) -> None:
        _check_text(graph, "before the first pass")

    @override
    def before(self, graph: Graph, pass_: Pass, index: int) -> None:
        self._before = graph.clone()

    @override
    def after(self, graph: Graph, pass_: Pass, index: int, changed: bool) -> None:
        if not changed and self._before is not None:
            problem = difference(self._before, graph)
            if problem is None and list(self._before.weights) != list(graph.weights):
                problem = "the weights differ"
            if problem is not None:
                raise HonestyError(f"the pass {pass_.name} said that it changed nothing: {problem}")
        _check_text(graph, f"after the pass {pass_.name}")


def _check_text(graph: Graph, when: str) -> None:
    text = print_graph(graph)
    again = parse_graph(text, {name: weight.data for name, weight in graph.weights.items()})
    problem = difference(graph, again)
    if problem is None and print_graph(again) != text:
        problem = "it prints otherwise when it is read back"
    if problem is not None:
        raise HonestyError(f"{when} the graph's text is not the graph: {problem}")
