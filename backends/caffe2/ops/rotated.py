"""Overlap of rotated boxes, f32[..., 5]: center x, center y, width, height in pixels, angle in degrees.

Source: Caffe2's `generate_proposals_op_util_nms.h`. Corner and crossing points are found by the same float32
    formulas; the area of their hull is summed over the points sorted by angle, since all of them lie on the
    hull.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

_SAME_POINT: Final = 1e-5
_PARALLEL: Final = 1e-14
_DEGREES: Final = 0.01745329251
_BLOCK: Final = 1 << 16
"""How many pairs are compared at a time, to bound the memory: a pair needs about 1 kB."""


def overlapping_pairs(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Rows i < j, i64[p] each, of f32[n, 5] boxes whose enclosing circles touch: only they can overlap."""
    radius = torch.hypot(boxes[:, 2], boxes[:, 3]) / 2
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
    area = _hull_area(points, valid)
    area[valid.sum(1) <= 2] = 0

    same = ((corners1 - corners2).abs() <= _SAME_POINT).flatten(1).all(1)
    smaller = torch.minimum(first[:, 2] * first[:, 3], second[:, 2] * second[:, 3])
    return torch.where(same, smaller.double(), area)


def _hull_area(points: Tensor, valid: Tensor) -> Tensor:
    """f64[p] areas of convex polygons, from their corners f32[p, 24, 2], in any order, some valid."""
    # The lowest point, and of the lowest the leftmost, starts the fan of triangles.
    y = points[..., 1].masked_fill(~valid, math.inf)
    lowest = y == y.amin(1, keepdim=True)
    x = points[..., 0].masked_fill(~(valid & lowest), math.inf)
    start = x.argmin(1)
    offset = points - points[torch.arange(len(points), device=points.device), start][:, None]
    distance = offset.square().sum(-1)
    # Copies of the start come first, invalid points last and in the start, where they span no triangle.
    angle = torch.atan2(offset[..., 1], offset[..., 0]).masked_fill(distance <= 1e-8, -1.0)
    angle = angle.masked_fill(~valid, math.inf)
    offset = offset.masked_fill(~valid[..., None], 0.0)
    order = angle.argsort(1)
    around = offset.gather(1, order[..., None].expand_as(offset))
    return _cross(around[:, :-1], around[:, 1:]).abs().double().sum(1) / 2
