"""Taking away what a graph does not need: dead nodes and weights, and what is computed twice."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from typing_extensions import override

from detc.ir import (
    Constant,
    Dim,
    Graph,
    Node,
    SymExpr,
    TensorType,
    Type,
    Value,
    attribute_key,
    attribute_symbols,
    substitute_attribute,
)
from detc.ir.types import substitute_type, tensors_of, type_symbols

from ..core.base import Context, Pass, is_unused


@dataclass(frozen=True)
class DeadCode(Pass):
    """Take away nodes whose results nothing uses, and weights that nothing uses.

    Before:
        %0: f32[N,8] = aten.relu(%x)
        %1: f32[N,8] = aten.mul.Tensor(%x, @scale:f32[8])
        return y=%0
    After:
        %0: f32[N,8] = aten.relu(%x)
        return y=%0

    Nodes with effects stay, and so do the graph's inputs, and the node that a size comes from which an attribute of
    another needs. O(n).
    """

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        origins = _size_origins(graph)
        needed: set[Node] = set()
        changed = False
        for node in reversed(graph):
            if node not in needed and is_unused(graph, node):
                with context.rewrite(node.op.name):
                    graph.erase(node)
                changed = True
            elif origins:
                needed.update(origins[name] for name in _sizes_asked(node) if name in origins)
        return context.prune_weights(graph) or changed


@dataclass(frozen=True)
class CommonSubexpressions(Pass):
    """Compute once what is computed twice: the same op on the same operands with the same attributes.

    Before:
        %0: i64[kept] = det.nonempty(%boxes)
        %1: i64[kept_1] = det.nonempty(%boxes)
        %2: f32[kept_1,4] = aten.index_select(%boxes, %1, dim=0)
    After:
        %0: i64[kept] = det.nonempty(%boxes)
        %2: f32[kept,4] = aten.index_select(%boxes, %0, dim=0)

    Small constants are the same operand where they hold the same numbers. Nodes with effects are left alone,
    and so are values that a node with effects uses: it might change one of two copies. A size that only the
    data knows takes the name that the first computation gave it. One walk, O(n).
    """

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        return _Merger(graph, context).run()


class _Merger:
    def __init__(self, graph: Graph, context: Context) -> None:
        self._graph = graph
        self._context = context
        self._seen: dict[Hashable, Node] = {}
        self._sizes: dict[str, Dim] = {}
        self._symbols: dict[Type, frozenset[str]] = {}
        self._defined: set[str] = set()
        self._safe: set[Node] = set()

    def run(self) -> bool:
        changed = False
        for value in self._graph.inputs:
            self._defined |= self._symbols_of(value.type)
        for node in self._graph:
            if self._sizes:
                self._rename_sizes(node)
            if not (node.op.has_effects or node.op.is_random) and self._merge(node):
                changed = True
                continue
            for result in node.results:
                self._defined |= self._symbols_of(result.type)
        return changed

    def _merge(self, node: Node) -> bool:
        twin = self._seen.setdefault(_key(node), node)
        if twin is node:
            return False
        # The twin's users are looked at once: those that it gets from others have been looked at.
        if _meets_effects(node) or (twin not in self._safe and _meets_effects(twin)):
            return False
        self._safe.add(twin)
        sizes = self._same_sizes(node, twin)
        # Where a limit stops the pass the walk goes on: sizes that were renamed are, up to the end.
        if sizes is None or self._context.is_spent:
            return False
        with self._context.rewrite(node.op.name):
            self._sizes.update(sizes)
            for mine, theirs in zip(node.results, twin.results, strict=True):
                self._graph.replace_uses(mine, theirs)
            self._graph.erase(node)
        return True

    def _same_sizes(self, node: Node, twin: Node) -> dict[str, Dim] | None:
        """What the sizes that the node gives a first name to are called by its twin; None if more differs."""
        renamed: dict[str, Dim] = {}
        for mine, theirs in zip(node.results, twin.results, strict=True):
            if mine.type == theirs.type:
                continue
            left, right = list(tensors_of(mine.type)), list(tensors_of(theirs.type))
            if len(left) != len(right):
                return None
            for a, b in zip(left, right, strict=True):
                if a.dtype != b.dtype or a.rank != b.rank or not self._same_shape(a, b, renamed):
                    return None
        return renamed

    def _same_shape(self, mine: TensorType, theirs: TensorType, renamed: dict[str, Dim]) -> bool:
        for a, b in zip(mine.shape, theirs.shape, strict=True):
            if a == b:
                continue
            known = a.as_symbol if isinstance(a, SymExpr) else None
            if known is None or known.name in self._defined or renamed.setdefault(known.name, b) != b:
                return False
        return True

    def _rename_sizes(self, node: Node) -> None:
        for name, value in node.attributes.items():
            node.attributes[name] = substitute_attribute(value, self._sizes)
        for result in node.results:
            if not self._symbols_of(result.type).isdisjoint(self._sizes):
                result.type = substitute_type(result.type, self._sizes)

    def _symbols_of(self, type: Type) -> frozenset[str]:
        known = self._symbols.get(type)
        if known is None:
            known = self._symbols[type] = frozenset(symbol.name for symbol in type_symbols(type))
        return known


def _sizes_asked(node: Node) -> set[str]:
    """The sizes in a node's attributes."""
    return {symbol.name for value in node.attributes.values() for symbol in attribute_symbols(value)}


def _size_origins(graph: Graph) -> dict[str, Node]:
    """Which node each size in an attribute comes from, of those that only the data knows."""
    given = {symbol.name for value in graph.inputs for symbol in type_symbols(value.type)}
    asked = {name for node in graph for name in _sizes_asked(node)} - given
    origins: dict[str, Node] = {}
    for node in graph if asked else ():
        for result in node.results:
            for symbol in type_symbols(result.type):
                if symbol.name in asked:
                    origins.setdefault(symbol.name, node)
    return origins


def _meets_effects(node: Node) -> bool:
    return any(user.op.has_effects for result in node.results for user in result.users)


def _key(node: Node) -> Hashable:
    operands: list[Hashable] = []
    for operand in node.operands:
        if isinstance(operand, tuple):
            operands.append(tuple(None if item is None else _value_key(item) for item in operand))
        else:
            operands.append(None if operand is None else _value_key(operand))
    attributes = tuple((name, attribute_key(value)) for name, value in sorted(node.attributes.items()))
    return node.op.name, tuple(operands), attributes


def _value_key(value: Value) -> Hashable:
    if isinstance(value, Constant) and value.is_literal and not value.data.is_meta:
        # The text of each number tells 0.0 from -0.0, and one nan is another.
        return value.data.dtype, tuple(value.data.shape), str(value.data.reshape(-1).tolist())
    return value
