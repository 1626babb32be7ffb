"""Lowering of `det.roi_pool` to ai.onnx operators."""

from __future__ import annotations

import math
from collections.abc import Callable

from detc.ir import Node, Value
from detc.ir.dialects.pooling import level_thresholds
from detc.passes.core.base import NoMatch, integer, integers, numbers

from .builder import OnnxBuilder
from .det_common import F32, I64, ints, split


def roi_pool(b: OnnxBuilder, node: Node) -> Value:
    """RoiAlign on each level."""
    if node.attributes["pooler_type"] not in ("ROIAlign", "ROIAlignV2"):
        raise NoMatch(f"pooling by {node.attributes['pooler_type']} has no ai.onnx operator that serves")
    low, high = split(b, node.operand(1), (2, 2), axis=1)
    return pool_by_level(b, node, b.onnx.Sub(high, low), _align)


def pool_by_level(
    b: OnnxBuilder,
    node: Node,
    sides: Value,
    align: Callable[[OnnxBuilder, Node, Value, Value, Value, float], Value],
) -> Value:
    """The boxes sorted by level and split, `align` on each level, and the rows put back in order.

    `sides` f32[R,2] are the boxes' width and height; `align` takes a level's map, boxes, batch_index and scale.
    """
    features, boxes, batch_index = node.operand_list(0), node.operand(1), node.operand(2)
    scales = numbers(node, "scales")
    if len(features) == 1:
        return align(b, node, features[0], boxes, batch_index, scales[0])

    size, level = integer(node, "canonical_box_size"), integer(node, "canonical_level")
    thresholds = level_thresholds(scales, size, level)
    area = b.onnx.ReduceProd(sides, ints(b, 1), keepdims=0)  # [R]
    least = b.constant([[-math.inf], *([t] for t in thresholds)], F32)
    most = b.constant([*([t] for t in thresholds), [math.inf]], F32)
    belongs = b.onnx.And(b.onnx.GreaterOrEqual(area, least), b.onnx.Less(area, most))  # [L, R]
    # NonZero lists the places by level: its second row is the order, finest level first.
    order = b.onnx.Gather(b.onnx.NonZero(belongs), b.constant(1, I64), axis=0)
    counts = b.onnx.ReduceSum(b.onnx.Cast(belongs, to=I64), ints(b, 1), keepdims=0)
    box_parts = b.onnx.Split(b.onnx.Gather(boxes, order, axis=0), counts, axis=0)
    index_parts = b.onnx.Split(b.onnx.Gather(batch_index, order, axis=0), counts, axis=0)
    pooled = [
        align(b, node, feature, part, index, float(scale))
        for feature, part, index, scale in zip(features, box_parts, index_parts, scales, strict=True)
    ]
    _, back = b.onnx.TopK(order, b.onnx.Shape(order), axis=0, largest=0)
    return b.onnx.Gather(b.onnx.Concat(pooled, axis=0), back, axis=0)


def _align(
    b: OnnxBuilder, node: Node, feature: Value, boxes: Value, batch_index: Value, scale: float
) -> Value:
    height, width = integers(node, "output_size")
    aligned = node.attributes["pooler_type"] == "ROIAlignV2"
    return b.onnx.RoiAlign(
        feature,
        boxes,
        batch_index,
        mode="avg",
        coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
        output_height=height,
        output_width=width,
        sampling_ratio=max(integer(node, "sampling_ratio"), 0),
        spatial_scale=scale,
    )
