"""Pieces that several `det.*` lowerings share, in aten's and torchvision's operators.

No new tensor is tied to a device: a constant moves with the module, and the emitter puts what is made from nothing
where the inputs are. Counts that depend on data stay symbolic, and no row is not an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from detc.ir import Builder, Dim, Node, Value
from detc.passes.core.base import NoMatch, attribute

from ..dialect import DIALECT

F32, F64, I64 = torch.float32, torch.float64, torch.int64


def columns(b: Builder, value: Value, start: int, stop: int, axis: int = -1) -> Value:
    """The part [start, stop) of an axis."""
    made: Value = b.aten.slice.Tensor(value, dim=axis, start=start, end=stop)
    return made


def cast(b: Builder, value: Value, dtype: torch.dtype) -> Value:
    """The value in another element type."""
    made: Value = value if value.dtype == dtype else b.aten._to_copy(value, dtype=dtype)
    return made


def scripted(b: Builder, node: Node) -> Any:
    """The rule for a det op whose own body torch compiles."""
    name = node.op.name.replace("det.", f"{DIALECT}.", 1)
    return b.call(name, *node.operands, **node.attributes)


def whwh(b: Builder, hw: Value) -> Value:
    """Rows (height, width, ...) [N,*] as (width, height, width, height) [N,4]: what bounds x0 y0 x1 y1."""
    made: Value = b.aten.index_select(hw, b.constant([1, 0, 1, 0], I64), dim=1)
    return made


def rows(b: Builder, value: Value, index: Value) -> Value:
    """The rows of `value` at `index` i64[K]."""
    made: Value = b.aten.index_select(value, index, dim=0)
    return made


def where_true(b: Builder, mask: Value) -> Value:
    """The places i64[K], ascending, at which bool[M] is true."""
    made: Value = b.aten.select.int(b.aten.nonzero(mask), dim=1, index=0)
    return made


def clip(b: Builder, boxes: Value, bounds: Value) -> Value:
    """Boxes cut to [0, bounds]; the bounds broadcast."""
    made: Value = b.aten.minimum(b.aten.clamp_min(boxes, min=0.0), bounds)
    return made


def decode(b: Builder, deltas: Value, centre: Value, size: Value, node: Node) -> Value:
    """`det.apply_deltas` on the last axis: deltas [..., 4] for boxes given by centre and size [..., 2]."""
    weights, clamp = floats(node, "weights"), number(node, "scale_clamp")
    if any(w != 1.0 for w in weights):
        deltas = b.aten.div.Tensor(deltas, b.constant(weights, F32))
    move, grow = columns(b, deltas, 0, 2), columns(b, deltas, 2, 4)
    moved = b.aten.add.Tensor(b.aten.mul.Tensor(move, size), centre)
    growth = b.aten.exp(b.aten.clamp_max(grow, max=clamp))
    half = b.aten.mul.Scalar(b.aten.mul.Tensor(growth, size), other=0.5)
    made: Value = b.aten.cat([b.aten.sub.Tensor(moved, half), b.aten.add.Tensor(moved, half)], dim=-1)
    return made


def centre_and_size(b: Builder, boxes: Value) -> tuple[Value, Value]:
    """Boxes x0 y0 x1 y1 [..., 4] as centre [..., 2] and size [..., 2]."""
    low, high = columns(b, boxes, 0, 2), columns(b, boxes, 2, 4)
    size = b.aten.sub.Tensor(high, low)
    return b.aten.add.Tensor(low, b.aten.mul.Scalar(size, other=0.5)), size


def finite_rows(b: Builder, values: Value) -> Value:
    """Whether all numbers of the last axis are finite: bool[...] of the leading axes."""
    made: Value = b.aten.all.dim(b.aten.isfinite(values), dim=-1)
    return made


def nms_by_group(
    b: Builder, boxes: Value, scores: Value, group: Value, im_info: Value, limit: float
) -> Value:
    """The boxes kept, i64[K] by falling score, where only boxes of one group i64[M] suppress each other.

    The groups are laid side by side, farther apart than any image is large; in double precision, so that no
    box moves. boxes f32[M,4] lie within their images.
    """
    step = b.aten.add.Scalar(b.aten.amax(columns(b, im_info, 0, 2, 1), dim=(0, 1)), other=1)
    offset = b.aten.unsqueeze(b.aten.mul.Tensor(cast(b, group, F64), step), dim=1)
    apart = b.aten.add.Tensor(cast(b, boxes, F64), offset)
    made: Value = b.torchvision.nms(apart, cast(b, scores, F64), iou_threshold=limit)
    return made


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


def class_logits(b: Builder, logits: Value, classes: Value) -> Value:
    """The logits [D,1,...] of each row's own class i64[D], of logits [D,K,...], or [D,1,...] for all classes."""
    if logits.shape[1] == 1:
        return logits
    count, _, *rest = logits.shape
    own = b.aten.reshape(classes, shape=(count, *[1] * (1 + len(rest))))
    made: Value = b.aten.gather(logits, b.aten.expand(own, size=(count, 1, *rest)), dim=1)
    return made


def flatten_map(b: Builder, maps: Value, cells: int, each: int) -> Value:
    """A map [N,A*each,h,w] as [N,h*w*A,each]."""
    images, _, height, width = maps.shape
    moved = b.aten.permute(maps, dims=(0, 2, 3, 1))
    made: Value = b.aten.reshape(moved, shape=(images, height * width * cells, each))
    return made


def image_numbers(b: Builder, im_info: Value) -> Value:
    """0, 1, 2, ... for the images: i64[N]."""
    made: Value = b.aten.arange(end=im_info.shape[0], dtype=I64)
    return made


def number(node: Node, name: str) -> float:
    """An attribute that is a number."""
    value = attribute(node, name)
    assert isinstance(value, int | float)
    return float(value)


def integer(node: Node, name: str) -> int:
    """An attribute that is a whole number."""
    value = attribute(node, name)
    assert isinstance(value, int)
    return value


def floats(node: Node, name: str) -> list[float]:
    """An attribute that is a row of numbers."""
    value = attribute(node, name)
    assert isinstance(value, tuple)
    return [float(v) for v in value]  # type: ignore[arg-type]


def known(size: Dim, what: str) -> int:
    """A size that must be a number. Raises NoMatch if it is not."""
    if not isinstance(size, int):
        raise NoMatch(f"{what} is not known")
    return size


def one_or_cat(b: Builder, parts: Sequence[Value], axis: int) -> Value:
    """The parts in a row."""
    made: Any = parts[0] if len(parts) == 1 else b.aten.cat(list(parts), dim=axis)
    assert isinstance(made, Value)
    return made
