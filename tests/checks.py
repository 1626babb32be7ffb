"""What every graph and every pass must keep, as functions that tests call."""

from __future__ import annotations

from typing import Any

import torch
from detc.ir import Graph, Value, difference, parse_graph, print_graph, run, verify
from detc.ir.dialects.instances import InstancesBatch
from detc.passes import Context, Pass


def check_use_lists(graph: Graph) -> None:
    """Each value knows exactly the nodes that use it, and how often."""
    uses: dict[Value, dict[object, int]] = {}
    for node in graph:
        for value in node.operand_values:
            counts = uses.setdefault(value, {})
            counts[node] = counts.get(node, 0) + 1
    for value in [*graph.values(), *uses]:
        assert value._users == uses.get(value, {}), value
    nodes = graph.nodes
    assert len(graph) == len(nodes)
    assert list(reversed(graph)) == nodes[::-1]


def check_round_trip(graph: Graph) -> None:
    """The text parses back to an equal graph, and prints the same again."""
    text = print_graph(graph)
    again = parse_graph(text, {name: weight.data for name, weight in graph.weights.items()})
    assert difference(graph, again) is None
    assert print_graph(again) == text


def check_same_results(expected: dict[str, Any], actual: dict[str, Any]) -> None:
    """Equal up to the order of float64 arithmetic."""
    assert list(expected) == list(actual)
    for name, value in expected.items():
        if isinstance(value, InstancesBatch):
            check_same_results(value.fields, actual[name].fields)
        else:
            torch.testing.assert_close(actual[name], value, rtol=1e-9, atol=1e-9, equal_nan=True)


def check_pass(item: Pass, graph: Graph, inputs: dict[str, Any], context: Context | None = None) -> Graph:
    """Apply a pass to a copy, and check all that a meaning-preserving pass must keep. Returns the copy."""
    before, weights = print_graph(graph), {name: w.data.clone() for name, w in graph.weights.items()}
    after = graph.clone()
    changed = item.apply(after, context or Context(item.name))
    verify(after, after=item.name)
    check_use_lists(after)
    check_round_trip(after)
    problem = difference(graph, after)
    pruned = list(graph.weights) != list(after.weights)
    assert changed == (problem is not None or pruned), f"said changed={changed}, but: {problem}"
    check_same_results(run(graph, inputs), run(after, inputs))
    assert print_graph(graph) == before
    for name, weight in graph.weights.items():
        assert torch.equal(weight.data, weights[name]), f"the weight {name} was changed"
    twin = graph.clone()
    item.apply(twin, Context(item.name))
    assert print_graph(twin) == print_graph(after), "a second run gives another text"
    assert not item.apply(twin, Context(item.name)), "it finds more to do when run again"
    return after
