"""Lowering of anchors and region proposals to ai.onnx operators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from detc.ir import Constant, Node, Value
from detc.ir.dialects import proposals
from detc.ir.dialects.boxes import parts
from detc.passes.core.base import NoMatch, integer, number, numbers

from .builder import OnnxBuilder
from .det_common import (
    F32,
    I64,
    best_of_kept,
    column,
    concat,
    flatten_maps,
    floats,
    ints,
    magnitude,
    scalar,
    split,
)


def anchors(b: OnnxBuilder, node: Node) -> Value:
    """Positions from NonZero of a map of ones; one Gemm scales them and adds the cell anchors, exactly."""
    feature, cells = node.operand(0), node.operand(1)
    if not isinstance(cells, Constant):
        raise NoMatch("the cell anchors are not constant")
    stride, offset = number(node, "stride"), number(node, "offset")
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
    b: OnnxBuilder, node: Node, index: Value, level: Value, widths: Value, per_cell: list[int]
) -> tuple[Value, Value]:
    """Centre and size f32[N,K,2] of the anchors at positions `index` i64[N,K], which count their level's anchors
    by row, column and cell; `level` i64[K]; `widths` i64[L] of the maps."""
    given = node.operand_list(len(node.operands) - 2)
    constants = [c.data for c in given if isinstance(c, Constant)]
    if len(constants) != len(given) or len(set(per_cell)) != 1:
        raise NoMatch("the cell anchors are not constant, or differ in number from level to level")
    cells = torch.cat(constants)
    strides = numbers(node, "strides")
    offset = number(node, "offset")
    step = torch.tensor(strides, dtype=torch.float32)[:, None]
    centres, sizes = parts(cells)
    centres = centres + (offset * step).repeat_interleave(per_cell[0], dim=0)
    count = b.constant(per_cell[0], I64)
    cell = b.onnx.Add(b.onnx.Mul(level, count), b.onnx.Mod(index, count))
    position = b.onnx.Div(index, count)
    width = b.onnx.Gather(widths, level, axis=0)
    x = b.onnx.Unsqueeze(b.onnx.Mod(position, width), ints(b, -1))
    y = b.onnx.Unsqueeze(b.onnx.Div(position, width), ints(b, -1))
    grid = b.onnx.Cast(b.onnx.Concat([x, y], axis=-1), to=F32)
    shift = b.onnx.Mul(grid, b.onnx.Gather(b.graph.constant(step, "strides"), level, axis=0))
    centre = b.onnx.Add(shift, b.onnx.Gather(b.graph.constant(centres, "anchor_centres"), cell, axis=0))
    return centre, b.onnx.Gather(b.graph.constant(sizes, "anchor_sizes"), cell, axis=0)


def rpn_proposals(b: OnnxBuilder, node: Node) -> list[Value]:
    """TopK on each level, then one NonMaxSuppression with the levels as its classes, then TopK on each image."""
    return _proposals(b, node, _two_maps(b, node), anchors=node.operand_list(2))


def grid_proposals(b: OnnxBuilder, node: Node) -> list[Value]:
    """As `rpn_proposals`, but anchors are computed from the indices of those kept."""
    return _proposals(b, node, _two_maps(b, node))


def dense_proposals(b: OnnxBuilder, node: Node) -> list[Value]:
    """As `grid_proposals`, where the two kinds of maps are one."""
    maps = node.operand_list(0)
    cells = [m.shape[1] // 5 for m in maps if isinstance(m.shape[1], int)]
    logits, deltas = split(b, flatten_maps(b, maps, cells, 5), (1, 4), axis=2)
    return _proposals(b, node, _Head(logits, deltas, maps, cells))


@dataclass(frozen=True)
class _Head:
    """What the RPN's head predicts, all levels in a row: for each anchor, by row, column and cell.

    Attributes:
        logits: f32[N,T,1].
        deltas: f32[N,T,4].
        maps: a map of each level, for its size.
        cells: the number of anchors at each position, by level.
    """

    logits: Value
    deltas: Value
    maps: tuple[Value, ...]
    cells: list[int]


def _two_maps(b: OnnxBuilder, node: Node) -> _Head:
    """The head whose logits and deltas are maps of their own, the node's first two operands."""
    logits, deltas = node.operand_list(0), node.operand_list(1)
    cells = cells_of(logits)
    return _Head(flatten_maps(b, logits, cells, 1), flatten_maps(b, deltas, cells, 4), logits, cells)


def cells_of(logits: Sequence[Value]) -> list[int]:
    """The number of anchors at each position, by level, from maps f32[N,A,h,w]."""
    cells = [m.shape[1] for m in logits]
    known = [c for c in cells if isinstance(c, int)]
    if len(known) != len(cells):
        raise NoMatch("the number of anchors per position is not known")
    return known


@dataclass(frozen=True)
class Candidates:
    """The best of each level, level by level, in each the best first.

    Attributes:
        scores: their logits f32[N,K].
        level: i64[K].
        local: i64[N,K], their places in their level, counted by row, column and cell.
        everywhere: i64[N,K], their places among all levels' anchors.
        widths: i64[L], of the maps.
        counts: for each level how many there are, i64[1].
    """

    scores: Value
    level: Value
    local: Value
    everywhere: Value
    widths: Value
    counts: list[Value]


def level_candidates(
    b: OnnxBuilder,
    node: Node,
    logits: Value,
    maps: Sequence[Value],
    cells: list[int],
    *,
    equal_counts: bool = False,
) -> Candidates:
    """TopK on each level of the logits f32[N,T,1].

    With `equal_counts` a level that has fewer than another is filled up with its first anchor, at -inf.
    """
    levels = len(maps)
    before = integer(node, "pre_nms_topk")
    sizes = [b.onnx.Shape(m, start=2, end=4) for m in maps]
    table = b.onnx.Reshape(concat(b, sizes, 0), ints(b, levels, 2))
    counts = b.onnx.Mul(b.onnx.ReduceProd(table, ints(b, 1), keepdims=0), ints(b, *cells))
    flat = b.onnx.Squeeze(logits, ints(b, 2))
    by_level = [flat] if levels == 1 else list(b.onnx.Split(flat, counts, axis=1))
    best: list[Value] = []
    index: list[Value] = []
    taken: list[Value] = []
    for level in by_level:
        taken.append(b.onnx.Min([b.onnx.Shape(level, start=1), ints(b, before)]))
        values, places = b.onnx.TopK(level, taken[-1], axis=1)
        best.append(values)
        index.append(places)
    if equal_counts and levels > 1:
        most = b.onnx.Max(taken)
        for i, count in enumerate(taken):
            missing = b.onnx.Concat([ints(b, 0), b.onnx.Sub(most, count)], axis=0)
            best[i] = b.onnx.Pad(best[i], missing, scalar(b, -math.inf), ints(b, 1))
            index[i] = b.onnx.Pad(index[i], missing, b.constant(0, I64), ints(b, 1))
        taken = [most] * levels
    local = concat(b, index, 1)
    level_of = concat(b, [b.onnx.Expand(ints(b, i), count) for i, count in enumerate(taken)], 0)
    offsets = b.onnx.CumSum(counts, b.constant(0, I64), exclusive=1)
    everywhere = b.onnx.Add(local, b.onnx.Gather(offsets, level_of, axis=0))
    widths = b.onnx.Gather(table, b.constant(1, I64), axis=1)
    return Candidates(concat(b, best, 1), level_of, local, everywhere, widths, taken)


def refined(b: OnnxBuilder, node: Node, deltas: Value, centre: Value, rest: Value) -> list[Value]:
    """The candidates' boxes f32[N,K,columns] as decoded and as clipped, and the shorter sides f32[N,K] of these."""
    # That they are as many as the deltas ONNX's inference has not seen.
    for part in (centre, rest):
        b.graph.unify_sizes(deltas, part)
    attributes = {name: node.attributes[name] for name in ("weights", "scale_clamp")}
    im_info = node.operand(len(node.operands) - 1)
    return b.written_out(proposals.refined, deltas, centre, rest, im_info, **attributes)


def _proposals(b: OnnxBuilder, node: Node, head: _Head, anchors: Sequence[Value] = ()) -> list[Value]:
    levels = len(head.maps)
    before, after = integer(node, "pre_nms_topk"), integer(node, "post_nms_topk")
    found = level_candidates(b, node, head.logits, head.maps, head.cells)
    scores = found.scores
    chosen = b.onnx.GatherND(head.deltas, b.onnx.Unsqueeze(found.everywhere, ints(b, -1)), batch_dims=1)
    if anchors:
        placed = b.onnx.Gather(concat(b, anchors, 0), found.everywhere, axis=0)
        centre, size = b.written_out(parts, placed)
    else:
        centre, size = _grid_anchors(b, node, found.local, found.level, found.widths, head.cells)
    decoded, boxes, side = refined(b, node, chosen, centre, size)
    total = b.onnx.Add(magnitude(b, decoded, 2), b.onnx.Abs(scores))
    least = scalar(b, number(node, "min_box_size"))
    valid = b.onnx.And(b.onnx.Less(total, scalar(b, math.inf)), b.onnx.Greater(side, least))
    valid = b.onnx.Unsqueeze(valid, ints(b, 1))  # [N, 1, K]

    # Within a level the candidates are sorted, so their rank orders them as their logit does; and it is positive,
    # which NonMaxSuppression's threshold of zero needs.
    ranks = torch.arange(levels * before, 0, -1, dtype=torch.float32)
    rank = b.onnx.Slice(b.graph.constant(ranks, "ranks"), ints(b, 0), b.onnx.Shape(scores, start=1))
    if levels > 1:
        own = b.onnx.Equal(found.level, b.constant([[i] for i in range(levels)], I64))  # [L, K]
        valid = b.onnx.And(valid, own)
    contest = b.onnx.Where(valid, rank, scalar(b, 0.0))  # [N, L, K]
    kept = b.onnx.NonMaxSuppression(
        boxes,
        contest,
        ints(b, after),
        floats(b, number(node, "nms_thresh")),
        floats(b, 0.0),
    )  # [S, 3]: image, level, candidate
    rows, values, columns = best_of_kept(b, kept, scores, after)
    sorted_boxes = b.onnx.GatherND(boxes, b.onnx.Unsqueeze(columns, ints(b, -1)), batch_dims=1)
    return [b.onnx.GatherND(sorted_boxes, rows), b.onnx.GatherND(values, rows), column(b, rows, 0)]
