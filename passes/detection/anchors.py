"""Anchors where they are needed."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from detc.ir import Graph, Node, Value

from ..core.base import Context, NoMatch, Pass, erase_if_unused

_UPRIGHT = {"det.rpn_proposals": ("det.anchors", "det.grid_proposals")}
_ROTATED = {"det.rotated_rpn_proposals": ("det.rotated_anchors", "det.rotated_grid_proposals")}
"""Op that takes anchors -> the op that lays them out, and the one that takes its operands instead."""


@dataclass(frozen=True)
class FuseAnchors(Pass):
    """Compute anchors only for the proposals that are kept, instead of at every position of every level.

    Before:
        %a: f32[3*H*W/16,4] = det.anchors(%p2, @cells:f32[3,4], stride=4, offset=0.0)
        %b, %s, %i = det.rpn_proposals([%logits], [%deltas], [%a], %im_info, ...)
    After:
        %b, %s, %i = det.grid_proposals([%logits], [%deltas], [@cells:f32[3,4]], %im_info, strides=(4,), ...)

    With `rotated` the same for rotated anchors, for a target that lays them out itself.
    """

    rotated: bool = False

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        changed = False
        fused = {**_UPRIGHT, **(_ROTATED if self.rotated else {})}
        for node in graph:
            if node.op.name in fused:
                count = context.count("fuse-anchors")
                count.tried += 1
                try:
                    self._fuse(graph, node, context, *fused[node.op.name])
                except NoMatch as refusal:
                    count.refused[refusal.reason] += 1
                else:
                    count.matched += 1
                    changed = True
        return changed

    def _fuse(self, graph: Graph, node: Node, context: Context, anchors_op: str, grid_op: str) -> None:
        producers = [_anchors_node(value, anchors_op) for value in node.operand_list(2)]
        for anchors, logits in zip(producers, node.operand_list(0), strict=True):
            if anchors.operand(0).shape[2:] != logits.shape[2:]:
                raise NoMatch("the anchors are laid over another map than the logits")
        offsets = {p.attributes["offset"] for p in producers}
        counts = {p.operand(1).shape[0] for p in producers}
        if len(offsets) != 1 or len(counts) != 1:
            raise NoMatch("the levels differ in their offset or their number of anchors")
        build = context.builder(graph, node)
        results: tuple[Value, ...] = build.call(
            grid_op,
            node.operand_list(0),
            node.operand_list(1),
            [p.operand(1) for p in producers],
            node.operand(3),
            strides=tuple(p.attributes["stride"] for p in producers),
            offset=offsets.pop(),
            **node.attributes,
        )
        for old, new in zip(node.results, results, strict=True):
            graph.replace_uses(old, new)
        graph.erase(node)
        for producer in producers:
            erase_if_unused(graph, producer)


def _anchors_node(value: Value, op: str) -> Node:
    node = value.producer
    if node is None or node.op.name != op:
        raise NoMatch("the anchors are computed otherwise")
    return node
