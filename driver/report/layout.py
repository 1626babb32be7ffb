"""Where a graph's nodes stand when it is drawn: in layers from top to bottom, as they depend on each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detc.ir.extras import extra

with extra("report", "the report"):
    from fast_sugiyama import from_edges

Edge = tuple[int, int]
_LONG = 6


def layered(count: int, edges: Sequence[Edge]) -> list[tuple[int, int]]:
    """A (column, layer) for each of `count` vertices, in steps of about one vertex's width and height.

    `edges` go from lower to higher numbers. A vertex is one layer below the lowest that it depends on, one that
    depends on none right above its first use; the order within the layers has few crossings (Sugiyama's method, by
    fast-sugiyama). Edges over many layers have no say in it: to make room for each would pull all else apart, and take
    long.
    """
    layers = _layers(count, edges)
    short = sorted({edge for edge in edges if layers[edge[1]] - layers[edge[0]] <= _LONG})
    columns = dict.fromkeys(range(count), 0.0)
    left = 0.0
    options: dict[str, Any] = {
        "minimum_length": 1,
        "vertex_spacing": 1,
        "dummy_vertices": False,
        "transpose": False,
    }
    for placed, width, *_ in from_edges(short, ranking_type="up", **options) if short else ():
        lowest = min(x for _, (x, _) in placed)
        columns.update((int(vertex), left + x - lowest) for vertex, (x, _) in placed)
        left += width + 1
    return list(zip(_apart(columns, layers), layers, strict=True))


def _layers(count: int, edges: Sequence[Edge]) -> list[int]:
    layers = [0] * count
    for start, end in sorted(edges, key=lambda edge: edge[1]):
        layers[end] = max(layers[end], layers[start] + 1)
    first_use: dict[int, int] = {}
    for start, end in edges:
        first_use[start] = min(first_use.get(start, layers[end]), layers[end])
    for vertex in set(range(count)) - {end for _, end in edges}:
        layers[vertex] = first_use.get(vertex, 1) - 1
    return layers


def _apart(columns: dict[int, float], layers: Sequence[int]) -> list[int]:
    """Whole columns, no two vertices of a layer in one."""
    result = [0] * len(layers)
    taken: dict[int, int] = {}
    for vertex, column in sorted(columns.items(), key=lambda item: item[1]):
        result[vertex] = max(round(column), taken.get(layers[vertex], -1) + 1)
        taken[layers[vertex]] = result[vertex]
    return result
