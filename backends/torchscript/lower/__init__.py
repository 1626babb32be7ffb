"""Lowering to TorchScript's level: det ops become operators of aten and torchvision, and functions with loops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from detc.ir import Node
from detc.passes.rewrite.conversion import Conversion, LoweringRule

DIRECT = frozenset({"aten", "torchvision", "torchscript"})
"""The dialects whose ops stay as they are: every runtime of torch has them, or the file brings them along."""
KEPT = (
    "det.box_inference",
    "det.rpn_proposals",
    "det.grid_proposals",
    "det.dense_proposals",
    "det.dense_inference",
    "det.roi_pool",
    "det.paste_masks",
    "det.box_point_sample",
    "det.keypoint_inference",
    "det.sem_seg_postprocess",
    "det.panoptic_combine",
)
"""The det ops that there are rules for."""


@dataclass(frozen=True)
class LowerToTorchScript(Conversion):
    """Replace det ops by operators of aten and torchvision, and by functions where it takes a loop.

    Before:
        %1: f32[D,K,3] = det.keypoint_inference(%heatmaps, %boxes)
    After:
        %1: f32[D,K,3] = torchscript.keypoint_inference(%heatmaps, %boxes)
    """

    target: ClassVar[str] = "torchscript"
    level: ClassVar[str] = "torchscript"

    @property
    @override
    def table(self) -> Mapping[str, LoweringRule]:
        from .table import TABLE  # noqa: PLC0415  (takes seconds, which whoever lists passes need not wait for)

        return TABLE

    @override
    def is_direct(self, node: Node) -> bool:
        return node.op.dialect in DIRECT
