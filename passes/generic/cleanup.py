"""Taking away what a graph does not need: dead nodes and weights, and what is computed twice."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from typing_extensions import override

from detc.ir import (
    Constant,
    Graph,
    Node,
    Operand,
    attribute_key,
)

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

    Nodes with effects stay, and so do the graph's inputs. O(n).
    """

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        changed = False
        # From the last on: an operand may be dead once its users are gone.
        for node in reversed(graph):
            if is_unused(node):
                with context.rewrite(node.op.name):
                    graph.erase(node)
                changed = True
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
        self._safe: set[Node] = set()

    def run(self) -> bool:
        changed = False
        for node in self._graph:
            if not (node.op.has_effects or node.op.is_random) and self._merge(node):
                changed = True
        return changed

    def _merge(self, node: Node) -> bool:
        twin = self._seen.setdefault(_key(node), node)
        if twin is node:
            return False
        # The twin's users are looked at once: those that it gets from others have been looked at.
        if _meets_effects(node) or (twin not in self._safe and _meets_effects(twin)):
            return False
        self._safe.add(twin)
        pairs = list(zip(node.results, twin.results, strict=True))
        if not all(self._graph.may_replace(*pair) for pair in pairs) or self._context.is_spent:
            return False
        with self._context.rewrite(node.op.name):
            for pair in pairs:
                self._graph.replace_uses(*pair)
            self._graph.erase(node)
        return True


def _meets_effects(node: Node) -> bool:
    return any(user.op.has_effects for result in node.results for user in result.users)


def _key(node: Node) -> Hashable:
    attributes: Hashable = None
    if node.attributes:
        attributes = tuple([(name, attribute_key(value)) for name, value in sorted(node.attributes.items())])
    return node.op, attributes, *map(_operand_key, node.operands)


def _operand_key(operand: Operand) -> Hashable:
    if isinstance(operand, Constant):
        # A weight without data is itself alone, and so is one that has a name.
        if operand.is_literal and not operand.data.is_meta:
            # The text of each number tells 0.0 from -0.0, and one nan is another.
            return operand.data.dtype, tuple(operand.data.shape), str(operand.data.reshape(-1).tolist())
    elif isinstance(operand, tuple):
        return tuple(map(_operand_key, operand))
    return operand
