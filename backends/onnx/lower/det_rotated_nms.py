"""Non-maximum suppression of rotated boxes in ai.onnx operators.

Pairs of boxes that may overlap enough are few: only for these is the true overlap computed. A Scan then walks over
the boxes, the best first, and notes which ones those that stay suppress.
"""

from __future__ import annotations

import math

import torch

from detc.ir import Graph, TensorType, Value, symbol

from .builder import OnnxBuilder, PlainBuilder
from .det_common import I64, floats, ints, scalar, scan, split

BOOL = torch.bool
_BOUND_SLACK = 1e-3
"""How much less than the threshold the bound of a pair's IoU may be, for rounding."""


def keep_best(
    b: OnnxBuilder, boxes: Value, valid: Value, threshold: float, labels: Value | None = None
) -> Value:
    """Greedy suppression in each group: bool[G,n], which boxes stay. Boxes that are not valid take no part.

    boxes f32[G,n,5], in each group the best first; valid bool[G,n]; labels i64[G,n], only boxes of one label
    suppress one another. A box goes when its IoU with a better one that stays is the threshold or more.
    """
    # One box more, which takes no part: runtimes do not walk over nothing.
    more = ints(b, 0, 1)
    valid = b.onnx.Cast(b.onnx.Pad(b.onnx.Cast(valid, to=I64), more, b.constant(0, I64), ints(b, 1)), to=BOOL)
    boxes = b.onnx.Pad(boxes, more, scalar(b, 0.0), ints(b, 1))
    # Those that take no part may hold anything, and comparisons of NaN hold in OpenVINO.
    boxes = b.onnx.Where(b.onnx.Unsqueeze(valid, ints(b, 2)), boxes, scalar(b, 0.0))
    pairs = _pairs(b, boxes, valid, threshold, labels, more)  # [3, P]: group, better, worse
    group, better, worse = b.onnx.Split(b.onnx.Transpose(pairs, perm=[1, 0]), num_outputs=3, axis=1)  # [P, 1]
    first, second = (b.onnx.GatherND(boxes, b.onnx.Concat([group, i], axis=1)) for i in (better, worse))
    overlapping = b.onnx.GreaterOrEqual(iou(b, first, second), scalar(b, threshold))  # [P]

    groups, count = b.onnx.Shape(valid, end=1), b.onnx.Shape(valid, start=1)
    shape = b.onnx.Concat([count, groups, count], axis=0)
    nothing = b.onnx.ConstantOfShape(shape, value=(BOOL, False))
    places = b.onnx.Concat([better, group, worse], axis=1)
    rows = b.onnx.ScatterND(nothing, places, overlapping)  # [n, G, n]
    numbers = b.onnx.Range(b.constant(0, I64), b.onnx.Squeeze(count, ints(b, 0)), b.constant(1, I64))
    (suppressed,) = _as_tuple(scan(b, _suppress_step(), [b.onnx.Not(valid)], [rows, numbers]))
    return b.onnx.Slice(b.onnx.Not(suppressed), ints(b, 0), ints(b, -1), ints(b, 1))


def _as_tuple(values: Value | tuple[Value, ...]) -> tuple[Value, ...]:
    return values if isinstance(values, tuple) else (values,)


def _suppress_step() -> Graph:
    """One box of each group: where it stays, those that it overlaps go."""
    body = Graph("suppress", level="onnx")
    groups, count = symbol("groups"), symbol("boxes")
    suppressed = body.add_input("suppressed", TensorType(BOOL, (groups, count)))
    overlaps = body.add_input("overlaps", TensorType(BOOL, (groups, count)))
    number = body.add_input("number", TensorType(I64, ()))
    b = PlainBuilder(body)
    gone = b.onnx.Gather(suppressed, b.onnx.Unsqueeze(number, ints(b, 0)), axis=1)  # [groups, 1]
    goes = b.onnx.And(overlaps, b.onnx.Not(gone))
    body.set_outputs({"suppressed": b.onnx.Or(suppressed, goes)})
    return body


def _pairs(
    b: OnnxBuilder, boxes: Value, valid: Value, threshold: float, labels: Value | None, more: Value
) -> Value:
    """Which pairs may reach the threshold, i64[3,P]: the group, the better box and the worse one.

    What two boxes share is at most what their upright bounding rectangles share, and at most the smaller one.
    """
    centre, size, angle = split(b, boxes, (2, 2, 1), axis=2)
    theta = b.onnx.Mul(angle, scalar(b, math.pi / 180.0))
    cos, sin = b.onnx.Abs(b.onnx.Cos(theta)), b.onnx.Abs(b.onnx.Sin(theta))
    width, height = split(b, b.onnx.Mul(size, scalar(b, 0.5)), (1, 1), axis=2)
    reach_x = b.onnx.Add(b.onnx.Mul(cos, width), b.onnx.Mul(sin, height))
    reach_y = b.onnx.Add(b.onnx.Mul(sin, width), b.onnx.Mul(cos, height))
    x, y = split(b, centre, (1, 1), axis=2)
    shared = b.onnx.Mul(_shared_length(b, x, reach_x), _shared_length(b, y, reach_y))  # [G, n, n]

    area = b.onnx.ReduceProd(size, ints(b, 2), keepdims=1)  # [G, n, 1]
    other = b.onnx.Transpose(area, perm=[0, 2, 1])
    shared = b.onnx.Min([shared, b.onnx.Min([area, other])])
    least = threshold - _BOUND_SLACK
    # shared / (area + other - shared) >= least
    reaches = b.onnx.GreaterOrEqual(
        b.onnx.Mul(shared, scalar(b, 1.0 + least)), b.onnx.Mul(b.onnx.Add(area, other), scalar(b, least))
    )
    number = b.onnx.Range(
        b.constant(0, I64), b.onnx.Squeeze(b.onnx.Shape(valid, start=1), ints(b, 0)), b.constant(1, I64)
    )
    worse = b.onnx.Less(b.onnx.Unsqueeze(number, ints(b, 1)), number)  # [n, n]
    both = b.onnx.And(b.onnx.Unsqueeze(valid, ints(b, 2)), b.onnx.Unsqueeze(valid, ints(b, 1)))
    possible = b.onnx.And(b.onnx.And(both, worse), reaches)
    if labels is not None:
        labels = b.onnx.Pad(labels, more, b.constant(-1, I64), ints(b, 1))
        same = b.onnx.Equal(b.onnx.Unsqueeze(labels, ints(b, 2)), b.onnx.Unsqueeze(labels, ints(b, 1)))
        possible = b.onnx.And(possible, same)
    return b.onnx.NonZero(possible)


def _shared_length(b: OnnxBuilder, centre: Value, reach: Value) -> Value:
    """How much of an axis two intervals, centre +- reach f32[G,n,1], share: f32[G,n,n]."""
    low, high = b.onnx.Sub(centre, reach), b.onnx.Add(centre, reach)
    begin = b.onnx.Max([low, b.onnx.Transpose(low, perm=[0, 2, 1])])
    end = b.onnx.Min([high, b.onnx.Transpose(high, perm=[0, 2, 1])])
    return b.onnx.Relu(b.onnx.Sub(end, begin))


def iou(b: OnnxBuilder, first: Value, second: Value) -> Value:
    """Intersection over union f32[P] of boxes f32[P,5], pair by pair.

    In the frame of the second box, which is upright there and reaches to +-W and +-H, the area that it shares with
    the first one is that between the first one's upper and lower border, each cut to +-H, for x from -W to W. So it is
    the integral of y, cut to +-H, along the first box's sides as far as they lie between -W and W (Green's theorem).
    It changes steadily with the boxes: sides that coincide, or almost, are no special case.
    """
    centre_1, size_1, angle_1 = split(b, first, (2, 2, 1), axis=1)
    centre_2, size_2, angle_2 = split(b, second, (2, 2, 1), axis=1)
    across, down = split(b, b.onnx.Sub(centre_1, centre_2), (1, 1), axis=1)
    offset_x, offset_y = _turned(b, across, down, angle_2)
    half_width, half_height = split(b, b.onnx.Mul(size_1, scalar(b, 0.5)), (1, 1), axis=1)
    right = b.onnx.Mul(half_width, floats(b, 1.0, -1.0, -1.0, 1.0))  # [P, 4], the corners going round
    below = b.onnx.Mul(half_height, floats(b, 1.0, 1.0, -1.0, -1.0))
    x, y = _turned(b, right, below, b.onnx.Sub(angle_2, angle_1))
    x, y = b.onnx.Add(x, offset_x), b.onnx.Add(y, offset_y)
    along_x, along_y = (b.onnx.Sub(b.onnx.Gather(c, ints(b, 1, 2, 3, 0), axis=1), c) for c in (x, y))

    width, height = split(b, b.onnx.Mul(size_2, scalar(b, 0.5)), (1, 1), axis=1)  # [P, 1]: W and H
    # All in parts of a side's length: from begin to end it lies between -W and W, from enter to leave in the box.
    begin, end, _ = _between(b, x, along_x, width, scalar(b, 0.0), scalar(b, 1.0))
    enter, leave, rises = _between(b, y, along_y, height, begin, end)
    middle = b.onnx.Mul(b.onnx.Add(enter, leave), scalar(b, 0.5))
    inside = b.onnx.Mul(b.onnx.Sub(leave, enter), b.onnx.Add(y, b.onnx.Mul(along_y, middle)))
    # Where it rises it is below the box before it enters it, and above after it has left it.
    above = b.onnx.Sub(b.onnx.Sub(end, leave), b.onnx.Sub(enter, begin))
    beyond = b.onnx.Mul(b.onnx.Mul(above, height), rises)
    parts = b.onnx.Mul(b.onnx.Add(inside, beyond), along_x)
    shared = b.onnx.Abs(b.onnx.ReduceSum(parts, ints(b, 1), keepdims=0))  # [P]
    area_1, area_2 = (b.onnx.ReduceProd(size, ints(b, 1), keepdims=0) for size in (size_1, size_2))
    union = b.onnx.Sub(b.onnx.Add(area_1, area_2), shared)
    return b.onnx.Div(shared, b.onnx.Max([union, scalar(b, 1e-30)]))


def _turned(b: OnnxBuilder, x: Value, y: Value, angle: Value) -> tuple[Value, Value]:
    """Vectors in the frame of a box that is turned by so many degrees: along its width, and along its height."""
    theta = b.onnx.Mul(angle, scalar(b, math.pi / 180.0))
    cos, sin = b.onnx.Cos(theta), b.onnx.Sin(theta)
    across = b.onnx.Sub(b.onnx.Mul(x, cos), b.onnx.Mul(y, sin))
    return across, b.onnx.Add(b.onnx.Mul(x, sin), b.onnx.Mul(y, cos))


def _between(
    b: OnnxBuilder, start: Value, along: Value, half: Value, begin: Value, end: Value
) -> tuple[Value, Value, Value]:
    """From where to where, within begin to end, lines lie between -half and half; and whether they rise (1) or
    fall (-1).

    A line that does not move counts as rising very slowly.
    """
    tiny = scalar(b, 1e-12)
    along = b.onnx.Where(b.onnx.Less(b.onnx.Abs(along), tiny), tiny, along)
    low, high = (b.onnx.Div(b.onnx.Sub(bound, start), along) for bound in (b.onnx.Neg(half), half))
    first, last = b.onnx.Min([low, high]), b.onnx.Max([low, high])
    enter, leave = (b.onnx.Max([b.onnx.Min([place, end]), begin]) for place in (first, last))
    return enter, leave, b.onnx.Sign(along)
