"""What is done differently with upright and with rotated boxes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from detc.ir import Builder, Node, Value
from detc.ir.dialects.box_forms import UPRIGHT_WITHIN

from .common import F32, centre_and_size, clip, columns, decode, floats, nms_by_group, number


@dataclass(frozen=True)
class BoxForm:
    """One way to write boxes.

    Attributes:
        columns: how many numbers a box is.
        parts: boxes [...,columns] as centres [...,2] and all else that `decode` takes.
        cells: the same of anchors that are known, f32[A,columns].
        decode: deltas [...,columns], and the parts of what they move -> boxes.
        move: cell anchors f32[A,columns] by (x, y) [P,1,2].
        clip: boxes, and bounds (width, height, width, height) that broadcast -> the boxes cut to their images.
        rescale: boxes [R,columns] by factors (x, y, x, y) [R,4].
        sides: boxes -> their width and height [...,2].
        nms: boxes, scores, groups, im_info and threshold -> the rows kept of each group, by falling score.
        nms_once: whether one NMS of many groups takes no longer than several of fewer.
    """

    columns: int
    parts: Callable[[Builder, Value], tuple[Value, Value]]
    cells: Callable[[Tensor], tuple[Tensor, Tensor]]
    decode: Callable[[Builder, Value, Value, Value, Node], Value]
    move: Callable[[Builder, Value, Value], Value]
    clip: Callable[[Builder, Value, Value], Value]
    rescale: Callable[[Builder, Value, Value], Value]
    sides: Callable[[Builder, Value], Value]
    nms: Callable[[Builder, Value, Value, Value, Value, float], Value]
    nms_once: bool = False


def _upright_sides(b: Builder, boxes: Value) -> Value:
    made: Value = b.aten.sub.Tensor(columns(b, boxes, 2, 4), columns(b, boxes, 0, 2))
    return made


def _upright_move(b: Builder, cells: Value, shifts: Value) -> Value:
    made: Value = b.aten.add.Tensor(b.aten.cat([shifts, shifts], dim=-1), cells)
    return made


def _upright_rescale(b: Builder, boxes: Value, factors: Value) -> Value:
    made: Value = b.aten.mul.Tensor(boxes, factors)
    return made


def _upright_cells(cells: Tensor) -> tuple[Tensor, Tensor]:
    sizes = cells[:, 2:] - cells[:, :2]
    return cells[:, :2] + 0.5 * sizes, sizes


UPRIGHT = BoxForm(
    4,
    centre_and_size,
    _upright_cells,
    decode,
    _upright_move,
    clip,
    _upright_rescale,
    _upright_sides,
    nms_by_group,
)
"""Boxes x0 y0 x1 y1."""


def _rotated_move(b: Builder, cells: Value, shifts: Value) -> Value:
    """Only the centre follows the position."""
    moved = b.aten.add.Tensor(shifts, columns(b, cells, 0, 2))
    rest = b.aten.expand(columns(b, cells, 2, 5), size=(shifts.shape[0], cells.shape[0], 3))
    made: Value = b.aten.cat([moved, rest], dim=-1)
    return made


def _normalized(b: Builder, angle: Value) -> Value:
    """Degrees brought into [-180, 180)."""
    turns = b.aten.remainder.Scalar(b.aten.add.Scalar(angle, other=180.0), other=360.0)
    made: Value = b.aten.sub.Scalar(turns, other=180.0)
    return made


def _rotated_parts(b: Builder, boxes: Value) -> tuple[Value, Value]:
    return columns(b, boxes, 0, 2), columns(b, boxes, 2, 5)


def _rotated_cells(cells: Tensor) -> tuple[Tensor, Tensor]:
    return cells[:, :2], cells[:, 2:]


def _rotated_decode(b: Builder, deltas: Value, centre: Value, rest: Value, node: Node) -> Value:
    deltas = b.aten.div.Tensor(deltas, b.constant(floats(node, "weights"), F32))
    size, angle = columns(b, rest, 0, 2), columns(b, rest, 2, 3)
    moved = b.aten.add.Tensor(b.aten.mul.Tensor(columns(b, deltas, 0, 2), size), centre)
    growth = b.aten.exp(b.aten.clamp_max(columns(b, deltas, 2, 4), max=number(node, "scale_clamp")))
    turn = b.aten.mul.Scalar(columns(b, deltas, 4, 5), other=180.0 / math.pi)
    turned = _normalized(b, b.aten.add.Tensor(turn, angle))
    made: Value = b.aten.cat([moved, b.aten.mul.Tensor(growth, size), turned], dim=-1)
    return made


def _rotated_clip(b: Builder, boxes: Value, bounds: Value) -> Value:
    """The nearly upright boxes are cut; all angles are normalized."""
    centre, size = columns(b, boxes, 0, 2), columns(b, boxes, 2, 4)
    angle = _normalized(b, columns(b, boxes, 4, 5))
    bounds = columns(b, bounds, 0, 2)
    half = b.aten.mul.Scalar(size, other=0.5)
    low, high = (
        b.aten.minimum(b.aten.clamp_min(side, min=0.0), bounds)
        for side in (b.aten.sub.Tensor(centre, half), b.aten.add.Tensor(centre, half))
    )
    middle = b.aten.mul.Scalar(b.aten.add.Tensor(low, high), other=0.5)
    cut = b.aten.cat([middle, b.aten.minimum(size, b.aten.sub.Tensor(high, low)), angle], dim=-1)
    upright = b.aten.le.Scalar(b.aten.abs(angle), other=UPRIGHT_WITHIN)
    made: Value = b.aten.where.self(upright, cut, b.aten.cat([centre, size, angle], dim=-1))
    return made


def _rotated_rescale(b: Builder, boxes: Value, factors: Value) -> Value:
    both = columns(b, factors, 0, 2, 1)  # [D, 2]: x, y
    theta = b.aten.mul.Scalar(columns(b, boxes, 4, 5, 1), other=math.pi / 180.0)
    cos, sin = b.aten.cos(theta), b.aten.sin(theta)

    # A side keeps its direction's length under the scaling: (x cos, y sin) across, (x sin, y cos) down.
    across, down = (b.aten.mul.Tensor(both, b.aten.cat(turned, dim=1)) for turned in ([cos, sin], [sin, cos]))
    length = [
        b.aten.sqrt(b.aten.sum.dim_IntList(b.aten.mul.Tensor(side, side), dim=(1,), keepdim=True))
        for side in (across, down)
    ]
    size = b.aten.mul.Tensor(columns(b, boxes, 2, 4, 1), b.aten.cat(length, dim=1))
    angle = b.aten.atan2(columns(b, down, 0, 1, 1), columns(b, down, 1, 2, 1))
    angle = b.aten.mul.Scalar(angle, other=180.0 / math.pi)
    centre = b.aten.mul.Tensor(columns(b, boxes, 0, 2, 1), both)
    made: Value = b.aten.cat([centre, size, angle], dim=1)
    return made


def _rotated_sides(b: Builder, boxes: Value) -> Value:
    return columns(b, boxes, 2, 4)


def _rotated_nms(
    b: Builder, boxes: Value, scores: Value, group: Value, im_info: Value, limit: float
) -> Value:
    made: Value = b.torchscript.nms_rotated_by_group(boxes, scores, group, iou_threshold=limit)
    return made


ROTATED = BoxForm(
    5,
    _rotated_parts,
    _rotated_cells,
    _rotated_decode,
    _rotated_move,
    _rotated_clip,
    _rotated_rescale,
    _rotated_sides,
    _rotated_nms,
    nms_once=True,
)
"""Boxes (centre x, centre y, width, height, angle)."""


def form_of(boxes: Value) -> BoxForm:
    """The form of boxes [R,columns]."""
    return UPRIGHT if boxes.shape[1] == UPRIGHT.columns else ROTATED
