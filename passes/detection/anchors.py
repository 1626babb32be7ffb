"""Anchors where they are needed."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from detc.ir import Graph, Node, Value
from detc.ir.dialects.box_forms import ROTATED

from ..core.base import Context, NoMatch, Pass, erase_if_unused


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
        for node in graph:
            if node.op.name == "det.rpn_proposals":
                count = context.count("fuse-anchors")
                count.tried += 1
                try:
                    self._fuse(graph, node, context)
                except NoMatch as refusal:
                    count.refused[refusal.reason] += 1
                else:
                    count.matched += 1
                    changed = True
        return changed

    def _fuse(self, graph: Graph, node: Node, context: Context) -> None:
        producers = [_anchors_node(value) for value in node.operand_list(2)]
        if not self.rotated and producers[0].result.shape[1] == ROTATED.columns:
            raise NoMatch("the target has no rule for a grid of rotated anchors")
        for anchors, logits in zip(producers, node.operand_list(0), strict=True):
            if anchors.operand(0).shape[2:] != logits.shape[2:]:
                raise NoMatch("the anchors are laid over another map than the logits")
        offsets = {p.attributes["offset"] for p in producers}
        counts = {p.operand(1).shape[0] for p in producers}
        if len(offsets) != 1 or len(counts) != 1:
            raise NoMatch("the levels differ in their offset or their number of anchors")
        build = context.builder(graph, node)
        results: tuple[Value, ...] = build.det.grid_proposals(
            node.operand_list(0),
            node.operand_list(1),
            [p.operand(1) for p in producers],
            node.operand(3),
            strides=tuple(p.attributes["stride"] for p in producers),
            offset=offsets.pop(),
            **node.attributes,
        )
        for old, new in zip(node.results, results, strict=True):
            new.type = old.type
            graph.replace_uses(old, new)
        graph.erase(node)
        for producer in producers:
            erase_if_unused(graph, producer)


def _anchors_node(value: Value) -> Node:
    node = value.producer
    if node is None or node.op.name != "det.anchors":
        raise NoMatch("the anchors are computed otherwise")
    return node
