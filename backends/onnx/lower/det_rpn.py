"""Lowering of anchors and region proposals to ai.onnx operators."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from detc.ir import Builder, Constant, Node, Value
from detc.passes.base import NoMatch
from detc.passes.conversion import LoweringRule

from .det_common import (
    F32,
    I64,
    best_per_row,
    centre_and_size,
    clip,
    column,
    decode,
    floats,
    ints,
    magnitude,
    scalar,
    split,
    whwh,
)


def anchors(b: Builder, node: Node) -> Value:
    """Positions from NonZero of a map of ones; one Gemm scales them and adds the cell anchors, exactly."""
    feature, cells = node.operand(0), node.operand(1)
    if not isinstance(cells, Constant):
        raise NoMatch("the cell anchors are not constant")
    stride, offset = float(node.attributes["stride"]), float(node.attributes["offset"])  # type: ignore[arg-type]
    ones = b.onnx.ConstantOfShape(b.onnx.Shape(feature, start=2, end=4), value=(torch.bool, True))
    positions = b.onnx.Cast(b.onnx.NonZero(ones), to=F32)  # [2, hw]: rows, columns
    # x0 and x1 follow the column, y0 and y1 the row.
    steps = torch.tensor([[0, stride, 0, stride], [stride, 0, stride, 0]]).repeat(1, len(cells.data))
    start = (cells.data + offset * stride).reshape(-1)
    placed = b.onnx.Gemm(
        positions, b.graph.constant(steps, "anchor_steps"), b.graph.constant(start, "anchor_cells"), transA=1
    )
    return b.onnx.Reshape(placed, ints(b, -1, 4))


def _grid_anchors(
    b: Builder, node: Node, index: Value, level: Value, widths: Value, per_cell: int
) -> tuple[Value, Value]:
    """Centre and size f32[N,K,2] of the anchors at positions `index` i64[N,K], which count their level's anchors
    by row, column and cell; `level` i64[K]; `widths` i64[L] of the maps."""
    cells = torch.cat([c.data for c in node.operand_list(2) if isinstance(c, Constant)])
    strides = node.attributes["strides"]
    offset = float(node.attributes["offset"])  # type: ignore[arg-type]
    assert isinstance(strides, tuple)
    step = torch.tensor(strides, dtype=torch.float32)[:, None]
    sizes = cells[:, 2:] - cells[:, :2]
    centres = cells[:, :2] + 0.5 * sizes + (offset * step).repeat_interleave(per_cell, dim=0)
    count = b.constant(per_cell, I64)
    cell = b.onnx.Add(b.onnx.Mul(level, count), b.onnx.Mod(index, count))
    position = b.onnx.Div(index, count)
    width = b.onnx.Gather(widths, level, axis=0)
    x = b.onnx.Unsqueeze(b.onnx.Mod(position, width), ints(b, -1))
    y = b.onnx.Unsqueeze(b.onnx.Div(position, width), ints(b, -1))
    grid = b.onnx.Cast(b.onnx.Concat([x, y], axis=-1), to=F32)
    shift = b.onnx.Mul(grid, b.onnx.Gather(b.graph.constant(step, "strides"), level, axis=0))
    centre = b.onnx.Add(shift, b.onnx.Gather(b.graph.constant(centres, "anchor_centres"), cell, axis=0))
    return centre, b.onnx.Gather(b.graph.constant(sizes, "anchor_sizes"), cell, axis=0)


def rpn_proposals(b: Builder, node: Node) -> list[Value]:
    """TopK on each level, then one NonMaxSuppression with the levels as its classes, then TopK on each image."""
    return _proposals(b, node, grid=False)


def grid_proposals(b: Builder, node: Node) -> list[Value]:
    """As `rpn_proposals`, but anchors are computed from the indices of those kept."""
    return _proposals(b, node, grid=True)


def _proposals(b: Builder, node: Node, *, grid: bool) -> list[Value]:
    logits, deltas = node.operand_list(0), node.operand_list(1)
    levels = len(logits)
    im_info = node.operand(3)
    before, after = int(node.attributes["pre_nms_topk"]), int(node.attributes["post_nms_topk"])  # type: ignore[arg-type]
    per_cell = [m.shape[1] for m in logits]
    cells = [c for c in per_cell if isinstance(c, int)]
    if len(cells) != levels:
        raise NoMatch("the number of anchors per position is not known")
    if grid and (len(set(cells)) != 1 or not all(isinstance(c, Constant) for c in node.operand_list(2))):
        raise NoMatch("the cell anchors are not constant, or differ in number from level to level")

    best: list[Value] = []
    index: list[Value] = []
    anchor_counts: list[Value] = []
    taken: list[Value] = []
    for level in logits:
        flat = b.onnx.Reshape(b.onnx.Transpose(level, perm=[0, 2, 3, 1]), ints(b, 0, -1))
        anchor_counts.append(b.onnx.Shape(flat, start=1))
        count = b.onnx.Min([anchor_counts[-1], ints(b, before)])
        values, places = b.onnx.TopK(flat, count, axis=1)
        taken.append(count)
        best.append(values)
        index.append(places)
    scores = _concat(b, best, 1)  # [N, K]
    local = _concat(b, index, 1)
    level_of = _concat(b, [b.onnx.Expand(ints(b, i), count) for i, count in enumerate(taken)], 0)  # [K]

    moves = [b.onnx.Reshape(b.onnx.Transpose(d, perm=[0, 2, 3, 1]), ints(b, 0, -1, 4)) for d in deltas]
    offsets = b.onnx.CumSum(_concat(b, anchor_counts, 0), b.constant(0, I64), exclusive=1)
    everywhere = b.onnx.Add(local, b.onnx.Gather(offsets, level_of, axis=0))
    chosen = b.onnx.GatherND(_concat(b, moves, 1), b.onnx.Unsqueeze(everywhere, ints(b, -1)), batch_dims=1)
    if grid:
        widths = _concat(b, [b.onnx.Shape(level, start=3) for level in logits], 0)
        centre, size = _grid_anchors(b, node, local, level_of, widths, cells[0])
    else:
        placed = b.onnx.Gather(_concat(b, node.operand_list(2), 0), everywhere, axis=0)
        centre, size = centre_and_size(b, placed)
    weights, clamp = node.attributes["weights"], node.attributes["scale_clamp"]
    decoded = decode(b, chosen, centre, size, weights, clamp)  # type: ignore[arg-type]

    boxes = clip(b, decoded, b.onnx.Unsqueeze(whwh(b, im_info), ints(b, 1)))
    low, high = split(b, boxes, (2, 2), axis=-1)
    side = b.onnx.ReduceMin(b.onnx.Sub(high, low), ints(b, 2), keepdims=0)
    total = b.onnx.Add(magnitude(b, decoded, 2), b.onnx.Abs(scores))
    least = scalar(b, float(node.attributes["min_box_size"]))  # type: ignore[arg-type]
    valid = b.onnx.And(b.onnx.Less(total, scalar(b, math.inf)), b.onnx.Greater(side, least))
    valid = b.onnx.Unsqueeze(valid, ints(b, 1))  # [N, 1, K]

    # Within a level the candidates are sorted, so their rank orders them as their logit does; and it is positive,
    # which NonMaxSuppression's threshold of zero needs.
    ranks = torch.arange(levels * before, 0, -1, dtype=torch.float32)
    rank = b.onnx.Slice(b.graph.constant(ranks, "ranks"), ints(b, 0), b.onnx.Shape(scores, start=1))
    if levels > 1:
        own = b.onnx.Equal(level_of, b.constant([[i] for i in range(levels)], I64))  # [L, K]
        valid = b.onnx.And(valid, own)
    contest = b.onnx.Where(valid, rank, scalar(b, 0.0))  # [N, L, K]
    kept = b.onnx.NonMaxSuppression(
        boxes,
        contest,
        ints(b, after),
        floats(b, float(node.attributes["nms_thresh"])),  # type: ignore[arg-type]
        floats(b, 0.0),
    )  # [S, 3]: image, level, candidate
    places = b.onnx.Gather(kept, ints(b, 0, 2), axis=1)
    nothing = b.onnx.ConstantOfShape(b.onnx.Shape(scores), value=(F32, -math.inf))
    survivors = b.onnx.ScatterND(nothing, places, b.onnx.GatherND(scores, places))
    rows, values, columns = best_per_row(b, survivors, after)
    sorted_boxes = b.onnx.GatherND(boxes, b.onnx.Unsqueeze(columns, ints(b, -1)), batch_dims=1)
    return [b.onnx.GatherND(sorted_boxes, rows), b.onnx.GatherND(values, rows), column(b, rows, 0)]


def _concat(b: Builder, parts: Sequence[Value], axis: int) -> Value:
    return parts[0] if len(parts) == 1 else b.onnx.Concat(list(parts), axis=axis)


TABLE: dict[str, LoweringRule] = {
    "det.anchors": anchors,
    "det.rpn_proposals": rpn_proposals,
    "det.grid_proposals": grid_proposals,
}
