"""Where in a graph another graph stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import networkx as nx
from networkx.algorithms.isomorphism import MultiDiGraphMatcher

from detc.ir import Constant, Graph, Node
from detc.ir.equality import attribute_keys

from .dataflow import def_use_graph

Occurrence: TypeAlias = Mapping[Node, Node]
"""A node of the pattern -> the node of the graph in its place."""


def find_subgraphs(graph: Graph, pattern: Graph, *, attributes: bool = False) -> Iterator[Occurrence]:
    """Each place where the pattern's nodes stand in the graph, on the same wires, without counting one set twice.

    Nodes match by op, with `attributes` by those too. The pattern's inputs match any value; nodes of the graph may
    have uses outside. Weights are free. VF2 (networkx): linear in practice for patterns of a few different ops, as
    only nodes of the pattern's ops are looked at, exponential in the pattern's size at worst.
    """
    ops = {node.op.name for node in pattern}
    host = _labelled(graph, {node for node in graph if node.op.name in ops})
    wanted = _labelled(pattern, set(pattern))

    def same_node(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
        left, right = mine["node"], theirs["node"]
        return left.op is right.op and (not attributes or attribute_keys(left) == attribute_keys(right))

    def same_wires(mine: Mapping[int, Any], theirs: Mapping[int, Any]) -> bool:
        return _wires(theirs) <= _wires(mine)

    matcher = MultiDiGraphMatcher(host, wanted, node_match=same_node, edge_match=same_wires)
    seen: set[frozenset[Node]] = set()
    for mapping in matcher.subgraph_monomorphisms_iter():
        place = frozenset(mapping)
        if place not in seen and _consistent({theirs: mine for mine, theirs in mapping.items()}):
            seen.add(place)
            yield {theirs: mine for mine, theirs in mapping.items()}


def _labelled(graph: Graph, kept: set[Node]) -> nx.MultiDiGraph[Any]:
    flow = def_use_graph(graph)
    part: nx.MultiDiGraph[Any] = nx.MultiDiGraph()
    part.add_nodes_from((node, {"node": node}) for node in graph if node in kept)
    part.add_edges_from(
        (a, b, {"wire": (data["result"], data["operand"])})
        for a, b, data in flow.edges(data=True)
        if a in kept and b in kept
    )
    return part


def _wires(edges: Mapping[int, Any]) -> set[Any]:
    return {data["wire"] for data in edges.values()}


def _consistent(place: Occurrence) -> bool:
    """Whether operands that are one input of the pattern are one value in the graph, too."""
    bound: dict[object, object] = {}
    for theirs, mine in place.items():
        if len(theirs.operands) > len(mine.operands):
            return False
        for wanted, found in zip(theirs.operands, mine.operands, strict=False):
            wanted_items = wanted if isinstance(wanted, tuple) else (wanted,)
            found_items = found if isinstance(found, tuple) else (found,)
            if len(wanted_items) != len(found_items):
                return False
            for value, actual in zip(wanted_items, found_items, strict=True):
                is_input = value is not None and value.producer is None
                if (
                    is_input
                    and not isinstance(value, Constant)
                    and bound.setdefault(value, actual) is not actual
                ):
                    return False
    return True
