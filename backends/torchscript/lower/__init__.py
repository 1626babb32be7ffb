"""Lowering to TorchScript's level: det ops become operators of aten and torchvision, and functions with loops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from detc.ir import Node
from detc.passes.rewrite.conversion import Conversion, LoweringRule

from ..dialect import DIALECT
from . import boxes, dense, masks, points, pooling, proposals, scripted

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
    **scripted.TABLE,
}
"""The rules of the det ops whose bodies cannot be traced. The others are written out before."""
SAVES: dict[str, int] = {"det.roi_pool": 5}
"""The rules of ops whose bodies can be traced -> how many nodes fewer than what is traced they give, at most."""


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
        return LOWERED

    @override
    def is_direct(self, node: Node) -> bool:
        return node.op.dialect in DIRECT
