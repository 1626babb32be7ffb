"""Lowering to Caffe2: aten and det ops become Caffe2's operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from detc.backends.caffe2 import dialect as _dialect  # noqa: F401  (registers caffe2.*)
from detc.ir import Graph, Node
from detc.passes.core.base import Context
from detc.passes.rewrite.conversion import Conversion, LoweringRule, Sizes
from detc.passes.rewrite.lowering_rules import by_form

from . import aten, det, points, proposals, resize, rotated
from .aten import DIRECT, UNSUPPORTED
from .builder import Caffe2Builder

__all__ = ["DIRECT", "TABLE", "UNSUPPORTED", "Caffe2Builder", "LowerToCaffe2"]

TABLE: dict[str, LoweringRule] = {
    **aten.TABLE,
    **resize.TABLE,
    **points.TABLE,
    **det.TABLE,
    "det.grid_proposals": by_form(proposals.grid_proposals, rotated.grid_proposals),
    "det.roi_pool": by_form(det.roi_pool, rotated.roi_pool, boxes=1),
}


@dataclass(frozen=True)
class LowerToCaffe2(Conversion):
    """Replace every op by Caffe2's operators.

    Before:
        %1: f32[1,8,H,W] = aten.conv2d(%x, @w:f32[8,3,3,3], padding=(1, 1))
        %2: f32[1,8,H,W] = aten.relu(%1)
    After:
        %1: f32[1,8,H,W] = caffe2.Conv(%x, @w:f32[8,3,3,3], kernels=(3, 3), pads=(1, 1, 1, 1), ...)
        %2: f32[1,8,H,W] = caffe2.Relu(%1)
    """

    target: ClassVar[str] = "caffe2"
    level: ClassVar[str] = "caffe2"

    @property
    @override
    def table(self) -> Mapping[str, LoweringRule]:
        return TABLE

    @override
    def make_builder(self, graph: Graph, node: Node, sizes: Sizes, context: Context) -> Caffe2Builder:
        return Caffe2Builder(graph, node, sizes, created_by=context.pass_name)
