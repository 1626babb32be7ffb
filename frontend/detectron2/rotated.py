"""R-CNN with rotated boxes (arXiv 1703.01086)."""

from __future__ import annotations

from typing import Any

from .box_head import FastRCNNOutputLayers
from .roi_heads import StandardROIHeads
from .rpn import RPN


class RRPN(RPN):
    """A region proposal network whose anchors and proposals are rotated boxes."""


class RotatedFastRCNNOutputLayers(FastRCNNOutputLayers):
    """Scores and five deltas for each region."""


class RROIHeads(StandardROIHeads):
    """A box head on regions that are pooled along their own axes; there are no masks or keypoints."""

    def __init__(self, **kwargs: Any) -> None:
        """As `StandardROIHeads`."""
        super().__init__(**kwargs)
        if self.mask_on or self.keypoint_on:
            raise ValueError("RROIHeads has no masks or keypoints")
