"""How values flow: the def-use graph, dominators, and what lies between two values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import networkx as nx

from detc.ir import Constant, Graph, Node, Value

Vertex: TypeAlias = "Node | Value"
"""A node, or an input of the graph, which no node makes."""


def def_use_graph(graph: Graph) -> nx.MultiDiGraph[Any]:
    """Nodes and inputs as vertices; an edge from where a value is made to where it is used. O(n).

    An edge's `value` is the value, `result` the index of it among its producer's results, `operand` its position: an
    index, and behind it a second one inside a list of operands.
    """
    flow: nx.MultiDiGraph[Any] = nx.MultiDiGraph()
    flow.add_nodes_from(graph.inputs)
    for node in graph:
        flow.add_node(node)
        for index, operand in enumerate(node.operands):
            items = operand if isinstance(operand, tuple) else (operand,)
            for inner, value in enumerate(items):
                if value is None or isinstance(value, Constant):
                    continue
                position = (index, inner) if isinstance(operand, tuple) else (index,)
                flow.add_edge(
                    value.producer or value, node, value=value, result=value.index, operand=position
                )
    return flow


def dominators(graph: Graph) -> dict[Node, Vertex | None]:
    """The immediate dominator of each node: the last node (or input) that all data on its way to it goes through.

    None where there is no such, as where two inputs come together. O(n * depth of the dominator tree): the vertices
    are looked at in order, and the graph has no cycle (Cooper, Harvey and Kennedy, "A Simple, Fast Dominance
    Algorithm").
    """
    flow: nx.DiGraph[Any] = nx.DiGraph(def_use_graph(graph))
    root = object()
    sources = [vertex for vertex in flow if not flow.in_degree(vertex)]
    flow.add_node(root)
    flow.add_edges_from((root, source) for source in sources)
    found = nx.immediate_dominators(flow, root)
    return {node: None if found[node] is root else found[node] for node in graph}


def slice_between(graph: Graph, start: Value | Iterable[Value], end: Value | Iterable[Value]) -> list[Node]:
    """The nodes that `start` reaches and that `end` depends on, in order. O(n).

    `extract(graph, slice_between(graph, a, b), {"b": b})` makes a graph of them.
    """
    begins = {start} if isinstance(start, Value) else set(start)
    ends = {end} if isinstance(end, Value) else set(end)
    reached: set[Value] = set(begins)
    forward: list[Node] = []
    for node in graph:
        if any(value in reached for value in node.uses):
            reached.update(node.results)
            forward.append(node)
    needed = set(ends)
    kept: list[Node] = []
    for node in reversed(forward):
        if any(result in needed for result in node.results):
            needed.update(value for value in node.uses if value not in begins)
            kept.append(node)
    return kept[::-1]
