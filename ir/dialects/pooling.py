"""`det.roi_pool`: pooling regions from one or several feature levels (detectron2 modeling/poolers.py)."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import IRError
from ..lazy import torchvision
from ..ops import op
from ..types import TensorType, Type
from .box_forms import ROTATED
from .boxes import boxes_type, sides, tensor
from .rotated_kernels import roi_align_rotated_by_level

ALONG_BOXES = "ROIAlignRotated"
"""The pooler of rotated boxes; the others are of upright ones."""


def _roi_pool_type(
    features: tuple[Type, ...],
    boxes: Type,
    batch_index: Type,
    *,
    output_size: tuple[int, int],
    **rest: object,
) -> Type:
    scales = rest["scales"]
    if not isinstance(scales, tuple) or len(scales) != len(features):
        raise IRError(f"{len(features)} feature maps need as many scales, not {scales}")
    first = tensor(features[0], 4, "a feature map")
    rows, columns = boxes_type(boxes).shape
    if (columns == ROTATED.columns) != (rest["pooler_type"] == ALONG_BOXES):
        raise IRError(
            f"{rest['pooler_type']} does not pool from boxes {boxes}; {ALONG_BOXES} is for rotated ones"
        )
    tensor(batch_index, 1, "batch_index")
    return TensorType(first.dtype, (rows, first.shape[1], *output_size))


@op("det.roi_pool", infer=_roi_pool_type)
def roi_pool_(
    features: Sequence[Tensor],
    boxes: Tensor,
    batch_index: Tensor,
    *,
    output_size: tuple[int, int],
    scales: tuple[float, ...],
    sampling_ratio: int,
    pooler_type: str,
    canonical_box_size: int,
    canonical_level: int,
) -> Tensor:
    """Each box's features, resampled to `output_size` from the level that fits the box's size.

    The level is floor(canonical_level + log2(sqrt(area) / canonical_box_size + 1e-8)), clamped to those there
    are (FPN paper, equation 1); a map of scale 1/s is level log2(s). `pooler_type`: ROIAlign (boxes' corners
    as they are), ROIAlignV2 (shifted by half a pixel), ROIPool; for rotated boxes ROIAlignRotated, which is
    ROIAlignV2 along the boxes' own axes. `sampling_ratio` 0 takes as many samples as a bin needs.

    Samples of ROIAlign are bilinear; they are zero more than a pixel outside of the map, and clamped to it up to there.
    A rotated box without area pools to zero.

    Shapes: features [N,C,h,w] each, from fine to coarse; boxes f32[R,4] or f32[R,5]; batch_index i64[R]; result
    [R,C,oh,ow].
    """
    rois = torch.cat((batch_index[:, None].to(boxes.dtype), boxes), dim=1)
    size = (output_size[0], output_size[1])
    levels = assign_levels(boxes, scales, canonical_box_size, canonical_level)
    if pooler_type == ALONG_BOXES:
        return roi_align_rotated_by_level(
            list(features),
            rois,
            levels,
            output_size=list(size),
            scales=list(scales),
            sampling_ratio=sampling_ratio,
        )

    def pool(feature: Tensor, rows: Tensor, scale: float) -> Tensor:
        result: Tensor
        if pooler_type == "ROIPool":
            result = torchvision.ops.roi_pool(feature, rows, size, scale)
        else:
            aligned = pooler_type == "ROIAlignV2"
            result = torchvision.ops.roi_align(
                feature, rows.to(feature.dtype), size, scale, sampling_ratio, aligned
            )
        return result

    if len(features) == 1:
        return pool(features[0], rois, scales[0])
    pooled = features[0].new_zeros((rois.shape[0], features[0].shape[1], *size))
    for level, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        rows = torch.nonzero(levels == level)[:, 0]
        pooled[rows] = pool(feature, rois[rows], scale)
    return pooled


def assign_levels(
    boxes: Tensor, scales: tuple[float, ...], canonical_box_size: int, canonical_level: int
) -> Tensor:
    """The index (i64[R]) into `scales` of the level that each box f32[R,4] or f32[R,5] is pooled from."""
    area = sides(boxes).prod(dim=1)
    least, most = level_range(scales)
    level = torch.floor(canonical_level + torch.log2(area.sqrt() / canonical_box_size + 1e-8))
    return level.clamp(min=least, max=most).to(torch.int64) - least


def level_range(scales: tuple[float, ...]) -> tuple[int, int]:
    """The first and the last level of maps of these scales: scale 1/s is level log2(s)."""
    finest, coarsest = 1 / scales[0], 1 / scales[-1]
    return round(finest).bit_length() - 1, round(coarsest).bit_length() - 1


def level_thresholds(scales: tuple[float, ...], canonical_box_size: int, canonical_level: int) -> list[float]:
    """From which area on (float32, pixels squared) a box goes to each level but the finest.

    The level grows with the area, so comparing areas is the same as computing floor(log2(...)), and exact: the
    bounds are found by bisection over the float32 numbers with the reference formula itself.
    """
    least, most = level_range(scales)

    def level_of(bits: int) -> int:
        area = struct.unpack("f", struct.pack("I", bits))[0]
        box = torch.tensor([[0.0, 0.0, 1.0, area]], dtype=torch.float32)
        return int(assign_levels(box, scales, canonical_box_size, canonical_level)[0])

    thresholds: list[float] = []
    for level in range(1, most - least + 1):
        low, high = 0, 0x7F7FFFFF  # positive float32 numbers sort as their bits do
        if level_of(high) < level:
            thresholds.append(math.inf)
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if level_of(middle) >= level else (middle, high)
        thresholds.append(struct.unpack("f", struct.pack("I", high))[0])
    return thresholds
