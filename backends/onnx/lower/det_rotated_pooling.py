"""Lowering of `det.roi_pool` along rotated boxes to ai.onnx operators."""

from __future__ import annotations

import math
from collections.abc import Sequence

from detc.ir import Node, Value
from detc.passes.core.base import integer, integers

from .builder import OnnxBuilder
from .det_common import F32, I64, ints, scalar, split
from .det_pooling import pool_by_level


def roi_pool(b: OnnxBuilder, node: Node) -> Value:
    """Samples along the boxes' own axes, on each level."""
    _, sides, _ = split(b, node.operand(1), (2, 2, 1), axis=1)
    adaptive = integer(node, "sampling_ratio") <= 0
    return pool_by_level(b, node, sides, _align_adaptively if adaptive else _align)


def _align(
    b: OnnxBuilder, node: Node, feature: Value, boxes: Value, batch_index: Value, scale: float
) -> Value:
    """As many samples in each bin of each box: all lie on one grid."""
    ratio = integer(node, "sampling_ratio")
    bins = integers(node, "output_size")
    steps: list[Value] = []
    for side, count in zip(_sides(b, boxes, scale), bins, strict=True):
        samples = count * ratio
        places = b.constant([[(i + 0.5) / samples - 0.5 for i in range(samples)]], F32)
        steps.append(b.onnx.Mul(side, places))
    grid = _sample(b, feature, boxes, batch_index, scale, steps)  # [1, C, r*oh*g, ow*g]
    # One axis after the other: both are forms of reduction that runtimes are quick at.
    by_bin = b.onnx.Reshape(grid, ints(b, -1, ratio, bins[1], ratio))
    means = b.onnx.ReduceMean(b.onnx.ReduceMean(by_bin, ints(b, 3), keepdims=0), ints(b, 1), keepdims=0)
    return _by_box(b, feature, means, bins)


def _align_adaptively(
    b: OnnxBuilder, node: Node, feature: Value, boxes: Value, batch_index: Value, scale: float
) -> Value:
    """As many samples in a bin as its sides are pixels long.

    The k-th sample of all of a box's bins counts as a box of its own, with one sample in each bin; what these give is
    added up.
    """
    bins = integers(node, "output_size")
    sides = _sides(b, boxes, scale)
    counts = [
        b.onnx.Cast(b.onnx.Ceil(b.onnx.Div(side, scalar(b, count))), to=I64)
        for side, count in zip(sides, bins, strict=True)
    ]  # [r, 1] each
    used = b.onnx.And(
        *(b.onnx.Unsqueeze(_below(b, c), ints(b, axis)) for c, axis in zip(counts, (2, 1), strict=True))
    )
    row, *numbers = b.onnx.Split(b.onnx.NonZero(used), num_outputs=3, axis=0)  # [1, T] each
    row = b.onnx.Squeeze(row, ints(b, 0))
    steps: list[Value] = []
    for side, count, number, many in zip(sides, counts, numbers, bins, strict=True):
        inside = b.onnx.Add(b.onnx.Cast(b.onnx.Transpose(number, perm=[1, 0]), to=F32), scalar(b, 0.5))
        inside = b.onnx.Div(inside, b.onnx.Cast(b.onnx.Gather(count, row, axis=0), to=F32))  # [T, 1], in bins
        places = b.onnx.Add(inside, b.constant([[i - many / 2 for i in range(many)]], F32))
        length = b.onnx.Mul(b.onnx.Gather(side, row, axis=0), scalar(b, 1 / many))
        steps.append(b.onnx.Mul(length, places))
    own = b.onnx.Gather(boxes, row, axis=0)
    grid = _sample(b, feature, own, b.onnx.Gather(batch_index, row, axis=0), scale, steps)
    share = b.onnx.Reciprocal(b.onnx.Cast(b.onnx.Mul(*counts), to=F32))
    share = b.onnx.Unsqueeze(b.onnx.Gather(share, row, axis=0), ints(b, 2, 3))  # [T, 1, 1, 1]
    parts = b.onnx.Mul(_by_box(b, feature, grid, bins), share)  # [T, C, oh, ow]
    channels = b.onnx.Shape(feature, start=1, end=2)
    shape = b.onnx.Concat([b.onnx.Shape(boxes, end=1), channels, ints(b, *bins)], axis=0)
    nothing = b.onnx.ConstantOfShape(shape, value=(F32, 0.0))
    return b.onnx.ScatterND(nothing, b.onnx.Unsqueeze(row, ints(b, 1)), parts, reduction="add")


def _sides(b: OnnxBuilder, boxes: Value, scale: float) -> tuple[Value, Value]:
    """The boxes' height and width in pixels of the map, f32[r,1] each."""
    _, width, height, _ = split(b, boxes, (2, 1, 1, 1), axis=1)
    return b.onnx.Mul(height, scalar(b, scale)), b.onnx.Mul(width, scalar(b, scale))


def _below(b: OnnxBuilder, counts: Value) -> Value:
    """bool[r,m]: which of the numbers 0, 1, 2, ... are below each count i64[r,1]; m is the greatest count."""
    # One count more: no runtime need find the greatest of nothing.
    most = b.onnx.ReduceMax(b.onnx.Pad(counts, ints(b, 0, 1), b.constant(1, I64), ints(b, 0)), keepdims=0)
    return b.onnx.Less(b.onnx.Range(b.constant(0, I64), most, b.constant(1, I64)), counts)


def _sample(
    b: OnnxBuilder, feature: Value, boxes: Value, batch_index: Value, scale: float, steps: list[Value]
) -> Value:
    """Bilinear samples f32[1,C,r*p,q] of a map [N,C,h,w]; steps f32[r,p] down and f32[r,q] across each box, from its
    centre.

    One grid serves all images: they stand one below the other, and no position leaves its own image.
    """
    centre, _, angle = split(b, boxes, (2, 2, 1), axis=1)
    centre = b.onnx.Sub(b.onnx.Mul(centre, scalar(b, scale)), scalar(b, 0.5))
    centre_x, centre_y = split(b, b.onnx.Unsqueeze(centre, ints(b, 2)), (1, 1), axis=1)  # [r, 1, 1]
    theta = b.onnx.Unsqueeze(b.onnx.Mul(angle, scalar(b, math.pi / 180.0)), ints(b, 2))
    cos, sin = b.onnx.Cos(theta), b.onnx.Sin(theta)
    down, across = b.onnx.Unsqueeze(steps[0], ints(b, 2)), b.onnx.Unsqueeze(steps[1], ints(b, 1))
    y = b.onnx.Add(b.onnx.Sub(b.onnx.Mul(down, cos), b.onnx.Mul(across, sin)), centre_y)
    x = b.onnx.Add(b.onnx.Add(b.onnx.Mul(down, sin), b.onnx.Mul(across, cos)), centre_x)

    size = b.onnx.Cast(b.onnx.Shape(feature), to=F32)
    images, _, height, width = (
        b.onnx.Squeeze(part, ints(b, 0)) for part in split(b, size, (1, 1, 1, 1), axis=0)
    )
    inside = b.onnx.And(_within(b, y, height), _within(b, x, width))
    first_row = b.onnx.Mul(b.onnx.Cast(batch_index, to=F32), height)
    y = b.onnx.Add(_clamped(b, y, height), b.onnx.Unsqueeze(first_row, ints(b, 1, 2)))
    rows = b.onnx.Mul(images, height)
    places = [_normalized(b, _clamped(b, x, width), width), _normalized(b, y, rows)]
    grid = b.onnx.Concat([b.onnx.Unsqueeze(axis, ints(b, 3)) for axis in places], axis=3)  # [r, p, q, 2]
    shape = [b.onnx.Shape(grid, start=2, end=3), ints(b, 2)]
    grid = b.onnx.Reshape(grid, b.onnx.Concat([ints(b, 1, -1), *shape], axis=0))
    channels = b.onnx.Shape(feature, start=1, end=2)
    columns = b.onnx.Shape(feature, start=3, end=4)
    stacked = b.onnx.Reshape(
        b.onnx.Transpose(feature, perm=[1, 0, 2, 3]),
        b.onnx.Concat([ints(b, 1), channels, ints(b, -1), columns], axis=0),
    )
    values = b.onnx.GridSample(stacked, grid, padding_mode="border")
    flat = b.onnx.Reshape(inside, b.onnx.Concat([ints(b, 1, 1, -1), b.onnx.Shape(x, start=2)], axis=0))
    return b.onnx.Where(flat, values, scalar(b, 0.0))


def _within(b: OnnxBuilder, position: Value, size: Value) -> Value:
    """Which positions are no more than a pixel outside of an axis of that size."""
    low = b.onnx.GreaterOrEqual(position, scalar(b, -1.0))
    return b.onnx.And(low, b.onnx.LessOrEqual(position, size))


def _clamped(b: OnnxBuilder, position: Value, size: Value) -> Value:
    return b.onnx.Min([b.onnx.Max([position, scalar(b, 0.0)]), b.onnx.Sub(size, scalar(b, 1.0))])


def _normalized(b: OnnxBuilder, position: Value, size: Value) -> Value:
    """Pixels' positions as GridSample counts them: -1 and 1 are the outer borders of the first and last pixel."""
    doubled = b.onnx.Add(b.onnx.Mul(position, scalar(b, 2.0)), scalar(b, 1.0))
    return b.onnx.Sub(b.onnx.Div(doubled, size), scalar(b, 1.0))


def _by_box(b: OnnxBuilder, feature: Value, grid: Value, bins: Sequence[int]) -> Value:
    """What a grid, whose elements are f32[C,r,oh,ow] in order, holds for each box: f32[r,C,oh,ow]."""
    channels = b.onnx.Shape(feature, start=1, end=2)
    table = b.onnx.Reshape(grid, b.onnx.Concat([channels, ints(b, -1, *bins)], axis=0))
    return b.onnx.Transpose(table, perm=[1, 0, 2, 3])
