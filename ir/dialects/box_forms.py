"""The two ways to write a box, and what `det.*` does otherwise with the one than with the other.

Upright boxes are f32[R,4], rows (x0, y0, x1, y1); rotated ones f32[R,5], rows (centre x, centre y, width, height,
angle), the angle in degrees, counter-clockwise as seen, with y pointing down. Formulas and conventions are detectron2's
(modeling/box_regression.py, structures/boxes.py and rotated_boxes.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..dims import Dim
from ..errors import IRError
from ..instances import UPRIGHT_WITHIN
from ..lazy import torchvision
from .rotated_kernels import batched_nms_rotated


@dataclass(frozen=True)
class BoxForm:
    """One way to write a box.

    Attributes:
        columns: how many numbers a box is.
        move: boxes [...,columns] by (x, y) [...,2].
        parts: boxes [...,columns] as their centres [...,2] and the rest [...,columns-2]: size and, rotated, angle.
        decode: deltas [...,columns], divided by their weights, and the parts of what they move -> boxes.
        clip: cuts boxes [...,columns] to their images; the bounds (width, height, width, height) broadcast.
        rescale: boxes [R,columns] by factors (x, y, x, y) [R,4].
        sides: width and height [...,2] of boxes.
        nms: boxes, scores and groups to the rows kept of each group at a threshold, by falling score.
    """

    columns: int
    move: Callable[[Tensor, Tensor], Tensor]
    parts: Callable[[Tensor], tuple[Tensor, Tensor]]
    decode: Callable[..., Tensor]
    clip: Callable[[Tensor, Tensor], Tensor]
    rescale: Callable[[Tensor, Tensor], Tensor]
    sides: Callable[[Tensor], Tensor]
    nms: Callable[[Tensor, Tensor, Tensor, float], Tensor]


def _move(boxes: Tensor, xy: Tensor) -> Tensor:
    return torch.cat((xy, xy), dim=-1) + boxes


def _parts(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = torch.split(boxes, 2, dim=-1)
    size = high - low
    return low + size * 0.5, size


def _decode(deltas: Tensor, centre: Tensor, size: Tensor, *, scale_clamp: float) -> Tensor:
    move, grow = torch.split(deltas, 2, dim=-1)
    centre = move * size + centre
    half = torch.exp(grow.clamp(max=scale_clamp)) * (size * 0.5)
    return torch.cat((centre - half, centre + half), dim=-1)


def _clip(boxes: Tensor, whwh: Tensor) -> Tensor:
    return torch.minimum(boxes.clamp(min=0), whwh)


def _rescale(boxes: Tensor, factors: Tensor) -> Tensor:
    return boxes * factors


def _sides(boxes: Tensor) -> Tensor:
    low, high = torch.split(boxes, 2, dim=-1)
    return high - low


def _nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    kept: Tensor = torchvision.ops.batched_nms(boxes, scores, groups, threshold)
    return kept


UPRIGHT = BoxForm(4, _move, _parts, _decode, _clip, _rescale, _sides, _nms)
"""Boxes x0 y0 x1 y1. One suppresses those that it overlaps with an IoU greater than the threshold."""


def _move_rotated(boxes: Tensor, xy: Tensor) -> Tensor:
    centre = xy + boxes[..., :2]
    return torch.cat((centre, boxes[..., 2:].expand(*centre.shape[:-1], 3)), dim=-1)


def _normalized(angle: Tensor) -> Tensor:
    """Degrees brought into [-180, 180)."""
    return (angle + 180.0) % 360.0 - 180.0


def _parts_rotated(boxes: Tensor) -> tuple[Tensor, Tensor]:
    centre, rest = torch.split(boxes, [2, 3], dim=-1)
    return centre, rest


def _decode_rotated(deltas: Tensor, centre: Tensor, rest: Tensor, *, scale_clamp: float) -> Tensor:
    move, grow, turn = torch.split(deltas, [2, 2, 1], dim=-1)
    size, angle = torch.split(rest, [2, 1], dim=-1)
    grown = torch.exp(grow.clamp(max=scale_clamp)) * size
    turned = _normalized(turn * (180.0 / math.pi) + angle)
    return torch.cat((move * size + centre, grown, turned), dim=-1)


def _clip_rotated(boxes: Tensor, whwh: Tensor) -> Tensor:
    """Angles are normalized, and the boxes that are nearly upright then are cut; no side grows."""
    bound = whwh[..., :2]
    centre, size, angle = torch.split(boxes, [2, 2, 1], dim=-1)
    half, angle = size * 0.5, _normalized(angle)
    low, high = (torch.minimum(side.clamp(min=0), bound) for side in (centre - half, centre + half))
    cut = torch.cat(((low + high) * 0.5, torch.minimum(size, high - low), angle), dim=-1)
    return torch.where(angle.abs() <= UPRIGHT_WITHIN, cut, torch.cat((centre, size, angle), dim=-1))


def _rescale_rotated(boxes: Tensor, factors: Tensor) -> Tensor:
    """Unequal factors would shear a box: it becomes the rectangle with the sheared one's side lengths whose height
    keeps its direction."""
    centre, size, angle = torch.split(boxes, [2, 2, 1], dim=1)
    factors, theta = factors[:, :2], angle * (math.pi / 180.0)
    cos, sin = torch.cos(theta), torch.sin(theta)
    across, down = (factors * torch.cat(turned, dim=1) for turned in ((cos, sin), (sin, cos)))
    lengths = [(side * side).sum(dim=1, keepdim=True).sqrt() for side in (across, down)]
    turned = torch.atan2(*torch.split(down, 1, dim=1)) * (180.0 / math.pi)
    return torch.cat((centre * factors, size * torch.cat(lengths, dim=1), turned), dim=1)


ROTATED = BoxForm(
    5,
    _move_rotated,
    _parts_rotated,
    _decode_rotated,
    _clip_rotated,
    _rescale_rotated,
    lambda boxes: boxes[..., 2:4],
    batched_nms_rotated,
)
"""Boxes (centre x, centre y, width, height, angle). One suppresses those whose true overlap with it is an IoU of the
threshold or more."""

FORMS = {form.columns: form for form in (UPRIGHT, ROTATED)}


def form_of(boxes: Tensor) -> BoxForm:
    """The form of boxes [...,columns]."""
    return FORMS[boxes.shape[-1]]


def box_columns(shape: Sequence[Dim], classes: Dim = 1) -> int:
    """The columns of one box where rows of `shape` hold a box, or a box for each of several classes.

    Errors:
        IRError: they hold neither.
    """
    for columns in FORMS:
        if shape[-1] in (columns, columns * classes):
            return columns
    known = " or ".join(map(str, FORMS))
    wanted = (
        f"are not boxes of {known}"
        if classes == 1
        else f"hold neither a box of {known} nor {classes} of them"
    )
    raise IRError(f"rows of {shape[-1]} columns {wanted}")
