"""Non-maximum suppression of rotated boxes in ai.onnx operators.

Pairs of boxes that may overlap enough are few: only for these is the true overlap computed. A Scan then walks over
the boxes, the best first, and notes which ones those that stay suppress.
"""

from __future__ import annotations

import math

import torch

from detc.ir import Builder, Graph, TensorType, Value, symbol

from .det_common import F32, I64, ints, scalar, scan, split

BOOL = torch.bool
_BOUND_SLACK = 1e-3
"""How much less than the threshold the bound of a pair's IoU may be, for rounding."""
_EDGE_SLACK = 2.5e-7
"""Which sides of two boxes coincide: those no further apart than so much of the sum of their sides. It is more than
rounding, and changes an IoU by no more than rounding."""


def keep_best(b: Builder, boxes: Value, valid: Value, threshold: float, labels: Value | None = None) -> Value:
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
    overlapping = b.onnx.GreaterOrEqual(_iou(b, first, second), scalar(b, threshold))  # [P]

    groups, count = b.onnx.Shape(valid, end=1), b.onnx.Shape(valid, start=1)
    shape = b.onnx.Concat([count, groups, count], axis=0)
    nothing = b.onnx.ConstantOfShape(shape, value=(BOOL, False))
    places = b.onnx.Concat([better, group, worse], axis=1)
    rows = b.onnx.ScatterND(nothing, places, overlapping)  # [n, G, n]
    numbers = b.onnx.Range(b.constant(0, I64), b.onnx.Squeeze(count, ints(b, 0)), b.constant(1, I64))
    (suppressed,) = _as_tuple(scan(b, _suppress_step(), [b.onnx.Not(valid)], [rows, numbers]))
    kept: Value = b.onnx.Slice(b.onnx.Not(suppressed), ints(b, 0), ints(b, -1), ints(b, 1))
    return kept


def _as_tuple(values: Value | tuple[Value, ...]) -> tuple[Value, ...]:
    return values if isinstance(values, tuple) else (values,)


def _suppress_step() -> Graph:
    """One box of each group: where it stays, those that it overlaps go."""
    body = Graph("suppress", level="onnx")
    groups, count = symbol("groups"), symbol("boxes")
    suppressed = body.add_input("suppressed", TensorType(BOOL, (groups, count)))
    overlaps = body.add_input("overlaps", TensorType(BOOL, (groups, count)))
    number = body.add_input("number", TensorType(I64, ()))
    b = Builder(body)
    gone = b.onnx.Gather(suppressed, b.onnx.Unsqueeze(number, ints(b, 0)), axis=1)  # [groups, 1]
    goes = b.onnx.And(overlaps, b.onnx.Not(gone))
    body.set_outputs({"suppressed": b.onnx.Or(suppressed, goes)})
    return body


def _pairs(
    b: Builder, boxes: Value, valid: Value, threshold: float, labels: Value | None, more: Value
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
    pairs: Value = b.onnx.NonZero(possible)
    return pairs


def _shared_length(b: Builder, centre: Value, reach: Value) -> Value:
    """How much of an axis two intervals, centre +- reach f32[G,n,1], share: f32[G,n,n]."""
    low, high = b.onnx.Sub(centre, reach), b.onnx.Add(centre, reach)
    begin = b.onnx.Max([low, b.onnx.Transpose(low, perm=[0, 2, 1])])
    end = b.onnx.Min([high, b.onnx.Transpose(high, perm=[0, 2, 1])])
    shared: Value = b.onnx.Relu(b.onnx.Sub(end, begin))
    return shared


def _iou(b: Builder, first: Value, second: Value) -> Value:
    """Intersection over union f32[P] of boxes f32[P,5], pair by pair.

    The border of the intersection consists of what of each box's sides lies in the other box. With Green's theorem
    its area is half the sum of the cross products of the ends of these pieces: no corners need be found or sorted.
    In the frame of a box, which is upright there, a side is cut as a line is in Liang and Barsky's algorithm (1984).
    Where sides of both coincide, those of the first box count: what it lies in is a little larger, and what the
    second lies in a little smaller.
    """
    centre_1, size_1, angle_1 = split(b, first, (2, 2, 1), axis=1)
    centre_2, size_2, angle_2 = split(b, second, (2, 2, 1), axis=1)
    radians = math.pi / 180.0
    offset = b.onnx.Sub(centre_1, centre_2)
    # Two sets of sides, of the first box in the second one's frame and the other way round: [P, 2, ...].
    frame = b.onnx.Mul(b.onnx.Concat([angle_2, angle_1], axis=1), scalar(b, radians))
    turn = b.onnx.Mul(b.onnx.Sub(angle_1, angle_2), scalar(b, radians))
    turn = b.onnx.Unsqueeze(b.onnx.Concat([turn, b.onnx.Neg(turn)], axis=1), ints(b, 2))  # [P, 2, 1]
    cos, sin = b.onnx.Cos(turn), b.onnx.Sin(turn)
    half = [b.onnx.Mul(size, scalar(b, 0.5)) for size in (size_1, size_2)]
    own, other = (
        b.onnx.Concat([b.onnx.Unsqueeze(half[i], ints(b, 1)) for i in order], axis=1)
        for order in ((0, 1), (1, 0))
    )  # [P, 2, 2]: half of width and height, of the box whose sides these are, and of the other one
    half_width, half_height = split(b, own, (1, 1), axis=2)
    across, down = b.constant([1.0, -1.0, -1.0, 1.0], F32), b.constant([1.0, 1.0, -1.0, -1.0], F32)
    right, below = b.onnx.Mul(half_width, across), b.onnx.Mul(half_height, down)
    corner_x = b.onnx.Add(
        b.onnx.Mul(right, cos), b.onnx.Mul(below, sin)
    )  # [P, 2, 4], about the box's own centre
    corner_y = b.onnx.Sub(b.onnx.Mul(below, cos), b.onnx.Mul(right, sin))
    side_x, side_y = (
        b.onnx.Sub(b.onnx.Gather(c, ints(b, 1, 2, 3, 0), axis=2), c) for c in (corner_x, corner_y)
    )

    sign = b.constant([[1.0], [-1.0]], F32)
    offset = b.onnx.Mul(b.onnx.Unsqueeze(offset, ints(b, 1)), sign)  # [P, 2, 2]
    offset_x, offset_y = split(b, offset, (1, 1), axis=2)
    frame = b.onnx.Unsqueeze(frame, ints(b, 2))
    frame_cos, frame_sin = b.onnx.Cos(frame), b.onnx.Sin(frame)
    centre_x = b.onnx.Sub(b.onnx.Mul(offset_x, frame_cos), b.onnx.Mul(offset_y, frame_sin))
    centre_y = b.onnx.Add(b.onnx.Mul(offset_x, frame_sin), b.onnx.Mul(offset_y, frame_cos))
    total = b.onnx.ReduceSum(b.onnx.Add(size_1, size_2), ints(b, 1), keepdims=1)
    slack = b.onnx.Mul(b.onnx.Unsqueeze(b.onnx.Mul(total, scalar(b, _EDGE_SLACK)), ints(b, 2)), sign)
    half_x, half_y = split(b, b.onnx.Add(other, slack), (1, 1), axis=2)
    begin_x, end_x = _cut(b, b.onnx.Add(corner_x, centre_x), side_x, half_x)
    begin_y, end_y = _cut(b, b.onnx.Add(corner_y, centre_y), side_y, half_y)
    begin = b.onnx.Max([begin_x, begin_y, scalar(b, 0.0)])
    part = b.onnx.Relu(b.onnx.Sub(b.onnx.Min([end_x, end_y, scalar(b, 1.0)]), begin))

    # All cross products are about the second box's centre.
    first_only = b.constant([[1.0], [0.0]], F32)
    x = b.onnx.Add(corner_x, b.onnx.Mul(centre_x, first_only))
    y = b.onnx.Add(corner_y, b.onnx.Mul(centre_y, first_only))
    cross = b.onnx.Sub(b.onnx.Mul(x, side_y), b.onnx.Mul(y, side_x))
    twice = b.onnx.Abs(b.onnx.ReduceSum(b.onnx.Mul(part, cross), ints(b, 1, 2), keepdims=0))
    shared = b.onnx.Mul(twice, scalar(b, 0.5))
    area_1, area_2 = (b.onnx.ReduceProd(size, ints(b, 1), keepdims=0) for size in (size_1, size_2))
    union = b.onnx.Sub(b.onnx.Add(area_1, area_2), shared)
    iou: Value = b.onnx.Div(shared, b.onnx.Max([union, scalar(b, 1e-30)]))
    return iou


def _cut(b: Builder, start: Value, along: Value, half: Value) -> tuple[Value, Value]:
    """From where to where, in parts of their length, lines from `start` on lie between -half and half."""
    tiny = scalar(b, 1e-12)
    still = b.onnx.Less(b.onnx.Abs(along), tiny)
    along = b.onnx.Where(still, tiny, along)
    near, far = (b.onnx.Div(b.onnx.Sub(bound, start), along) for bound in (b.onnx.Neg(half), half))
    return b.onnx.Min([near, far]), b.onnx.Max([near, far])
