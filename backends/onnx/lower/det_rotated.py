"""Lowering of `det.*` on rotated boxes to ai.onnx operators: regression, clipping, selection."""

from __future__ import annotations

import math

import torch

from detc.ir import Builder, Constant, Node, Value
from detc.ir.dialects.box_forms import UPRIGHT_WITHIN
from detc.passes.core.base import NoMatch

from .det_common import (
    F32,
    I64,
    best_per_row,
    column,
    concat,
    flatten_maps,
    floats,
    ints,
    iota,
    magnitude,
    scalar,
    split,
    whwh,
)
from .det_rotated_nms import keep_best
from .det_rpn import cells_of, level_candidates


def anchors(b: Builder, node: Node) -> Value:
    """Only the centre follows the position."""
    feature, cells = node.operand(0), node.operand(1)
    if not isinstance(cells, Constant):
        raise NoMatch("the cell anchors are not constant")
    stride, offset = float(node.attributes["stride"]), float(node.attributes["offset"])  # type: ignore[arg-type]
    ones = b.onnx.ConstantOfShape(b.onnx.Shape(feature, start=2, end=4), value=(torch.bool, True))
    rows, columns = split(b, b.onnx.Cast(b.onnx.NonZero(ones), to=F32), (1, 1), axis=0)  # [1, hw]
    shifts = b.onnx.Pad(b.onnx.Concat([columns, rows], axis=0), ints(b, 0, 3), None, ints(b, 0))  # [5, hw]
    positions = b.onnx.Unsqueeze(b.onnx.Transpose(shifts, perm=[1, 0]), ints(b, 1))
    start = cells.data + torch.tensor([offset * stride] * 2 + [0.0] * 3)
    placed = b.onnx.Mul(positions, scalar(b, stride))  # [hw, 1, 5]
    return b.onnx.Reshape(b.onnx.Add(placed, b.graph.constant(start, "rotated_anchor_cells")), ints(b, -1, 5))


def _normalized(b: Builder, angle: Value) -> Value:
    """Degrees brought into [-180, 180)."""
    turned = b.onnx.Add(angle, scalar(b, 180.0))
    turns = b.onnx.Floor(b.onnx.Div(turned, scalar(b, 360.0)))
    return b.onnx.Sub(b.onnx.Sub(turned, b.onnx.Mul(turns, scalar(b, 360.0))), scalar(b, 180.0))


def _decode(b: Builder, node: Node, deltas: Value, boxes: Value) -> Value:
    """`det.apply_deltas` on the last axis: deltas [..., 5] for boxes [..., 5]."""
    weights, clamp = node.attributes["weights"], float(node.attributes["scale_clamp"])  # type: ignore[arg-type]
    assert isinstance(weights, tuple)
    move, grow, turn = split(b, b.onnx.Div(deltas, floats(b, *weights)), (2, 2, 1), axis=-1)  # type: ignore[arg-type]
    centre, size, angle = split(b, boxes, (2, 2, 1), axis=-1)
    moved = b.onnx.Add(b.onnx.Mul(move, size), centre)
    grown = b.onnx.Mul(b.onnx.Exp(b.onnx.Min([grow, scalar(b, clamp)])), size)
    turned = _normalized(b, b.onnx.Add(b.onnx.Mul(turn, scalar(b, 180.0 / math.pi)), angle))
    return b.onnx.Concat([moved, grown, turned], axis=-1)


def apply_deltas(b: Builder, node: Node) -> Value:
    """Box regression for K boxes per row at once."""
    deltas, boxes = node.operand(0), node.operand(1)
    columns = deltas.shape[1]
    if not isinstance(columns, int):
        raise NoMatch("the number of boxes per row is not known")
    per_row = b.onnx.Reshape(deltas, ints(b, -1, columns // 5, 5))
    decoded = _decode(b, node, per_row, b.onnx.Unsqueeze(boxes, ints(b, 1)))
    return b.onnx.Reshape(decoded, ints(b, -1, columns))


def _clip(b: Builder, boxes: Value, bounds: Value) -> Value:
    """Boxes [..., 5] with normalized angles, the nearly upright ones cut to [0, bounds]; bounds [..., 2] broadcast."""
    centre, size, angle = split(b, boxes, (2, 2, 1), axis=-1)
    angle = _normalized(b, angle)
    half = b.onnx.Mul(size, scalar(b, 0.5))
    low, high = (
        b.onnx.Min([b.onnx.Max([side, scalar(b, 0.0)]), bounds])
        for side in (b.onnx.Sub(centre, half), b.onnx.Add(centre, half))
    )
    middle = b.onnx.Mul(b.onnx.Add(low, high), scalar(b, 0.5))
    cut = b.onnx.Concat([middle, b.onnx.Min([size, b.onnx.Sub(high, low)]), angle], axis=-1)
    upright = b.onnx.LessOrEqual(b.onnx.Abs(angle), scalar(b, UPRIGHT_WITHIN))
    return b.onnx.Where(upright, cut, b.onnx.Concat([centre, size, angle], axis=-1))


def _bounds(b: Builder, hw: Value) -> Value:
    """Rows (height, width, ...) [N,*] as (width, height) [N,2]."""
    return b.onnx.Gather(hw, ints(b, 1, 0), axis=1)


def rpn_proposals(b: Builder, node: Node) -> list[Value]:
    """TopK on each level, the levels of all images as groups of one NMS, then TopK on each image."""
    logits, deltas, anchors_ = (node.operand_list(i) for i in range(3))
    im_info = node.operand(3)
    cells = cells_of(logits)
    found = level_candidates(b, node, flatten_maps(b, logits, cells, 1), logits, cells, equal_counts=True)
    index = b.onnx.Unsqueeze(found.everywhere, ints(b, -1))
    chosen = b.onnx.GatherND(flatten_maps(b, deltas, cells, 5), index, batch_dims=1)
    placed = b.onnx.Gather(concat(b, anchors_, 0), found.everywhere, axis=0)
    decoded = _decode(b, node, chosen, placed)  # [N, L*k, 5]
    boxes = _clip(b, decoded, b.onnx.Unsqueeze(_bounds(b, im_info), ints(b, 1)))
    _, sides, _ = split(b, boxes, (2, 2, 1), axis=-1)
    side = b.onnx.ReduceMin(sides, ints(b, 2), keepdims=0)
    total = b.onnx.Add(magnitude(b, decoded, 2), b.onnx.Abs(found.scores))
    least = scalar(b, float(node.attributes["min_box_size"]))  # type: ignore[arg-type]
    valid = b.onnx.And(b.onnx.Less(total, scalar(b, math.inf)), b.onnx.Greater(side, least))  # [N, L*k]

    table = b.onnx.Concat([ints(b, -1), found.counts[0]], axis=0)
    groups = b.onnx.Reshape(boxes, b.onnx.Concat([table, ints(b, 5)], axis=0))  # [N*L, k, 5]
    threshold = float(node.attributes["nms_thresh"])  # type: ignore[arg-type]
    kept = keep_best(b, groups, b.onnx.Reshape(valid, table), threshold)
    kept = b.onnx.Reshape(kept, b.onnx.Shape(valid))
    survivors = b.onnx.Where(kept, found.scores, scalar(b, -math.inf))
    rows, values, columns = best_per_row(b, survivors, int(node.attributes["post_nms_topk"]))  # type: ignore[arg-type]
    sorted_boxes = b.onnx.GatherND(boxes, b.onnx.Unsqueeze(columns, ints(b, -1)), batch_dims=1)
    return [b.onnx.GatherND(sorted_boxes, rows), b.onnx.GatherND(values, rows), column(b, rows, 0)]


def box_inference(b: Builder, node: Node) -> list[Value]:
    """Scores above the threshold are candidates, sorted for each image; the images are groups of one NMS."""
    boxes, scores, batch_index, im_info = (node.operand(i) for i in range(4))
    classes, columns = scores.shape[1], boxes.shape[1]
    if not isinstance(classes, int) or not isinstance(columns, int):
        raise NoMatch("the number of classes is not known")
    threshold, limit = float(node.attributes["score_thresh"]), int(node.attributes["topk_per_image"])  # type: ignore[arg-type]
    foreground, _ = split(b, scores, (classes - 1, 1), axis=1)
    size = b.onnx.Add(magnitude(b, boxes, 1), magnitude(b, scores, 1))
    finite = b.onnx.Unsqueeze(b.onnx.Less(size, scalar(b, math.inf)), ints(b, 1))
    found = b.onnx.NonZero(b.onnx.And(b.onnx.Greater(foreground, scalar(b, threshold)), finite))
    places = b.onnx.Transpose(found, perm=[1, 0])  # [P, 2]: row, class
    row, category = column(b, places, 0), column(b, places, 1)
    image = b.onnx.Gather(batch_index, row, axis=0)
    if columns == 5:
        candidates = b.onnx.Gather(boxes, row, axis=0)
    else:
        candidates = b.onnx.GatherND(b.onnx.Reshape(boxes, ints(b, -1, columns // 5, 5)), places)
    candidates = _clip(b, candidates, b.onnx.Gather(_bounds(b, im_info), image, axis=0))  # [P, 5]

    images = b.onnx.Unsqueeze(iota(b, b.onnx.Shape(im_info), 0), ints(b, 1))
    mine = b.onnx.Equal(image, images)  # [N, P]
    per_image = b.onnx.Where(mine, b.onnx.GatherND(foreground, places), scalar(b, -math.inf))
    counts = b.onnx.ReduceSum(b.onnx.Cast(mine, to=I64), ints(b, 1), keepdims=0)
    most = b.onnx.ReduceMax(counts, ints(b, 0), keepdims=1)
    best, order = b.onnx.TopK(per_image, most, axis=1)  # [N, k]
    kept = keep_best(
        b,
        b.onnx.Gather(candidates, order, axis=0),
        b.onnx.Greater(best, scalar(b, -math.inf)),
        float(node.attributes["nms_thresh"]),  # type: ignore[arg-type]
        b.onnx.Gather(category, order, axis=0),
    )
    rows, values, ranks = best_per_row(b, b.onnx.Where(kept, best, scalar(b, -math.inf)), limit)
    own_image = column(b, rows, 0)
    rank = b.onnx.Unsqueeze(b.onnx.GatherND(ranks, rows), ints(b, 1))
    place = b.onnx.GatherND(order, b.onnx.Concat([b.onnx.Unsqueeze(own_image, ints(b, 1)), rank], axis=1))
    return [
        b.onnx.Gather(candidates, place, axis=0),
        b.onnx.GatherND(values, rows),
        b.onnx.Gather(category, place, axis=0),
        own_image,
    ]


def clip_boxes(b: Builder, node: Node) -> Value:
    """Each box against its own image's bounds."""
    boxes, batch_index, im_info = (node.operand(i) for i in range(3))
    return _clip(b, boxes, b.onnx.Gather(_bounds(b, im_info), batch_index, axis=0))


def rescale_boxes(b: Builder, node: Node) -> Value:
    """Scale and clip, with each box's own image's factors. atan2 is made of Atan and the cosine's sign."""
    boxes, batch_index, im_info, output_size = (node.operand(i) for i in range(4))
    target = whwh(b, b.onnx.Cast(output_size, to=F32))
    factors = b.onnx.Gather(b.onnx.Div(target, whwh(b, im_info)), batch_index, axis=0)
    both, _ = split(b, factors, (2, 2), axis=1)  # [D, 2]: x, y
    x_factor, y_factor = split(b, both, (1, 1), axis=1)
    centre, size, angle = split(b, boxes, (2, 2, 1), axis=1)
    theta = b.onnx.Mul(angle, scalar(b, math.pi / 180.0))
    cos, sin = b.onnx.Cos(theta), b.onnx.Sin(theta)

    # A side keeps its direction's length under the scaling: (x cos, y sin) across, (x sin, y cos) down.
    across = b.onnx.ReduceL2(b.onnx.Mul(both, b.onnx.Concat([cos, sin], axis=1)), ints(b, 1), keepdims=1)
    down = b.onnx.ReduceL2(b.onnx.Mul(both, b.onnx.Concat([sin, cos], axis=1)), ints(b, 1), keepdims=1)
    scaled = b.onnx.Mul(size, b.onnx.Concat([across, down], axis=1))
    y, x = b.onnx.Mul(x_factor, sin), b.onnx.Mul(y_factor, cos)
    turned = b.onnx.Mul(b.onnx.Atan(b.onnx.Div(y, x)), scalar(b, 180.0 / math.pi))
    zero = scalar(b, 0.0)
    half_turn = b.onnx.Where(b.onnx.Less(y, zero), scalar(b, -180.0), scalar(b, 180.0))
    turned = b.onnx.Add(turned, b.onnx.Where(b.onnx.Less(x, zero), half_turn, zero))
    moved = b.onnx.Concat([b.onnx.Mul(centre, both), scaled, turned], axis=1)
    bounds, _ = split(b, b.onnx.Gather(target, batch_index, axis=0), (2, 2), axis=1)
    return _clip(b, moved, bounds)


def nonempty(b: Builder, node: Node) -> Value:
    """The rows whose shorter side passes the threshold."""
    _, sides, _ = split(b, node.operand(0), (2, 2, 1), axis=1)
    shorter = b.onnx.ReduceMin(sides, ints(b, 1), keepdims=0)
    threshold = float(node.attributes.get("threshold", 0.0))  # type: ignore[arg-type]
    rows = b.onnx.NonZero(b.onnx.Greater(shorter, scalar(b, threshold)))
    return b.onnx.Squeeze(rows, ints(b, 0))
