"""Expensive checks of what passes promise.

That "unchanged" is the truth, that they change graphs in rewrites only, and that a graph's text is the graph.
"""

from __future__ import annotations

from typing_extensions import override

from detc.ir import DetcError, Graph, difference, parse_graph, print_graph

from ..core.base import Context, Pass
from ..core.observers import Observer
from ..core.pipeline import apply_pass


class HonestyError(DetcError):
    """A pass changed a graph otherwise than it said, or a graph's text does not read back as the graph."""


class ExpensiveChecks(Observer):
    """Checks before and after each pass that it tells the truth, and prints and parses each graph.

    A pass that may do no rewrite (`Context.limit`) must leave the graph as it is, and so must one that says that it
    changed nothing. Costs two copies of the graph, its text, and a run of the pass up to its first rewrite.

    Errors:
        HonestyError: naming the pass and the first thing that differs.
    """

    def __init__(self) -> None:
        self._before: Graph | None = None
        self._outside: str | None = None

    @override
    def start(self, graph: Graph) -> None:
        _check_text(graph, "before the first pass")

    @override
    def before(self, graph: Graph, pass_: Pass, index: int) -> None:
        self._before = graph.clone()
        self._outside = changed_outside_rewrites(graph, pass_)

    @override
    def after(self, graph: Graph, pass_: Pass, index: int, changed: bool) -> None:
        if not changed and self._before is not None:
            problem = _difference(self._before, graph)
            if problem is not None:
                raise HonestyError(f"the pass {pass_.name} said that it changed nothing: {problem}")
        if self._outside is not None:
            raise HonestyError(
                f"the pass {pass_.name} changes graphs outside of `with context.rewrite(...)`: {self._outside}"
            )
        _check_text(graph, f"after the pass {pass_.name}")


def changed_outside_rewrites(graph: Graph, pass_: Pass) -> str | None:
    """What a pass changes before its first rewrite, None if all is well. The graph itself stays as it is."""
    trial = graph.clone()
    try:
        apply_pass(pass_, trial, Context(limit=0))
    except DetcError:
        # The pass refuses the graph, and says so when it is run in earnest.
        return None
    return _difference(graph, trial)


def _difference(before: Graph, after: Graph) -> str | None:
    problem = difference(before, after)
    if problem is None and list(before.weights) != list(after.weights):
        problem = "the weights differ"
    return problem


def _check_text(graph: Graph, when: str) -> None:
    text = print_graph(graph)
    again = parse_graph(text, {name: weight.data for name, weight in graph.weights.items()})
    problem = difference(graph, again)
    if problem is None and print_graph(again) != text:
        problem = "it prints otherwise when it is read back"
    if problem is not None:
        raise HonestyError(f"{when} the graph's text is not the graph: {problem}")
