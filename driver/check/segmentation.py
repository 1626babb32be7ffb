"""Comparing two sides' segmentations of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detc.backends.segmentation import Panoptic
from detc.passes import Tolerances


@dataclass(frozen=True)
class SegmentationReport:
    """How two segmentations of an image compare.

    Attributes:
        expected, actual: how many segments there are on each side, panoptic ones or classes.
        logits: the largest difference of two logits, in shares of the largest logit.
        iou: the least overlap of two matched segments; None where there are none.
        problem: by what they differ more than the tolerances; empty when they agree.
    """

    expected: int
    actual: int
    logits: float
    iou: float | None = None
    problem: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the two agree within the tolerances."""
        return not self.problem


def compare_segmentations(
    expected: Mapping[str, Any], actual: Mapping[str, Any], tolerances: Tolerances | None = None
) -> SegmentationReport:
    """Compare an image's "sem_seg" and, where there is one, "panoptic_seg" (see `Panoptic`)."""
    given = tolerances or Tolerances()
    left, right = expected["sem_seg"], actual["sem_seg"]
    if left.shape != right.shape:
        problem = f"the logits' shape is {list(right.shape)}, not {list(left.shape)}"
        return SegmentationReport(0, 0, float("inf"), None, problem)
    difference = float((left - right).abs().max() / left.abs().max().clamp(min=1e-12))
    problem = f"logits differ by {difference:.1e} of the largest" if not difference <= given.rtol else ""
    if "panoptic_seg" in expected:
        mine, theirs = _panoptic_masks(expected["panoptic_seg"]), _panoptic_masks(actual["panoptic_seg"])
    else:
        mine, theirs = _class_masks(left), _class_masks(right)
    iou, unmatched = _match(mine, theirs, given.mask_iou)
    return SegmentationReport(len(mine), len(theirs), difference, iou, problem or unmatched)


_Masks = Sequence[tuple[str, Tensor]]
"""Segments: what each is, and its pixels bool[h,w]."""


def _panoptic_masks(panoptic: Panoptic) -> _Masks:
    ids, segments = panoptic
    kinds = {True: "thing", False: "stuff"}
    return [(f"{kinds[bool(s['isthing'])]} {s['category_id']}", ids == s["id"]) for s in segments]


def _class_masks(logits: Tensor) -> _Masks:
    labels = logits.argmax(dim=0)
    return [(f"class {label}", labels == label) for label in torch.unique(labels).tolist()]


def _match(mine: _Masks, theirs: _Masks, least: float) -> tuple[float | None, str]:
    """The least IoU of segments of one kind that are matched, each with its best; and what is not matched, if any."""
    left, worst = list(theirs), None
    for kind, mask in mine:
        others = [(overlap(mask, other), i) for i, (name, other) in enumerate(left) if name == kind]
        best, at = max(others, default=(0.0, -1))
        if best < least:
            return worst, f"the segment {kind} of {int(mask.sum())} pixels is missing (best IoU {best:.4f})"
        left.pop(at)
        worst = best if worst is None else min(worst, best)
    if left:
        return worst, f"the segment {left[0][0]} should not be there"
    return worst, ""


def overlap(left: Tensor, right: Tensor) -> float:
    """IoU of two masks bool[h,w]; 1 where both are empty."""
    union = int((left | right).sum())
    return int((left & right).sum()) / union if union else 1.0
