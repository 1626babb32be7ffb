"""Lowering of `det.*` on rotated boxes to ai.onnx operators: anchors and selection."""

from __future__ import annotations

import math

import torch

from detc.ir import Constant, Node, Value
from detc.ir.dialects.boxes import clip_boxes, parts
from detc.passes.core.base import NoMatch, integer, number

from .builder import OnnxBuilder
from .det_common import (
    F32,
    I64,
    best_per_row,
    column,
    concat,
    flatten_maps,
    ints,
    iota,
    magnitude,
    scalar,
    split,
)
from .det_rotated_nms import keep_best
from .det_rpn import cells_of, level_candidates, refined


def anchors(b: OnnxBuilder, node: Node) -> Value:
    """Only the centre follows the position."""
    feature, cells = node.operand(0), node.operand(1)
    if not isinstance(cells, Constant):
        raise NoMatch("the cell anchors are not constant")
    stride, offset = number(node, "stride"), number(node, "offset")
    ones = b.onnx.ConstantOfShape(b.onnx.Shape(feature, start=2, end=4), value=(torch.bool, True))
    rows, columns = split(b, b.onnx.Cast(b.onnx.NonZero(ones), to=F32), (1, 1), axis=0)  # [1, hw]
    shifts = b.onnx.Pad(b.onnx.Concat([columns, rows], axis=0), ints(b, 0, 3), None, ints(b, 0))  # [5, hw]
    positions = b.onnx.Unsqueeze(b.onnx.Transpose(shifts, perm=[1, 0]), ints(b, 1))
    start = cells.data + torch.tensor([offset * stride] * 2 + [0.0] * 3)
    placed = b.onnx.Mul(positions, scalar(b, stride))  # [hw, 1, 5]
    return b.onnx.Reshape(b.onnx.Add(placed, b.graph.constant(start, "rotated_anchor_cells")), ints(b, -1, 5))


def rpn_proposals(b: OnnxBuilder, node: Node) -> list[Value]:
    """TopK on each level, the levels of all images as groups of one NMS, then TopK on each image."""
    logits, deltas, anchors_ = (node.operand_list(i) for i in range(3))
    cells = cells_of(logits)
    found = level_candidates(b, node, flatten_maps(b, logits, cells, 1), logits, cells, equal_counts=True)
    index = b.onnx.Unsqueeze(found.everywhere, ints(b, -1))
    chosen = b.onnx.GatherND(flatten_maps(b, deltas, cells, 5), index, batch_dims=1)
    placed = b.onnx.Gather(concat(b, anchors_, 0), found.everywhere, axis=0)
    decoded, boxes, side = refined(b, node, chosen, *b.written_out(parts, placed))  # [N, L*k, 5]
    total = b.onnx.Add(magnitude(b, decoded, 2), b.onnx.Abs(found.scores))
    least = scalar(b, number(node, "min_box_size"))
    valid = b.onnx.And(b.onnx.Less(total, scalar(b, math.inf)), b.onnx.Greater(side, least))  # [N, L*k]

    table = b.onnx.Concat([ints(b, -1), found.counts[0]], axis=0)
    groups = b.onnx.Reshape(boxes, b.onnx.Concat([table, ints(b, 5)], axis=0))  # [N*L, k, 5]
    threshold = number(node, "nms_thresh")
    kept = keep_best(b, groups, b.onnx.Reshape(valid, table), threshold)
    kept = b.onnx.Reshape(kept, b.onnx.Shape(valid))
    survivors = b.onnx.Where(kept, found.scores, scalar(b, -math.inf))
    rows, values, columns = best_per_row(b, survivors, integer(node, "post_nms_topk"))
    sorted_boxes = b.onnx.GatherND(boxes, b.onnx.Unsqueeze(columns, ints(b, -1)), batch_dims=1)
    return [b.onnx.GatherND(sorted_boxes, rows), b.onnx.GatherND(values, rows), column(b, rows, 0)]


def box_inference(b: OnnxBuilder, node: Node) -> list[Value]:
    """Scores above the threshold are candidates, sorted for each image; the images are groups of one NMS."""
    boxes, scores, batch_index, im_info = (node.operand(i) for i in range(4))
    classes, columns = scores.shape[1], boxes.shape[1]
    if not isinstance(classes, int) or not isinstance(columns, int):
        raise NoMatch("the number of classes is not known")
    threshold, limit = number(node, "score_thresh"), integer(node, "topk_per_image")
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
    (candidates,) = b.written_out(clip_boxes, candidates, image, im_info)  # [P, 5]

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
        number(node, "nms_thresh"),
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
