"""Lowering to ONNX: aten, torchvision and det ops become ai.onnx operators of one opset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from detc.ir import Builder, Graph, Node
from detc.passes.core.base import Context
from detc.passes.rewrite.conversion import Conversion, LoweringRule, Sizes

KEPT = (
    "det.anchors",
    "det.box_inference",
    "det.rpn_proposals",
    "det.grid_proposals",
    "det.dense_proposals",
    "det.roi_pool",
    "det.dense_inference",
    "det.paste_masks",
    "det.keypoint_inference",
    "det.box_point_sample",
    "det.sem_seg_postprocess",
    "det.panoptic_combine",
)
"""The det ops that there are rules for."""


@dataclass(frozen=True)
class LowerToOnnx(Conversion):
    """Replace every op by ai.onnx operators.

    Before:
        %1: f32[N,8,H,W] = aten.conv2d(%x, @w:f32[8,3,3,3], padding=(1, 1))
        %2: f32[N,8*H*W] = aten.flatten.using_ints(%1, start_dim=1)
    After:
        %1: f32[N,8,H,W] = onnx.Conv(%x, @w:f32[8,3,3,3], pads=(1, 1, 1, 1))
        %2: f32[N,8*H*W] = onnx.Reshape(%1, i64[2]{0, -1})
    """

    target: ClassVar[str] = "onnx"
    level: ClassVar[str] = "onnx"

    @property
    @override
    def table(self) -> Mapping[str, LoweringRule]:
        from .table import TABLE  # noqa: PLC0415  (takes seconds, which whoever lists passes need not wait for)

        return TABLE

    @override
    def make_builder(self, graph: Graph, node: Node, sizes: Sizes, context: Context) -> Builder:
        from .builder import OnnxBuilder  # noqa: PLC0415  (as above)

        return OnnxBuilder(graph, node, sizes, created_by=context.pass_name, table=self.table)
