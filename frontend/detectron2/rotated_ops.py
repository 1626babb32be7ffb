"""Operators on rotated boxes that torchvision lacks, as detectron2 has them."""

from __future__ import annotations

from torch import Tensor, nn

from detc.ir.dialects.rotated_kernels import (
    batched_nms_rotated,
    nms_rotated,
    pairwise_iou_rotated,
    roi_align_rotated,
)
from detc.ir.lazy import torchvision
from detc.ir.structures import Boxes, RotatedBoxes

__all__ = [
    "ROIAlignRotated",
    "batched_nms_rotated",
    "boxes_of",
    "nms_rotated",
    "pairwise_iou_rotated",
    "roi_align_rotated",
    "suppress",
]


def boxes_of(tensor: Tensor) -> Boxes | RotatedBoxes:
    """What holds boxes [N, 4] or rotated boxes [N, 5]."""
    return Boxes(tensor) if tensor.shape[-1] == Boxes.box_dim else RotatedBoxes(tensor)


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Which of boxes [N, 4] or [N, 5] stay, best first, in suppression within each group."""
    nms = torchvision.ops.batched_nms if boxes.shape[-1] == Boxes.box_dim else batched_nms_rotated
    kept: Tensor = nms(boxes, scores.float(), groups, threshold)
    return kept


class ROIAlignRotated(nn.Module):
    """`roi_align_rotated` as a module."""

    def __init__(self, output_size: tuple[int, int], spatial_scale: float, sampling_ratio: int) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        return roi_align_rotated(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}"
        )
