"""Lowering of `det.*` on points to ai.onnx operators."""

from __future__ import annotations

from detc.ir import Node, Value
from detc.passes.core.base import numbers
from detc.passes.rewrite.conversion import LoweringRule

from .builder import OnnxBuilder
from .det_common import F32, I64, ints, iota, scalar, split


def _grid(b: OnnxBuilder, points: Value) -> Value:
    """Points in [0, 1] as GridSample counts them, in [-1, 1]."""
    return b.onnx.Sub(b.onnx.Mul(points, scalar(b, 2.0)), scalar(b, 1.0))


def box_point_sample(b: OnnxBuilder, node: Node) -> Value:
    """One GridSample per map: an image's boxes are the rows of its grid.

    All images' grids have as many rows as the image with the most boxes has boxes.
    """
    features, boxes, batch_index, points = node.operand_list(0), *(node.operand(i) for i in (1, 2, 3))
    scales = numbers(node, "scales")
    low, high = split(b, b.onnx.Unsqueeze(boxes, ints(b, 1)), (2, 2), axis=2)  # [R, 1, 2]
    places = b.onnx.Add(b.onnx.Mul(points, b.onnx.Sub(high, low)), low)  # [R, P, 2]

    images = iota(b, b.onnx.Shape(features[0]), 0)
    mine = b.onnx.Cast(b.onnx.Equal(b.onnx.Unsqueeze(images, ints(b, 1)), batch_index), to=I64)  # [N, R]
    counts = b.onnx.ReduceSum(mine, ints(b, 1), keepdims=0)
    before = b.onnx.CumSum(counts, b.constant(0, I64), exclusive=1)
    # At least one row: no runtime need sample a grid of nothing.
    most = b.onnx.Max([b.onnx.ReduceMax(counts, ints(b, 0)), ints(b, 1)])  # [1]
    rank = b.onnx.Sub(iota(b, b.onnx.Shape(batch_index), 0), b.onnx.Gather(before, batch_index, axis=0))
    cell = b.onnx.Add(b.onnx.Mul(batch_index, most), rank)  # [R]
    count = b.onnx.Shape(points, start=1)  # P, 2
    rows = b.onnx.Mul(b.onnx.Shape(images), most)
    empty = b.onnx.ConstantOfShape(b.onnx.Concat([rows, count], axis=0), value=(F32, 0.0))
    spread = b.onnx.ScatterND(empty, b.onnx.Unsqueeze(cell, ints(b, 1)), places)
    spread = b.onnx.Reshape(spread, b.onnx.Concat([ints(b, -1), most, count], axis=0))  # [N, K, P, 2]

    sampled: list[Value] = []
    for feature, scale in zip(features, scales, strict=True):
        # Width and height of what the map covers, in pixels of the network's input.
        size = b.onnx.Gather(b.onnx.Cast(b.onnx.Shape(feature), to=F32), ints(b, 3, 2), axis=0)
        size = b.onnx.Mul(size, scalar(b, 1.0 / scale))
        values = b.onnx.GridSample(feature, _grid(b, b.onnx.Div(spread, size)))  # [N, C, K, P]
        turned = b.onnx.Transpose(values, perm=[0, 2, 1, 3])
        channels = b.shape((feature.shape[1], points.shape[1]), None)
        flat = b.onnx.Reshape(turned, b.onnx.Concat([ints(b, -1), channels], axis=0))
        sampled.append(b.onnx.Gather(flat, cell, axis=0))
    return sampled[0] if len(sampled) == 1 else b.onnx.Concat(sampled, axis=1)


TABLE: dict[str, LoweringRule] = {"det.box_point_sample": box_point_sample}
