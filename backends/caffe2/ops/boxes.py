"""Box arithmetic that several operators share: decoding, clipping, suppression.

Upright boxes are f32[..., 4] (x0, y0, x1, y1), rotated ones f32[..., 5] (center x, center y, width, height,
angle in degrees, counter-clockwise), all in pixels. With `legacy_plus_one` a box from x0 to x1 is x1 - x0 + 1
wide, as in the first Detectron. Source: Caffe2's `generate_proposals_op_util_boxes.h` and
`generate_proposals_op_util_nms.h`, whose order of float32 operations is kept, since suppression compares
results of it with thresholds.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torchvision.ops import nms as torchvision_nms

from ..errors import InputError
from .rotated import comparable_pairs, rotated_iou

LOG_SIZE_LIMIT: Final = math.log(1000.0 / 16.0)
"""The largest growth of a side in one decoding step, as a logarithm."""


def as_float32(value: float) -> float:
    """The nearest float32, which is what an operator's argument is once it is in a net."""
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded


def decode(
    boxes: Tensor,
    deltas: Tensor,
    *,
    weights: Sequence[float],
    legacy_plus_one: bool,
    angle_bound_on: bool,
    angle_bound_lo: int,
    angle_bound_hi: int,
) -> Tensor:
    """Boxes moved and scaled by regression deltas.

    `boxes` and `deltas` are f32[..., 4] or f32[..., 5] and broadcast; `weights` divide the first four deltas;
    the delta of an angle is in radians. Angles are brought into the bounds by one period at most.
    """
    dx, dy, dw, dh = (deltas[..., i] / weights[i] for i in range(4))
    scale_w = dw.clamp(max=LOG_SIZE_LIMIT).exp()
    scale_h = dh.clamp(max=LOG_SIZE_LIMIT).exp()
    if boxes.shape[-1] == 4:
        one = float(legacy_plus_one)
        x0, y0, x1, y1 = boxes.unbind(-1)
        width, height = x1 - x0 + one, y1 - y0 + one
        center_x = dx * width + (x0 + 0.5 * width)
        center_y = dy * height + (y0 + 0.5 * height)
        half_w, half_h = 0.5 * (scale_w * width), 0.5 * (scale_h * height)
        return _boxes(center_x - half_w, center_y - half_h, center_x + half_w - one, center_y + half_h - one)
    x, y, width, height, angle = boxes.unbind(-1)
    angle = deltas[..., 4] * 180.0 / math.pi + angle
    if angle_bound_on:
        period = angle_bound_hi - angle_bound_lo
        if period <= 0 or period % 180 != 0:
            raise InputError(
                f"angle bounds {angle_bound_lo} to {angle_bound_hi}: not a multiple of 180 degrees"
            )
        shift = (angle < angle_bound_lo).to(angle.dtype) - (angle > angle_bound_hi).to(angle.dtype)
        angle = angle + period * shift
    return _boxes(dx * width + x, dy * height + y, scale_w * width, scale_h * height, angle)


def _boxes(*columns: Tensor) -> Tensor:
    """[..., 4 or 5] of its columns, which stay contiguous: the next step takes them apart again."""
    return torch.stack(columns).movedim(0, -1)


def clip(
    boxes: Tensor, height: Tensor, width: Tensor, *, clip_angle_thresh: float, legacy_plus_one: bool
) -> Tensor:
    """Boxes cut to the image. Of rotated ones only those within `clip_angle_thresh` degrees of upright are.

    `height` and `width` are whole numbers as f32, and broadcast against a column of `boxes`.
    """
    one = float(legacy_plus_one)
    right, bottom = width - one, height - one

    def cut(value: Tensor, limit: Tensor) -> Tensor:
        return torch.minimum(value, limit).clamp(min=0)

    if boxes.shape[-1] == 4:
        x0, y0, x1, y1 = boxes.unbind(-1)
        return _boxes(cut(x0, right), cut(y0, bottom), cut(x1, right), cut(y1, bottom))
    x, y, w, h, angle = boxes.unbind(-1)
    half_w, half_h = (w - one) / 2.0, (h - one) / 2.0
    x0, x1 = cut(x - half_w, right), cut(x + half_w, right)
    y0, y1 = cut(y - half_h, bottom), cut(y + half_h, bottom)
    upright = _boxes((x0 + x1) / 2.0, (y0 + y1) / 2.0, x1 - x0 + one, y1 - y0 + one, angle)
    return torch.where((angle.abs() <= clip_angle_thresh).unsqueeze(-1), upright, boxes)


def sides(boxes: Tensor, *, legacy_plus_one: bool) -> tuple[Tensor, Tensor]:
    """Widths and heights of f32[..., 4 or 5] boxes."""
    if boxes.shape[-1] == 5:
        return boxes[..., 2], boxes[..., 3]
    one = float(legacy_plus_one)
    return boxes[..., 2] - boxes[..., 0] + one, boxes[..., 3] - boxes[..., 1] + one


def nms(boxes: Tensor, threshold: float, *, limit: int = -1, legacy_plus_one: bool) -> Tensor:
    """Greedy suppression of f32[n, 4 or 5] boxes that come best first: i64[k] rows that stay, ascending.

    A box stays if its IoU with every better one that stayed is at most `threshold`. An IoU that is not a
    number suppresses, so that of all boxes without area only the best stays. `limit` >= 0 ends the search
    after so many.
    """
    # What stays of the first boxes does not depend on the others: often twice the limit is enough to find it.
    if limit > 0 and 4 * limit < len(boxes):
        (kept,) = nms_by_group(boxes[: 2 * limit], [2 * limit], threshold, legacy_plus_one=legacy_plus_one)
        if len(kept) >= limit:
            return kept[:limit]
    (kept,) = nms_by_group(boxes, [len(boxes)], threshold, legacy_plus_one=legacy_plus_one)
    return kept[:limit] if limit >= 0 else kept


def nms_by_group(
    boxes: Tensor, sizes: Sequence[int], threshold: float, *, legacy_plus_one: bool
) -> list[Tensor]:
    """`nms` of each group of rows by itself, the groups being `sizes` long: rows of all boxes, per group."""
    threshold = as_float32(threshold)
    width, height = sides(boxes, legacy_plus_one=legacy_plus_one)
    area = width * height
    starts = [0, *itertools.accumulate(sizes)]
    groups = [slice(start, stop) for start, stop in itertools.pairwise(starts)]
    if boxes.shape[-1] == 5:
        kept = [_nms_rotated(boxes[group], threshold) for group in groups]
    elif bool(((width >= 0) & (height >= 0) & area.isfinite()).all()):
        return _nms_upright(boxes, area == 0, groups, threshold, legacy_plus_one)
    else:
        kept = [_nms_row_by_row(boxes[group], area[group], threshold, legacy_plus_one) for group in groups]
    return [rows + group.start for rows, group in zip(kept, groups, strict=True)]


def _nms_upright(
    boxes: Tensor, flat: Tensor, groups: list[slice], threshold: float, legacy_plus_one: bool
) -> list[Tensor]:
    """By torchvision's kernel, which knows no extra pixel, and in which 0 / 0 does not suppress."""
    if legacy_plus_one:
        boxes = boxes + boxes.new_tensor([0.0, 0.0, 1.0, 1.0])
    boxes = boxes.contiguous()
    descending = torch.arange(len(boxes), 0, -1, dtype=torch.float32, device=boxes.device)
    any_flat = bool(flat.any())
    kept = []
    for group in groups:
        if any_flat and int(flat[group].sum()) > 1:
            first_flat = flat[group].to(torch.uint8).argmax() + group.start
            rows = torch.arange(group.start, group.stop, device=boxes.device)
            rows = rows[~flat[group] | (rows == first_flat)]
            kept.append(rows[torchvision_nms(boxes[rows], descending[rows], threshold)])
        else:
            kept.append(torchvision_nms(boxes[group], descending[group], threshold) + group.start)
    return kept


def _nms_row_by_row(boxes: Tensor, area: Tensor, threshold: float, legacy_plus_one: bool) -> Tensor:
    """The definition, for boxes inside out or not finite: no kernel promises anything on those."""
    pending = torch.arange(len(boxes), device=boxes.device)
    kept = []
    while len(pending):
        best, pending = pending[0], pending[1:]
        kept.append(best)
        pending = pending[iou_with(boxes, area, best, pending, legacy_plus_one=legacy_plus_one) <= threshold]
    return torch.stack(kept) if kept else pending


def _nms_rotated(boxes: Tensor, threshold: float) -> Tensor:
    if threshold < 0:
        # Even boxes that do not touch suppress each other.
        return torch.arange(min(len(boxes), 1), device=boxes.device)
    first, second = comparable_pairs(boxes)
    suppresses = ~(rotated_iou(boxes[first], boxes[second]) <= threshold)
    victims: dict[int, list[int]] = {}
    for winner, loser in zip(first[suppresses].tolist(), second[suppresses].tolist(), strict=True):
        victims.setdefault(winner, []).append(loser)
    gone = [False] * len(boxes)
    kept = []
    for row in range(len(boxes)):
        if not gone[row]:
            kept.append(row)
            for loser in victims.get(row, ()):
                gone[loser] = True
    return torch.tensor(kept, dtype=torch.int64, device=boxes.device)


def iou_with(boxes: Tensor, area: Tensor, one: Tensor, others: Tensor, *, legacy_plus_one: bool) -> Tensor:
    """IoU of the box in row `one` with those in rows `others`: f32[n], not a number without area."""
    if boxes.shape[-1] == 5:
        return rotated_iou(boxes[one].expand(len(others), 5), boxes[others])
    extra = float(legacy_plus_one)
    rest, best = boxes[others], boxes[one]
    low = torch.maximum(rest[:, :2], best[:2])
    high = torch.minimum(rest[:, 2:], best[2:])
    width, height = (high - low + extra).clamp(min=0).unbind(-1)
    inter = width * height
    return inter / (area[one] + area[others] - inter)


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    candidates: Tensor,
    *,
    sigma: float,
    overlap_threshold: float,
    score_threshold: float,
    method: str,
    legacy_plus_one: bool,
) -> tuple[Tensor, Tensor]:
    """Suppression that lowers the scores of overlapping boxes, and drops what falls below `score_threshold`.

    `candidates`, i64[m], are the rows of f32[n, 4 or 5] `boxes` that take part; `method` is "linear" or
    "gaussian".

    Returns:
        The rows that stay, in the order in which they were picked, i64[k]; and all scores after lowering,
        f32[n].

    Source: Bodla et al., "Soft-NMS", 2017.
    """
    width, height = sides(boxes, legacy_plus_one=legacy_plus_one)
    area = width * height
    scores = scores.clone()
    pending = candidates
    kept = []
    while len(pending):
        top = int(scores[pending].argmax())
        # Picked by swapping with the head: later ties are broken by the order that leaves behind.
        pending = pending.clone()
        pending[[0, top]] = pending[[top, 0]]
        best, pending = pending[0], pending[1:]
        kept.append(best)
        iou = iou_with(boxes, area, best, pending, legacy_plus_one=legacy_plus_one)
        if method == "linear":
            weight = torch.where(iou > overlap_threshold, 1.0 - iou, 1.0)
        else:
            weight = (-(iou.double() ** 2) / sigma).exp().to(iou.dtype)
        scores[pending] *= weight
        pending = pending[scores[pending] >= score_threshold]
    return (torch.stack(kept) if kept else pending), scores
