"""Lowering to TorchScript's level: det ops become operators of aten and torchvision, and functions with loops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from detc.ir import Node
from detc.passes.rewrite.conversion import Conversion, LoweringRule

from ..dialect import DIALECT
from . import boxes, dense, keypoints, masks, points, pooling, proposals, segmentation

__all__ = ["DIRECT", "LOWERED", "LowerToTorchScript"]

DIRECT = frozenset({"aten", "torchvision", DIALECT})
"""The dialects whose ops stay as they are: every runtime of torch has them, or the file brings them along."""

LOWERED: dict[str, LoweringRule] = {
    **boxes.TABLE,
    **proposals.TABLE,
    **dense.TABLE,
    **pooling.TABLE,
    **masks.TABLE,
    **points.TABLE,
    **keypoints.TABLE,
    **segmentation.TABLE,
}
"""The det ops' rules."""


@dataclass(frozen=True)
class LowerToTorchScript(Conversion):
    """Replace det ops by operators of aten and torchvision, and by functions where it takes a loop.

    Before:
        %1: i64[kept] = det.nonempty(%boxes)
    After:
        %1: f32[D,2] = aten.slice.Tensor(%boxes, dim=1, start=2, end=4)
        %2: f32[D,2] = aten.slice.Tensor(%boxes, dim=1, start=0, end=2)
        %3: f32[D,2] = aten.sub.Tensor(%1, %2)
        %4: bool[D,2] = aten.gt.Scalar(%3, other=0.0)
        %5: bool[D] = aten.all.dim(%4, dim=1)
        %6: i64[kept,1] = aten.nonzero(%5)
        %7: i64[kept] = aten.select.int(%6, dim=1, index=0)
    """

    target: ClassVar[str] = "torchscript"
    level: ClassVar[str] = "torchscript"

    @property
    @override
    def table(self) -> Mapping[str, LoweringRule]:
        return LOWERED

    @override
    def is_direct(self, node: Node) -> bool:
        return node.op.dialect in DIRECT
