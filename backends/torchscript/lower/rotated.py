"""Lowering of `det.rotated_*` to aten's operators, and functions with loops."""

from __future__ import annotations

import math

from torch import Tensor

from detc.ir import Builder, Node, Value
from detc.ir.dialects.rotated import UPRIGHT_WITHIN
from detc.passes.rewrite.conversion import LoweringRule

from .common import F32, cast, columns, floats, number, rows, whwh
from .forms import BoxForm
from .pooling import rois_and_levels
from .proposals import cell_shifts, grid_proposals, rpn_proposals


def anchors(b: Builder, node: Node) -> Value:
    """As `det.anchors`; only the centre follows the position."""
    cells = node.operand(1)
    shifts = cell_shifts(b, node)  # [h*w, 1, 2]
    area, count = shifts.shape[0], cells.shape[0]
    moved = b.aten.add.Tensor(shifts, columns(b, cells, 0, 2))
    rest = b.aten.expand(columns(b, cells, 2, 5), size=(area, count, 3))
    made: Value = b.aten.reshape(b.aten.cat([moved, rest], dim=-1), shape=(area * count, 5))
    return made


def _normalized(b: Builder, angle: Value) -> Value:
    """Degrees brought into [-180, 180)."""
    turns = b.aten.remainder.Scalar(b.aten.add.Scalar(angle, other=180.0), other=360.0)
    made: Value = b.aten.sub.Scalar(turns, other=180.0)
    return made


def _parts(b: Builder, boxes: Value) -> tuple[Value, Value]:
    return columns(b, boxes, 0, 2), columns(b, boxes, 2, 5)


def _cells(cells: Tensor) -> tuple[Tensor, Tensor]:
    return cells[:, :2], cells[:, 2:]


def _decode(b: Builder, deltas: Value, centre: Value, rest: Value, node: Node) -> Value:
    deltas = b.aten.div.Tensor(deltas, b.constant(floats(node, "weights"), F32))
    size, angle = columns(b, rest, 0, 2), columns(b, rest, 2, 3)
    moved = b.aten.add.Tensor(b.aten.mul.Tensor(columns(b, deltas, 0, 2), size), centre)
    growth = b.aten.exp(b.aten.clamp_max(columns(b, deltas, 2, 4), max=number(node, "scale_clamp")))
    turn = b.aten.mul.Scalar(columns(b, deltas, 4, 5), other=180.0 / math.pi)
    turned = _normalized(b, b.aten.add.Tensor(turn, angle))
    made: Value = b.aten.cat([moved, b.aten.mul.Tensor(growth, size), turned], dim=-1)
    return made


def _clip(b: Builder, boxes: Value, bounds: Value) -> Value:
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


def _sides(b: Builder, boxes: Value) -> Value:
    return columns(b, boxes, 2, 4)


def _nms(b: Builder, boxes: Value, scores: Value, group: Value, im_info: Value, limit: float) -> Value:
    made: Value = b.torchscript.nms_rotated_by_group(boxes, scores, group, iou_threshold=limit)
    return made


ROTATED = BoxForm(5, _parts, _cells, _decode, _clip, _sides, _nms, nms_once=True)
"""Boxes (centre x, centre y, width, height, angle)."""


def rescale_boxes(b: Builder, node: Node) -> Value:
    """Scale and clip, with each box's own image's factors."""
    boxes, batch_index, im_info, output_size = (node.operand(i) for i in range(4))
    target = whwh(b, cast(b, output_size, boxes.dtype))
    factors = rows(b, b.aten.div.Tensor(target, whwh(b, im_info)), batch_index)
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
    return _clip(b, b.aten.cat([centre, size, angle], dim=1), rows(b, target, batch_index))


def roi_pool(b: Builder, node: Node) -> Value:
    """Samples along the boxes' own axes, on each level."""
    rois, levels = rois_and_levels(b, node, _sides(b, node.operand(1)))
    if levels is None:
        levels = b.aten.zeros_like(node.operand(2))
    made: Value = b.torchscript.roi_align_rotated_by_level(
        node.operand_list(0),
        rois,
        levels,
        **{name: node.attributes[name] for name in ("output_size", "scales", "sampling_ratio")},
    )
    return made


TABLE: dict[str, LoweringRule] = {
    "det.rotated_anchors": anchors,
    "det.rotated_apply_deltas": ROTATED.apply_deltas,
    "det.rotated_box_inference": ROTATED.box_inference,
    "det.rotated_nonempty": ROTATED.nonempty,
    "det.rotated_rescale_boxes": rescale_boxes,
    "det.rotated_roi_pool": roi_pool,
    "det.rotated_rpn_proposals": lambda b, node: rpn_proposals(b, node, ROTATED),
    "det.rotated_grid_proposals": lambda b, node: grid_proposals(b, node, ROTATED),
}
