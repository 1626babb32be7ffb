"""Cutting a part out of a graph, as a graph of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from detc.ir import Constant, Graph, GraphPrinter, Node, Value


@dataclass(frozen=True)
class Slice:
    """A part of a graph.

    Attributes:
        graph: the part, with nodes and values of its own. Weights share storage.
        inputs: the name of each of its inputs -> the value of the whole graph that it stands for.
    """

    graph: Graph
    inputs: Mapping[str, Value]


def extract(graph: Graph, nodes: Collection[Node], outputs: Mapping[str, Value] | None = None) -> Slice:
    """The given nodes of a graph as a graph. What they use of others becomes an input, named as it prints.

    `outputs` are values of the graph; unless given, they are what other nodes use of these, and the graph's outputs
    among their results. O(size of the graph).
    """
    kept = set(nodes)
    names = GraphPrinter(graph).names
    if outputs is None:
        outputs = {names[value]: value for value in _live_out(graph, kept)}
    part = graph.clone()
    twins: dict[Value, Value] = dict(zip(graph.inputs, part.inputs, strict=True))
    for name, weight in graph.weights.items():
        twins[weight] = part.weights[name]
    doomed: list[Node] = []
    inputs: dict[str, Value] = {value.name: value for value in graph.inputs}
    for mine, theirs in zip(graph, part, strict=True):
        twins.update(zip(mine.results, theirs.results, strict=True))
        if mine not in kept:
            doomed.append(theirs)
    part.set_outputs({name: twins.get(value, value) for name, value in outputs.items()})
    needed = {value for node in kept for value in node.uses} | set(outputs.values())
    for value in [result for node in graph if node not in kept for result in node.results]:
        if value in needed:
            name = _fresh(names[value], inputs)
            inputs[name] = value
            part.replace_uses(twins[value], part.add_input(name, value.type))
    for node in reversed(doomed):
        part.erase(node)
    for value in list(part.inputs):
        if not value.is_used:
            part.remove_input(value)
    part.prune_weights()
    return Slice(part, {value.name: inputs[value.name] for value in part.inputs})


def _live_out(graph: Graph, nodes: Collection[Node]) -> list[Value]:
    """What the nodes give to others, in order. Weights are none of it."""
    live: list[Value] = []
    results = set(graph.outputs.values())
    for node in graph:
        if node in nodes:
            users = {result: [*result.users, *result.size_users] for result in node.results}
            live += [r for r in users if r in results or any(user not in nodes for user in users[r])]
    return [value for value in live if not isinstance(value, Constant)]


def _fresh(stem: str, taken: Collection[str]) -> str:
    # A value's printed name may be a number, which is no name for an input.
    stem = f"v{stem}" if stem[0].isdigit() else stem
    name, number = stem, 1
    while name in taken:
        name, number = f"{stem}_{number}", number + 1
    return name
