"""How regression outputs ("deltas") move boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError

DEFAULT_SCALE_CLAMP = math.log(1000.0 / 16)
"""The largest dw and dh that are taken as they are: a side grows by a factor of 62.5 at most."""


class Box2BoxTransform:
    """Deltas (dx, dy, dw, dh) of R-CNN (arXiv 1311.2524): shifts of the centre in sides, logarithms of side
    ratios.
    """

    def __init__(self, weights: tuple[float, ...], scale_clamp: float = DEFAULT_SCALE_CLAMP) -> None:
        """
        Args:
            weights: the factors by which dx, dy, dw, dh were multiplied in training.
            scale_clamp: the upper limit of dw and dh after division by their weights.
        """
        self.weights = weights
        self.scale_clamp = scale_clamp

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Move boxes.

        Args:
            deltas: [N, 4 * K], K groups of deltas for each box.
            boxes: [N, 4], x0, y0, x1, y1.

        Returns:
            float32[N, 4 * K], x0, y0, x1, y1.
        """
        deltas = deltas.float()
        boxes = boxes.to(deltas.dtype)
        width = (boxes[:, 2] - boxes[:, 0])[:, None]
        height = (boxes[:, 3] - boxes[:, 1])[:, None]
        centre_x = boxes[:, 0, None] + 0.5 * width
        centre_y = boxes[:, 1, None] + 0.5 * height
        wx, wy, ww, wh = self.weights
        dw = torch.clamp(deltas[:, 2::4] / ww, max=self.scale_clamp)
        dh = torch.clamp(deltas[:, 3::4] / wh, max=self.scale_clamp)
        x = deltas[:, 0::4] / wx * width + centre_x
        y = deltas[:, 1::4] / wy * height + centre_y
        half_width = 0.5 * (torch.exp(dw) * width)
        half_height = 0.5 * (torch.exp(dh) * height)
        moved = torch.stack((x - half_width, y - half_height, x + half_width, y + half_height), dim=-1)
        return moved.reshape(deltas.shape)


class Box2BoxTransformRotated:
    """Deltas (dx, dy, dw, dh, da) of rotated boxes; da is the change of the angle in radians."""

    def __init__(self, weights: tuple[float, ...], scale_clamp: float = DEFAULT_SCALE_CLAMP) -> None:
        """As `Box2BoxTransform`, with a fifth weight for da."""
        self.weights = weights
        self.scale_clamp = scale_clamp

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Move boxes.

        Args:
            deltas: [N, 5 * K], K groups of deltas for each box.
            boxes: [N, 5], centre x, centre y, width, height, angle in degrees.

        Returns:
            [N, 5 * K] of the same form, with angles in [-180, 180).
        """
        boxes = boxes.to(deltas.dtype)
        centre_x, centre_y, width, height, angle = boxes[:, :, None].unbind(1)
        wx, wy, ww, wh, wa = self.weights
        dw = torch.clamp(deltas[:, 2::5] / ww, max=self.scale_clamp)
        dh = torch.clamp(deltas[:, 3::5] / wh, max=self.scale_clamp)
        turned = deltas[:, 4::5] / wa * 180.0 / math.pi + angle
        moved = torch.stack(
            (
                deltas[:, 0::5] / wx * width + centre_x,
                deltas[:, 1::5] / wy * height + centre_y,
                torch.exp(dw) * width,
                torch.exp(dh) * height,
                (turned + 180.0) % 360.0 - 180.0,
            ),
            dim=-1,
        )
        return moved.reshape(deltas.shape)


class Box2BoxTransformLinear:
    """FCOS's deltas (arXiv 1904.01355): distances from the box's centre to the left, top, right and bottom
    sides.
    """

    def __init__(self, normalize_by_size: bool = True) -> None:
        """With `normalize_by_size` the distances are in sides of the box, else in pixels."""
        self.normalize_by_size = normalize_by_size

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Move boxes.

        Args:
            deltas: [N, 4 * K], K groups of distances for each box; negative ones count as 0.
            boxes: [N, 4], x0, y0, x1, y1.

        Returns:
            [N, 4 * K], x0, y0, x1, y1.
        """
        deltas = F.relu(deltas)
        boxes = boxes.to(deltas.dtype)
        x = (0.5 * (boxes[:, 0] + boxes[:, 2]))[:, None]
        y = (0.5 * (boxes[:, 1] + boxes[:, 3]))[:, None]
        left, top, right, bottom = (deltas[:, side::4] for side in range(4))
        if self.normalize_by_size:
            width = (boxes[:, 2] - boxes[:, 0])[:, None]
            height = (boxes[:, 3] - boxes[:, 1])[:, None]
            left, top, right, bottom = left * width, top * height, right * width, bottom * height
        moved = torch.stack((x - left, y - top, x + right, y + bottom), dim=-1)
        return moved.reshape(deltas.shape)


Transform = Box2BoxTransform | Box2BoxTransformRotated | Box2BoxTransformLinear


def as_weights(weights: Sequence[float], count: int, key: str) -> tuple[float, ...]:
    """A config's regression weights as a tuple of `count` floats.

    Raises:
        InputError: there is another number of them; the message names the config key.
    """
    if len(weights) != count:
        raise InputError(f"{key} must have {count} numbers, not {list(weights)}")
    return tuple(float(weight) for weight in weights)
