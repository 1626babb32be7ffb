"""Where a graph's nodes stand when it is drawn: in layers from top to bottom, as they depend on each other."""

from __future__ import annotations

from collections.abc import Sequence

import igraph

Edge = tuple[int, int]
_SWEEPS = 24
_LONG = 6


def layered(count: int, edges: Sequence[Edge]) -> list[tuple[int, int]]:
    """A (column, layer) for each of `count` vertices, in steps of about one vertex's width and height.

    `edges` go from lower to higher numbers. A vertex is one layer below the lowest that it depends on, one that
    depends on none right above its first use; the order within the layers has few crossings (Sugiyama's method, by
    igraph). Edges over many layers have no say in it: to make room for each would pull all else apart. Nearly linear.
    """
    if not count:
        return []
    layers = [0] * count
    for start, end in sorted(edges, key=lambda edge: edge[1]):
        layers[end] = max(layers[end], layers[start] + 1)
    first_use: dict[int, int] = {}
    for start, end in edges:
        first_use[start] = min(first_use.get(start, layers[end]), layers[end])
    sources = set(range(count)) - {end for _, end in edges}
    for vertex in sources:
        layers[vertex] = first_use.get(vertex, 1) - 1
    short = [edge for edge in edges if layers[edge[1]] - layers[edge[0]] <= _LONG]
    graph = igraph.Graph(n=count, edges=short, directed=True)
    placed = graph.layout_sugiyama(layers=layers, hgap=1, vgap=1, maxiter=_SWEEPS)
    columns = [x for x, _ in placed.coords[:count]]
    left = min(columns)
    return [(round(x - left), layer) for x, layer in zip(columns, layers, strict=True)]
