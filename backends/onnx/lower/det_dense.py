"""Lowering of `det.dense_inference` to ai.onnx operators."""

from __future__ import annotations

from detc.ir import Node, Value
from detc.ir.dialects.dense import decode_dense
from detc.passes.core.base import NoMatch, attribute, integer, number
from detc.passes.rewrite.conversion import LoweringRule

from .builder import OnnxBuilder
from .det_common import (
    I64,
    best_of_kept,
    column,
    concat,
    flatten_maps,
    floats,
    ints,
    scalar,
)


def dense_inference(b: OnnxBuilder, node: Node) -> list[Value]:
    """TopK on each level, boxes decoded for these candidates only, then one NonMaxSuppression for all images and
    classes, and TopK on each image."""
    scores, deltas, anchors = (node.operand_list(i) for i in range(3))
    cells = [_channels(m) // 4 for m in deltas]
    classes = _channels(scores[0]) // cells[0]
    best, level_index = _candidates(b, node, scores)

    # All levels' anchors in a row: a level's begin where those before it end.
    sizes = [b.onnx.Shape(level, end=1) for level in anchors]
    starts = b.onnx.CumSum(concat(b, sizes, 0), b.constant(0, I64), exclusive=1)
    begin = b.onnx.Split(starts, num_outputs=len(anchors)) if len(anchors) > 1 else [starts]
    per_class = b.constant(classes, I64)
    parts = [b.onnx.Add(b.onnx.Div(i, per_class), s) for i, s in zip(level_index, begin, strict=True)]
    anchor_index = concat(b, parts, 1)  # [N, P]
    category = b.onnx.Mod(concat(b, level_index, 1), per_class)  # [N, P]
    candidates = concat(b, best, 1)  # [N, P]

    chosen = b.onnx.GatherND(
        flatten_maps(b, deltas, cells, 4), b.onnx.Unsqueeze(anchor_index, ints(b, -1)), batch_dims=1
    )
    placed = b.onnx.Gather(concat(b, anchors, 0), anchor_index, axis=0)
    regression = {name: attribute(node, name) for name in ("regression", "weights", "scale_clamp")}
    b.graph.unify_sizes(chosen, placed)
    (boxes,) = b.written_out(decode_dense, chosen, placed, **regression)  # [N, P, 4]

    threshold = number(node, "score_thresh")
    own = b.onnx.Equal(b.onnx.Unsqueeze(category, ints(b, 1)), b.constant([[i] for i in range(classes)], I64))
    never = scalar(b, min(threshold, 0.0) - 1.0)
    limit = integer(node, "topk_per_image")
    kept = b.onnx.NonMaxSuppression(
        boxes,
        b.onnx.Where(own, b.onnx.Unsqueeze(candidates, ints(b, 1)), never),  # [N, K, P]
        ints(b, limit if limit >= 0 else 2**31 - 1),
        floats(b, number(node, "nms_thresh")),
        floats(b, threshold),
    )  # [S, 3]: image, class, candidate
    rows, values, columns = best_of_kept(b, kept, candidates, limit)
    image = column(b, rows, 0)
    place = b.onnx.Unsqueeze(b.onnx.GatherND(columns, rows), ints(b, 1))
    detected = b.onnx.Concat([b.onnx.Unsqueeze(image, ints(b, 1)), place], axis=1)
    return [
        b.onnx.GatherND(boxes, detected),
        b.onnx.GatherND(values, rows),
        b.onnx.GatherND(category, detected),
        image,
    ]


def _channels(value: Value) -> int:
    channels = value.shape[1]
    if not isinstance(channels, int):
        raise NoMatch("the number of classes or of anchors per position is not known")
    return channels


def _candidates(b: OnnxBuilder, node: Node, scores: tuple[Value, ...]) -> tuple[list[Value], list[Value]]:
    """Each level's best scores f32[N,k], and where they are: i64[N,k] into (row, column, anchor, class)."""
    channels = [_channels(m) for m in scores]
    flat = b.onnx.Squeeze(flatten_maps(b, scores, channels, 1), ints(b, 2))
    limit = ints(b, integer(node, "topk_candidates"))
    by_level: list[Value] = [flat]
    if len(scores) > 1:
        areas = [b.onnx.ReduceProd(b.onnx.Shape(m, start=1), ints(b, 0)) for m in scores]
        by_level = list(b.onnx.Split(flat, b.onnx.Concat(areas, axis=0), axis=1))
    found = [b.onnx.TopK(m, b.onnx.Min([b.onnx.Shape(m, start=1), limit]), axis=1) for m in by_level]
    return [values for values, _ in found], [places for _, places in found]


TABLE: dict[str, LoweringRule] = {"det.dense_inference": dense_inference}
