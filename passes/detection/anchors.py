"""Anchors where they are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from typing_extensions import override

from detc.ir import Builder, Graph, Value
from detc.ir.lazy import box_forms

from ..core.base import Context, NoMatch, Pass
from ..rewrite.patterns import Match, NodePattern, Pattern, PatternBuilder
from ..rewrite.rules import RewriteRule, apply_rules, summaries


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

    @property
    @override
    def rules(self) -> Mapping[str, str]:
        return summaries(self._rules())

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        return apply_rules(graph, self._rules(), context)

    def _rules(self) -> list[RewriteRule]:
        return [AnchorsIntoProposals(self.rotated)]


class AnchorsIntoProposals(RewriteRule):
    """rpn_proposals(logits, deltas, anchors(map, cells), ...)  ->  grid_proposals(logits, deltas, cells, ...)"""

    def __init__(self, rotated: bool = False) -> None:
        self.rotated = rotated

    @override
    def pattern(
        self,
        p: PatternBuilder,
        logits: Pattern,
        deltas: Pattern,
        maps: Pattern,
        cells: Pattern,
        im_info: Pattern,
    ) -> NodePattern:
        anchors = p.det.anchors(maps, cells, stride=p.attribute("strides"), offset=p.attribute("offset"))
        return p.det.rpn_proposals(logits, deltas, p.each(anchors, same="offset"), im_info)

    @override
    def check(self, m: Match) -> None:
        if any(a.shape[2:] != b.shape[2:] for a, b in zip(m.maps, m.logits, strict=True)):
            raise NoMatch("the anchors are laid over another map than the logits")
        if len({cells.shape[0] for cells in m.cells}) != 1:
            raise NoMatch("the levels differ in their number of anchors")
        if not self.rotated and m.cells[0].shape[1] == box_forms.ROTATED.columns:
            raise NoMatch("the target has no rule for a grid of rotated anchors")

    @override
    def rewrite(self, b: Builder, m: Match) -> Sequence[Value]:
        return b.det.grid_proposals(
            *(m.logits, m.deltas, m.cells, m.im_info), strides=m.strides, offset=m.offset, **m.root.attributes
        )
