"""Pieces that several `det.*` lowerings share, in aten's and torchvision's operators.

No new tensor is tied to a device: a constant moves with the module, and the emitter puts what is made from nothing
where the inputs are. Counts that depend on data stay symbolic, and no row is not an error.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from detc.ir import Builder, Dim, Value
from detc.ir.dialects.box_forms import ROTATED
from detc.passes.core.base import NoMatch

F32, F64, I64 = torch.float32, torch.float64, torch.int64


def columns(b: Builder, value: Value, start: int, stop: int, axis: int = -1) -> Value:
    """The part [start, stop) of an axis."""
    return b.aten.slice.Tensor(value, dim=axis, start=start, end=stop)


def cast(b: Builder, value: Value, dtype: torch.dtype) -> Value:
    """The value in another element type."""
    return value if value.dtype == dtype else b.aten._to_copy(value, dtype=dtype)


def rows(b: Builder, value: Value, index: Value) -> Value:
    """The rows of `value` at `index` i64[K]."""
    return b.aten.index_select(value, index, dim=0)


def where_true(b: Builder, mask: Value) -> Value:
    """The places i64[K], ascending, at which bool[M] is true."""
    return b.aten.select.int(b.aten.nonzero(mask), dim=1, index=0)


def finite_rows(b: Builder, values: Value) -> Value:
    """Whether all numbers of the last axis are finite: bool[...] of the leading axes."""
    return b.aten.all.dim(b.aten.isfinite(values), dim=-1)


def is_rotated(boxes: Value) -> bool:
    """Whether boxes [...,columns] are rotated ones."""
    return boxes.shape[-1] == ROTATED.columns


def nms_by_group(
    b: Builder, boxes: Value, scores: Value, group: Value, im_info: Value, limit: float
) -> Value:
    """The boxes kept, i64[K] by falling score, where only boxes of one group i64[M] suppress each other.

    The groups are laid side by side, farther apart than any image is large; in double precision, so that no
    box moves. boxes f32[M,4] lie within their images; rotated ones f32[M,5] may lie anywhere.
    """
    if is_rotated(boxes):
        return b.torchscript.nms_rotated_by_group(boxes, scores, group, iou_threshold=limit)
    step = b.aten.add.Scalar(b.aten.amax(columns(b, im_info, 0, 2, 1), dim=(0, 1)), other=1)
    offset = b.aten.unsqueeze(b.aten.mul.Tensor(cast(b, group, F64), step), dim=1)
    apart = b.aten.add.Tensor(cast(b, boxes, F64), offset)
    return b.torchvision.nms(apart, cast(b, scores, F64), iou_threshold=limit)


def best_of_images(b: Builder, image: Value, kept: Value, limit: int) -> tuple[Value, Value]:
    """Of what is `kept`, by falling score, the best `limit` of each image, all where that is below 0.

    Sorted by image, which keeps the order, a rank within an image is the place less that of the image's first.

    Shapes: kept i64[K]; image i64[K], that of each. Returns both for those left, by image, then by falling score.
    """
    by_image, order = b.aten.sort.stable(image, stable=True, dim=0, descending=False)
    kept = rows(b, kept, order)
    if limit < 0:
        return kept, by_image
    first = b.aten.searchsorted.Tensor(by_image, by_image)
    rank = b.aten.sub.Tensor(b.aten.arange(end=by_image.shape[0], dtype=I64), first)
    best = where_true(b, b.aten.lt.Scalar(rank, other=limit))
    return rows(b, kept, best), rows(b, by_image, best)


def flatten_map(b: Builder, maps: Value, cells: int, each: int) -> Value:
    """A map [N,A*each,h,w] as [N,h*w*A,each]."""
    images, _, height, width = maps.shape
    moved = b.aten.permute(maps, dims=(0, 2, 3, 1))
    return b.aten.reshape(moved, shape=(images, height * width * cells, each))


def image_numbers(b: Builder, im_info: Value) -> Value:
    """0, 1, 2, ... for the images: i64[N]."""
    return b.aten.arange(end=im_info.shape[0], dtype=I64)


def known(size: Dim, what: str) -> int:
    """A size that must be a number. Raises NoMatch if it is not."""
    if not isinstance(size, int):
        raise NoMatch(f"{what} is not known")
    return size


def one_or_cat(b: Builder, parts: Sequence[Value], axis: int) -> Value:
    """The parts in a row."""
    return parts[0] if len(parts) == 1 else b.aten.cat(list(parts), dim=axis)
