"""Pools features of regions from a pyramid (arXiv 1612.03144, section 4.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from detc.ir.lazy import torchvision
from detc.ir.structures import Boxes, RotatedBoxes

from ..errors import InputError
from .layers import ROIAlign
from .rotated_ops import ROIAlignRotated

BoxLists = Sequence[Boxes] | Sequence[RotatedBoxes]


def assign_boxes_to_levels(
    box_lists: BoxLists, min_level: int, max_level: int, canonical_box_size: float, canonical_level: int
) -> Tensor:
    """The level that each box is pooled from, by its area: equation 1 of the FPN paper.

    Returns:
        int64[M] over the boxes of all images, 0 for `min_level`. Boxes too small or large for the levels
        there are take the nearest.
    """
    sizes = torch.sqrt(torch.cat([boxes.area() for boxes in box_lists]))
    # The epsilon keeps the logarithm of an empty box finite.
    levels = torch.floor(canonical_level + torch.log2(sizes / canonical_box_size + 1e-8))
    return torch.clamp(levels, min=min_level, max=max_level).to(torch.int64) - min_level


def convert_boxes_to_pooler_format(box_lists: BoxLists) -> Tensor:
    """All boxes in one matrix [M, 1 + box_dim], with the index of their image in front."""
    return torch.cat(
        [
            torch.cat((boxes.tensor.new_full((len(boxes), 1), index), boxes.tensor), dim=1)
            for index, boxes in enumerate(box_lists)
        ]
    )


def _pooler(pooler_type: str, output_size: tuple[int, int], scale: float, sampling_ratio: int) -> nn.Module:
    match pooler_type:
        case "ROIAlign" | "ROIAlignV2":
            return ROIAlign(output_size, scale, sampling_ratio, aligned=pooler_type == "ROIAlignV2")
        case "ROIPool":
            return torchvision.ops.RoIPool(output_size, scale)
        case "ROIAlignRotated":
            return ROIAlignRotated(output_size, scale, sampling_ratio)
    raise InputError(
        f"POOLER_TYPE '{pooler_type}' is not known; "
        "there are ROIAlign, ROIAlignV2, ROIPool and ROIAlignRotated"
    )


class ROIPooler(nn.Module):
    """Pools every box from the level of the pyramid that suits its size."""

    def __init__(
        self,
        output_size: int | tuple[int, int],
        scales: Sequence[float],
        sampling_ratio: int,
        pooler_type: str,
        canonical_box_size: float = 224,
        canonical_level: int = 4,
    ) -> None:
        """
        Args:
            output_size: height and width of the pooled region.
            scales: for each level 1 / stride; strides are powers of two, each twice the one before.
            sampling_ratio: see `ROIAlign`.
            pooler_type: "ROIAlign", "ROIAlignV2" (aligned), "ROIPool" or "ROIAlignRotated".
            canonical_box_size: the side of a square box that is pooled from `canonical_level`, in pixels.
            canonical_level: log2 of the stride of that level.
        """
        super().__init__()
        self.output_size = (output_size, output_size) if isinstance(output_size, int) else output_size
        self.level_poolers = nn.ModuleList(
            _pooler(pooler_type, self.output_size, scale, sampling_ratio) for scale in scales
        )
        levels = [-math.log2(scale) for scale in scales]
        if (
            any(not math.isclose(level, levels[0] + k) for k, level in enumerate(levels))
            or levels[0] % 1 != 0
        ):
            raise InputError(
                "regions are pooled from features whose strides are powers of two and double from level to "
                f"level, not {[round(1 / scale) for scale in scales]}"
            )
        self.min_level = int(levels[0])
        self.max_level = int(levels[-1])
        self.canonical_level = canonical_level
        self.canonical_box_size = canonical_box_size

    def forward(self, x: Sequence[Tensor], box_lists: BoxLists) -> Tensor:
        """
        Args:
            x: [N, C, H, W] for each level.
            box_lists: the boxes of each of the N images, in pixels of the input.

        Returns:
            [M, C, *output_size] over the boxes of all images.
        """
        if len(x) != len(self.level_poolers):
            raise ValueError(
                f"the pooler has {len(self.level_poolers)} levels, but got {len(x)} feature maps"
            )
        if len(box_lists) != x[0].shape[0]:
            raise ValueError(f"got boxes of {len(box_lists)} images for features of {x[0].shape[0]}")
        rois = convert_boxes_to_pooler_format(box_lists)
        if len(self.level_poolers) == 1:
            pooled: Tensor = self.level_poolers[0](x[0], rois)
            return pooled
        levels = assign_boxes_to_levels(
            box_lists, self.min_level, self.max_level, self.canonical_box_size, self.canonical_level
        )
        output = x[0].new_zeros((rois.shape[0], x[0].shape[1], *self.output_size))
        for level, (feature, pooler) in enumerate(zip(x, self.level_poolers, strict=True)):
            (index,) = torch.where(levels == level)
            output[index] = pooler(feature, rois[index])
        return output

    if TYPE_CHECKING:
        __call__ = forward
