"""One convolution where an RPN head has two."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from typing_extensions import override

from detc.ir import Builder, Constant, Graph, Node, Value

from ..core.base import Context, NoMatch, Pass, erase_if_unused


@dataclass(frozen=True)
class FuseRpnHead(Pass):
    """Predict an RPN's logits and deltas with one 1x1 convolution, so that their input is read once.

    Before:
        %l: f32[N,3,H/4,W/4] = aten.conv2d(%x, @logits.weight:f32[3,256,1,1], @logits.bias:f32[3])
        %d: f32[N,12,H/4,W/4] = aten.conv2d(%x, @deltas.weight:f32[12,256,1,1], @deltas.bias:f32[12])
        %b, %s, %i = det.grid_proposals([%l], [%d], [@cells:f32[3,4]], %im_info, ...)
    After:
        %m: f32[N,15,H/4,W/4] = aten.conv2d(%x, @logits.weight_fused:f32[15,256,1,1], @logits.bias_fused:f32[15])
        %b, %s, %i = det.dense_proposals([%m], [@cells:f32[3,4]], %im_info, ...)
    """

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        changed = False
        for node in graph:
            if node.op.name == "det.grid_proposals":
                count = context.count("fuse-rpn-head")
                count.tried += 1
                try:
                    _fuse(graph, node, context)
                except NoMatch as refusal:
                    count.refused[refusal.reason] += 1
                else:
                    count.matched += 1
                    changed = True
        if changed:
            graph.prune_weights()
        return changed


def _fuse(graph: Graph, node: Node, context: Context) -> None:
    cells = node.operand_list(2)
    pairs = [
        (_head(graph, logits), _head(graph, deltas))
        for logits, deltas in zip(node.operand_list(0), node.operand_list(1), strict=True)
    ]
    for (logits, deltas), cell in zip(pairs, cells, strict=True):
        if logits.operand(0) is not deltas.operand(0):
            raise NoMatch("logits and deltas are predicted from different maps")
        if deltas.result.shape[1] != logits.result.shape[1] * cell.shape[1]:
            raise NoMatch("the deltas are not one box for each logit")
    # The levels share their head: so do the fused ones.
    fused: dict[tuple[Value, Value], tuple[Value, Value]] = {}
    build = context.builder(graph, node)
    maps: list[Value] = []
    for logits, deltas in pairs:
        key = (logits.operand(1), deltas.operand(1))
        if key not in fused:
            fused[key] = _fused_weights(build, logits, deltas)
        with build.at(logits.source):
            maps.append(build.aten.conv2d(logits.operand(0), *fused[key]))
    results = build.det.dense_proposals(maps, cells, node.operand(3), **node.attributes)
    for old, new in zip(node.results, results, strict=True):
        graph.replace_uses(old, new)
    graph.erase(node)
    for pair in pairs:
        for convolution in pair:
            erase_if_unused(graph, convolution)


def _head(graph: Graph, value: Value) -> Node:
    """The plain 1x1 convolution with constant weights that makes a map used for nothing else."""
    node = value.producer
    if node is None or node.op.name != "aten.conv2d" or node.attributes:
        raise NoMatch("a map comes from no plain convolution")
    if value.only_user is None:
        raise NoMatch("a map has other uses")
    constants = [node.operand_or_none(i) for i in (1, 2)]
    if not all(isinstance(c, Constant) for c in constants) or node.operand(1).shape[2:] != (1, 1):
        raise NoMatch("a map comes from no 1x1 convolution with constant weights and bias")
    return node


def _fused_weights(build: Builder, logits: Node, deltas: Node) -> tuple[Value, Value]:
    anchors = logits.result.shape[1]
    assert isinstance(anchors, int)
    made: list[Value] = []
    for i in (1, 2):
        scores, boxes = logits.operand(i), deltas.operand(i)
        assert isinstance(scores, Constant) and isinstance(boxes, Constant)
        # For each anchor its logit, then its deltas.
        rest = scores.data.shape[1:]
        both = torch.cat(
            [scores.data.reshape(anchors, 1, *rest), boxes.data.reshape(anchors, -1, *rest)], dim=1
        )
        stem = f"{scores.name or 'rpn_head'}_fused"
        made.append(build.graph.add_weight(build.graph.fresh_weight_name(stem), both.flatten(0, 1)))
    return made[0], made[1]
