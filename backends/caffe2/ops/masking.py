"""The operators with which a net keeps apart what is inside of an image from what was padded around it.

Source: Caffe2's `sequence_mask`, `lengths_to_segment_ids` and `resize_nearest_gradient`, of PyTorch 1.9.1.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ..errors import InputError
from .boxes import as_float32


def sequence_mask(
    data: Tensor,
    lengths: Tensor,
    *,
    mode: Literal["sequence"],
    axis: int = 1,
    repeat_from_axis: int | None = None,
    fill_val: float = -math.inf,
) -> Tensor:
    """The data with `fill_val` from a length on: the dimensions before `axis` are rows, those from it on positions.

    With `repeat_from_axis` the dimensions from that one on share the position of those before.

    Shapes: data f32[rows..., positions..., repeats...]; lengths i32, one for each row.

    Errors:
        InputError: another mode than "sequence"; another number of lengths than of rows; axes out of range.
    """
    if mode != "sequence":
        raise InputError(f"SequenceMask: only the mode 'sequence' is supported, not {mode!r}")
    first = axis + data.dim() if axis < 0 else axis
    last = data.dim() if repeat_from_axis is None else repeat_from_axis % max(data.dim(), 1)
    if not 0 <= first <= last <= data.dim():
        raise InputError(f"SequenceMask: axes {axis} and {repeat_from_axis} of {data.dim()} dimensions")
    rows, positions = math.prod(data.shape[:first]), math.prod(data.shape[first:last])
    if lengths.dtype != torch.int32 or lengths.numel() < rows:
        raise InputError(f"SequenceMask: lengths {lengths.dtype} {list(lengths.shape)} for {rows} rows")
    inside = torch.arange(positions) < lengths.reshape(-1)[:rows, None]
    shape = [*data.shape[:last], *[1] * (data.dim() - last)]
    return torch.where(inside.reshape(shape), data, as_float32(fill_val))


def lengths_to_segment_ids(lengths: Tensor) -> Tensor:
    """i32[sum of lengths]: for each element of each segment the segment's number.

    Shapes: lengths i32[n], not negative.

    Errors:
        InputError: lengths of another type or rank.
    """
    if lengths.dim() != 1 or lengths.dtype != torch.int32:
        raise InputError(
            f"LengthsToSegmentIds: lengths {lengths.dtype} {list(lengths.shape)}, where i32[n] is expected"
        )
    return torch.arange(len(lengths), dtype=torch.int32).repeat_interleave(lengths)


def resize_nearest_gradient(
    gradient: Tensor,
    data: Tensor,
    scales: Tensor | None = None,
    *,
    height_scale: float = 1.0,
    width_scale: float = 1.0,
    order: Literal["NCHW"] = "NCHW",
) -> Tensor:
    """Each cell of `gradient` added to the cell of `data`'s size that ResizeNearest would have read it from.

    With scales of 1 that pads f32[N, C, h, w] with zeros, at the bottom and at the right, to `data`'s height and
    width. `scales`, f32[2], the height's and the width's, replace those of the arguments.

    Errors:
        InputError: another number of dimensions, or channels last.
    """
    if order != "NCHW":
        raise InputError(f"ResizeNearestGradient: only the order NCHW is supported, not {order!r}")
    if gradient.dim() != 4 or data.dim() != 4:
        raise InputError(
            f"ResizeNearestGradient: {list(gradient.shape)} and {list(data.shape)}, where N, C, H, W is expected"
        )
    if scales is not None:
        height_scale, width_scale = (float(scale) for scale in scales)
    result = gradient
    for dim, scale in ((2, height_scale), (3, width_scale)):
        size = data.shape[dim]
        cells = torch.arange(result.shape[dim], dtype=torch.float32) / as_float32(scale)
        shape = [size if axis == dim else length for axis, length in enumerate(result.shape)]
        cells = cells.to(torch.int64).clamp(max=size - 1)
        result = result.new_zeros(shape).index_add_(dim, cells, result)
    return result
