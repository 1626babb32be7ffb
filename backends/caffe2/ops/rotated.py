"""Overlap of rotated boxes, f32[..., 5]: center x, center y, width, height in pixels, angle in degrees.

Source: Caffe2's `generate_proposals_op_util_nms.h`, whose float32 formulas for corners, crossings and what is
    inside are kept. Between two boxes without area rounding alone decides there whether they suppress each
    other; that much may differ.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

_SAME_POINT: Final = 1e-5
_SAME_POINT_SQUARED: Final = 1e-8
_PARALLEL: Final = 1e-14
_THIN: Final = 1e-3
_DEGREES: Final = 0.01745329251
_BLOCK: Final = 1 << 16
"""How many pairs are compared at a time, to bound the memory: a pair needs about 1 kB."""


def comparable_pairs(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Rows i < j, i64[p] each, of those f32[n, 5] boxes whose IoU may be something else than 0.

    Those are boxes whose enclosing circles touch; and a box without width or height with any other, since the
    test of what is inside of such a box says yes all along it.
    """
    radius = torch.hypot(boxes[:, 2], boxes[:, 3]) / 2
    radius = radius.masked_fill(boxes[:, 2:4].amin(1) < _THIN, math.inf)
    firsts, seconds = [], []
    rows_at_a_time = max(1, (1 << 22) // max(1, len(boxes)))
    for start in range(0, len(boxes), rows_at_a_time):
        stop = min(start + rows_at_a_time, len(boxes))
        distance = torch.cdist(
            boxes[start:stop, :2], boxes[:, :2], compute_mode="donot_use_mm_for_euclid_dist"
        )
        reach = (radius[start:stop, None] + radius[None, :]) * (1 + 1e-4) + 1e-3
        # Written so that a pair which is not comparable (not a number) counts as touching.
        first, second = (~(distance > reach)).nonzero(as_tuple=True)
        later = second > first + start
        firsts.append(first[later] + start)
        seconds.append(second[later])
    if not firsts:
        empty = torch.empty(0, dtype=torch.int64, device=boxes.device)
        return empty, empty
    return torch.cat(firsts), torch.cat(seconds)


def rotated_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of rotated boxes, row by row: f32[p, 5] and f32[p, 5] to f32[p]; 0 / 0 is not a number."""
    if len(first) > _BLOCK:
        blocks = (slice(start, start + _BLOCK) for start in range(0, len(first), _BLOCK))
        return torch.cat([rotated_iou(first[block], second[block]) for block in blocks])
    inter = _intersection_area(first, second).to(first.dtype)
    return inter / (first[:, 2] * first[:, 3] + second[:, 2] * second[:, 3] - inter)


def _corners(boxes: Tensor) -> Tensor:
    """f32[p, 4, 2] corner points of f32[p, 5] boxes, in order around the box."""
    center, size = boxes[:, :2], boxes[:, 2:4]
    angle = -boxes[:, 4].double() * _DEGREES
    b, a = (angle.cos().to(boxes.dtype) * 0.5), (angle.sin().to(boxes.dtype) * 0.5)
    w, h = size.unbind(-1)
    x, y = center.unbind(-1)
    first = torch.stack((x - a * h - b * w, y + b * h - a * w), dim=-1)
    second = torch.stack((x + a * h - b * w, y - b * h - a * w), dim=-1)
    return torch.stack((first, second, 2 * center - first, 2 * center - second), dim=1)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - b[..., 0] * a[..., 1]


def _inside(points: Tensor, corners: Tensor) -> Tensor:
    """bool[p, 4]: which of `points` f32[p, 4, 2] lie in the rectangle with these corners."""
    side = corners[:, 1:2] - corners[:, 0:1]
    other = corners[:, 0:1] - corners[:, 3:4]
    offset = points - corners[:, 0:1]
    along = (offset * side).sum(-1)
    across = -(offset * other).sum(-1)
    return (
        (along >= 0) & (across >= 0) & (along <= side.square().sum(-1)) & (across <= other.square().sum(-1))
    )


def _intersection_area(first: Tensor, second: Tensor) -> Tensor:
    """f64[p] areas of the intersections of f32[p, 5] boxes."""
    corners1, corners2 = _corners(first), _corners(second)
    edges1 = corners1.roll(-1, 1) - corners1
    edges2 = corners2.roll(-1, 1) - corners2

    # Crossings of each edge of the one with each edge of the other.
    determinant = _cross(edges2[:, None, :], edges1[:, :, None])
    between = corners2[:, None, :] - corners1[:, :, None]
    t1 = _cross(edges2[:, None, :], between) / determinant
    t2 = _cross(edges1[:, :, None], between) / determinant
    crosses = (determinant.abs() > _PARALLEL) & (t1 >= 0) & (t1 <= 1) & (t2 >= 0) & (t2 <= 1)
    crossings = corners1[:, :, None] + t1[..., None] * edges1[:, :, None]

    points = torch.cat((crossings.flatten(1, 2), corners1, corners2), dim=1)
    valid = torch.cat((crosses.flatten(1), _inside(corners1, corners2), _inside(corners2, corners1)), dim=1)
    around, count = _around_lowest(points, valid)
    area = _fan_area(around)
    # Beside a box without width or height, points that are not on the hull pass the test of what is inside.
    thin = torch.minimum(first[:, 2:4].amin(1), second[:, 2:4].amin(1)) < _THIN
    if bool(thin.any()):
        area[thin] = _fan_area(_hull(around[thin], count[thin]))
    area[valid.sum(1) <= 2] = 0

    same = ((corners1 - corners2).abs() <= _SAME_POINT).flatten(1).all(1)
    smaller = torch.minimum(first[:, 2] * first[:, 3], second[:, 2] * second[:, 3])
    return torch.where(same, smaller.double(), area)


def _around_lowest(points: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The valid ones of f32[p, 24, 2] points by angle around the lowest, and relative to it; i64[p] how many.

    The others follow as zeros. So do copies of the lowest point: the crossing of two boxes without area,
    which is one point four times over with some rounding, has no area.
    """
    y = points[..., 1].masked_fill(~valid, math.inf)
    lowest = y == y.amin(1, keepdim=True)
    x = points[..., 0].masked_fill(~(valid & lowest), math.inf)
    start = x.argmin(1)
    offset = points - points[torch.arange(len(points), device=points.device), start][:, None]
    used = valid & (offset.square().sum(-1) > _SAME_POINT_SQUARED)
    angle = torch.atan2(offset[..., 1], offset[..., 0]).masked_fill(~used, math.inf)
    order = angle.argsort(1)
    around = offset.masked_fill(~used[..., None], 0.0).gather(1, order[..., None].expand_as(offset))
    return around, used.sum(1)


def _fan_area(around: Tensor) -> Tensor:
    """f64[p]: what the triangles from the origin to each two neighbours of f32[p, 24, 2] cover."""
    return _cross(around[:, :-1], around[:, 1:]).abs().double().sum(1) / 2


def _hull(around: Tensor, count: Tensor) -> Tensor:
    """Of points by angle around the origin, f32[p, 24, 2], those on the convex hull; the rest is zeros.

    Graham's scan, for all rows at a time: a step either takes the last point off the hull or puts the next
    one on.
    """
    rows, most = torch.arange(len(around), device=around.device), around.shape[1]
    hull = torch.cat((torch.zeros_like(around[:, :1]), around), dim=1)
    size = torch.where(count > 0, 2, 1)
    following = torch.ones_like(size)
    for _ in range(2 * most):
        active = following < count
        if not bool(active.any()):
            break
        point = around[rows, following.clamp(max=most - 1)]
        before = hull[rows, (size - 2).clamp(min=0)]
        inward = _cross(point - before, hull[rows, size - 1] - before) >= 0
        off = active & (size > 1) & inward
        on = active & ~off
        hull[rows[on], size[on]] = point[on]
        size = size - off.to(size.dtype) + on.to(size.dtype)
        following = following + on.to(following.dtype)
    beyond = torch.arange(most + 1, device=around.device) >= size[:, None]
    return hull.masked_fill(beyond[..., None], 0.0)[:, 1:]
