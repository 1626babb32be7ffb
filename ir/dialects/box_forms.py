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
from torchvision.ops import batched_nms

from ..dims import Dim
from ..errors import IRError
from .rotated_kernels import batched_nms_rotated

UPRIGHT_WITHIN = 1.0
"""Boxes turned by at most this many degrees are clipped to their image; there is no one way to clip the others."""


@dataclass(frozen=True)
class BoxForm:
    """One way to write a box.

    Attributes:
        columns: how many numbers a box is.
        move: boxes [...,columns] by (x, y) [...,2].
        decode: deltas [...,columns], divided by their weights, the boxes that they move, and the scale clamp -> boxes.
        clip: cuts boxes [...,columns] to their images; the bounds (width, height, width, height) broadcast.
        rescale: boxes [R,columns] by factors (x, y) [R,2].
        sides: width and height [...,2] of boxes.
        nms: boxes, scores and groups to the rows kept of each group at a threshold, by falling score.
    """

    columns: int
    move: Callable[[Tensor, Tensor], Tensor]
    decode: Callable[[Tensor, Tensor, float], Tensor]
    clip: Callable[[Tensor, Tensor], Tensor]
    rescale: Callable[[Tensor, Tensor], Tensor]
    sides: Callable[[Tensor], Tensor]
    nms: Callable[[Tensor, Tensor, Tensor, float], Tensor]


def _move(boxes: Tensor, xy: Tensor) -> Tensor:
    return torch.cat((xy, xy), dim=-1) + boxes


def _decode(deltas: Tensor, boxes: Tensor, scale_clamp: float) -> Tensor:
    size = boxes[..., 2:] - boxes[..., :2]
    centre = deltas[..., :2] * size + (boxes[..., :2] + 0.5 * size)
    half = 0.5 * (torch.exp(deltas[..., 2:].clamp(max=scale_clamp)) * size)
    return torch.cat((centre - half, centre + half), dim=-1)


def clip(boxes: Tensor, whwh: Tensor) -> Tensor:
    """Upright boxes cut to their images. whwh: each box's bound, broadcast against the boxes."""
    return torch.minimum(boxes.clamp(min=0), whwh)


def _rescale(boxes: Tensor, factors: Tensor) -> Tensor:
    return boxes * torch.cat((factors, factors), dim=1)


UPRIGHT = BoxForm(
    4, _move, _decode, clip, _rescale, lambda boxes: boxes[..., 2:] - boxes[..., :2], batched_nms
)
"""Boxes x0 y0 x1 y1. One suppresses those that it overlaps with an IoU greater than the threshold."""


def _move_rotated(boxes: Tensor, xy: Tensor) -> Tensor:
    centre = xy + boxes[..., :2]
    return torch.cat((centre, boxes[..., 2:].expand(*centre.shape[:-1], 3)), dim=-1)


def _normalized(angle: Tensor) -> Tensor:
    """Degrees brought into [-180, 180)."""
    return (angle + 180.0) % 360.0 - 180.0


def _decode_rotated(deltas: Tensor, boxes: Tensor, scale_clamp: float) -> Tensor:
    centre, size, angle = boxes[..., :2], boxes[..., 2:4], boxes[..., 4:]
    moved = deltas[..., :2] * size + centre
    grown = torch.exp(deltas[..., 2:4].clamp(max=scale_clamp)) * size
    turned = _normalized(deltas[..., 4:] * (180.0 / math.pi) + angle)
    return torch.cat((moved, grown, turned), dim=-1)


def _clip_rotated(boxes: Tensor, whwh: Tensor) -> Tensor:
    """Angles are normalized, and the boxes that are nearly upright then are cut; no side grows."""
    bound = whwh[..., :2]
    centre, size, angle = boxes[..., :2], boxes[..., 2:4], _normalized(boxes[..., 4:])
    low = torch.minimum((centre - size / 2).clamp(min=0), bound)
    high = torch.minimum((centre + size / 2).clamp(min=0), bound)
    cut = torch.cat(((low + high) / 2, torch.minimum(size, high - low), angle), dim=-1)
    return torch.where(angle.abs() <= UPRIGHT_WITHIN, cut, torch.cat((centre, size, angle), dim=-1))


def _rescale_rotated(boxes: Tensor, factors: Tensor) -> Tensor:
    """Unequal factors would shear a box: it becomes the rectangle with the sheared one's side lengths whose height
    keeps its direction."""
    theta = boxes[:, 4:] * (math.pi / 180.0)
    cos, sin = torch.cos(theta), torch.sin(theta)
    across, down = (factors * torch.cat(turned, dim=1) for turned in ((cos, sin), (sin, cos)))
    lengths = [(side * side).sum(dim=1, keepdim=True).sqrt() for side in (across, down)]
    angle = torch.atan2(down[:, :1], down[:, 1:]) * (180.0 / math.pi)
    return torch.cat((boxes[:, :2] * factors, boxes[:, 2:4] * torch.cat(lengths, dim=1), angle), dim=1)


ROTATED = BoxForm(
    5,
    _move_rotated,
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
