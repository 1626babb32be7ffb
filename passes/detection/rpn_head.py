"""One convolution where an RPN head has two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from typing_extensions import override

from detc.ir import Builder, Constant, Graph, Value
from detc.ir.lazy import torch

from ..core.base import Context, Pass
from ..rewrite.patterns import Match, NodePattern, Pattern, PatternBuilder
from ..rewrite.rules import RewriteRule, apply_rules, summaries


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

    @property
    @override
    def rules(self) -> Mapping[str, str]:
        return summaries([MergeRpnHead()])

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        changed = apply_rules(graph, [MergeRpnHead()], context)
        return context.prune_weights(graph) or changed


class MergeRpnHead(RewriteRule):
    """grid_proposals(conv2d(x, v), conv2d(x, w), ...)  ->  dense_proposals(conv2d(x, cat(v, w)), ...)"""

    @override
    def pattern(self, p: PatternBuilder, maps: Pattern, cells: Pattern, im_info: Pattern) -> NodePattern:
        def head(weight: str, bias: str) -> NodePattern:
            kernel = p.anything().where(
                _is_kernel, "a map comes from no 1x1 convolution with constant weights"
            )
            shift = p.anything().where(_is_constant, "a map comes from no convolution with a constant bias")
            once = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
            return p.aten.conv2d(maps, kernel.named(weight), shift.named(bias), **once).single_use()

        logits, deltas = p.each(
            head("logit_weights", "logit_biases").named("logits"),
            head("delta_weights", "delta_biases").named("deltas"),
        )
        return p.det.grid_proposals(logits, deltas, cells, im_info)

    @override
    def rewrite(self, b: Builder, m: Match) -> Sequence[Value]:
        # The levels share their head: so do the fused ones.
        fused: dict[tuple[Value, ...], tuple[Value, Value]] = {}
        made: list[Value] = []
        parts = (m.logit_weights, m.delta_weights, m.logit_biases, m.delta_biases)
        for x, logits, *head in zip(m.maps, m.logits, *parts, strict=True):
            key = tuple(head)
            if key not in fused:
                fused[key] = _interleaved(b, *head[:2]), _interleaved(b, *head[2:])
            with b.at(logits.source):
                made.append(b.aten.conv2d(x, *fused[key]))
        return b.det.dense_proposals(made, m.cells, m.im_info, **m.root.attributes)


def _is_constant(value: Value) -> bool:
    return isinstance(value, Constant)


def _is_kernel(value: Value) -> bool:
    return isinstance(value, Constant) and value.shape[2:] == (1, 1)


def _interleaved(b: Builder, logits: Constant, deltas: Constant) -> Constant:
    """The rows of two weights or biases as one: for each anchor its logit, then its deltas."""
    anchors, *rest = logits.data.shape
    both = torch.cat([logits.data.reshape(anchors, 1, *rest), deltas.data.reshape(anchors, -1, *rest)], dim=1)
    stem = f"{logits.name or 'rpn_head'}_fused"
    return b.graph.add_weight(b.graph.fresh_weight_name(stem), both.flatten(0, 1))
