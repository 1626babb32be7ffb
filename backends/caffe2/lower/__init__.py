"""Lowering to Caffe2: aten and det ops become Caffe2's operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from detc.ir import Builder, Graph, Node
from detc.passes.core.base import Context
from detc.passes.rewrite.conversion import Conversion, LoweringRule, Sizes

KEPT = (
    "det.point_sample",
    "det.box_point_sample",
    "det.class_logits",
    "det.uncertain_points",
    "det.put_points",
    "det.normalize",
    "det.apply_deltas",
    "det.clip_boxes",
    "det.box_inference",
    "det.grid_proposals",
    "det.roi_pool",
)
"""The det ops that there are rules for."""


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
        from .table import TABLE  # noqa: PLC0415  (takes seconds, which whoever lists passes need not wait for)

        return TABLE

    @override
    def make_builder(self, graph: Graph, node: Node, sizes: Sizes, context: Context) -> Builder:
        from .builder import Caffe2Builder  # noqa: PLC0415  (as above)

        return Caffe2Builder(graph, node, sizes, created_by=context.pass_name)
