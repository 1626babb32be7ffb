"""Anchor generators: the boxes that a dense head's outputs are relative to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detc.ir.structures import Boxes, RotatedBoxes

from ..errors import InputError


class BufferList(nn.Module):
    """A list of buffers, which are not part of a checkpoint."""

    def __init__(self, buffers: Sequence[Tensor]) -> None:
        super().__init__()
        for index, buffer in enumerate(buffers):
            self.register_buffer(str(index), buffer, persistent=False)

    def __len__(self) -> int:
        return len(list(self.buffers()))

    def __iter__(self) -> Iterator[Tensor]:
        for _, buffer in self.named_buffers():
            yield buffer


def _per_level(values: Sequence[Any], num_features: int, name: str) -> list[Sequence[float]]:
    """One list of values per level; a flat list, or a list of one list, holds for all levels."""
    if not isinstance(values, list | tuple) or len(values) == 0:
        raise InputError(f"ANCHOR_GENERATOR.{name} must be a list that is not empty, not {values!r}")
    if not isinstance(values[0], list | tuple):
        return [values] * num_features
    if len(values) == 1:
        return list(values) * num_features
    if len(values) != num_features:
        raise InputError(f"ANCHOR_GENERATOR.{name} has {len(values)} lists for {num_features} feature levels")
    return list(values)


def _grid_shifts(size: Sequence[int], stride: int, offset: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """x and y of the cells of a feature map (height, width), in pixels, row by row."""
    height, width = size
    x = torch.arange(offset * stride, width * stride, step=stride, dtype=torch.float32, device=like.device)
    y = torch.arange(offset * stride, height * stride, step=stride, dtype=torch.float32, device=like.device)
    shift_y, shift_x = torch.meshgrid(y, x, indexing="ij")
    return shift_x.reshape(-1), shift_y.reshape(-1)


def _sides(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Width and height of a box of area size**2 and height / width = aspect ratio, for every pair."""
    for size in sizes:
        for aspect_ratio in aspect_ratios:
            width = math.sqrt(size**2.0 / aspect_ratio)
            yield width, aspect_ratio * width


class _AnchorGenerator(nn.Module):
    """What both generators share; `cell_anchors` holds each level's anchors about the origin."""

    box_dim: int

    def __init__(self, strides: Sequence[int], offset: float, cell_anchors: list[Tensor]) -> None:
        super().__init__()
        if not 0.0 <= offset < 1.0:
            raise InputError(f"ANCHOR_GENERATOR.OFFSET must be in [0, 1), not {offset}")
        self.strides = list(strides)
        self.num_features = len(self.strides)
        self.offset = offset
        self.cell_anchors = BufferList(cell_anchors)

    @property
    def num_anchors(self) -> list[int]:
        """Anchors per cell, for each level."""
        return [len(anchors) for anchors in self.cell_anchors]

    @property
    def num_cell_anchors(self) -> list[int]:
        """Another name of `num_anchors`."""
        return self.num_anchors

    def _grid_anchors(self, grid_sizes: Sequence[Sequence[int]]) -> list[Tensor]:
        """For each level the anchors at every cell, [height * width * anchors, box_dim], cell by cell."""
        anchors = []
        for size, stride, base in zip(grid_sizes, self.strides, self.cell_anchors, strict=True):
            shift_x, shift_y = _grid_shifts(size, stride, self.offset, base)
            shifts = self._shifts(shift_x, shift_y)
            anchors.append((shifts[:, None, :] + base[None, :, :]).reshape(-1, self.box_dim))
        return anchors

    def _shifts(self, shift_x: Tensor, shift_y: Tensor) -> Tensor:
        raise NotImplementedError


class DefaultAnchorGenerator(_AnchorGenerator):
    """Axis-aligned anchors of given sizes and aspect ratios."""

    box_dim = 4

    def __init__(
        self,
        *,
        sizes: Sequence[Any],
        aspect_ratios: Sequence[Any],
        strides: Sequence[int],
        offset: float = 0.5,
    ) -> None:
        """
        Args:
            sizes: square roots of the anchors' areas in pixels, for each level (or one list for all).
            aspect_ratios: height / width, for each level (or one list for all).
            strides: each level's stride in pixels.
            offset: where in its cell an anchor's centre lies, in strides: 0 is the top left corner.
        """
        levels = zip(
            _per_level(sizes, len(strides), "SIZES"),
            _per_level(aspect_ratios, len(strides), "ASPECT_RATIOS"),
            strict=True,
        )
        super().__init__(strides, offset, [self.generate_cell_anchors(s, a) for s, a in levels])

    def generate_cell_anchors(
        self,
        sizes: Sequence[float] = (32, 64, 128, 256, 512),
        aspect_ratios: Sequence[float] = (0.5, 1, 2),
    ) -> Tensor:
        """float32[len(sizes) * len(aspect_ratios), 4]: x0, y0, x1, y1 about the origin."""
        return torch.tensor(
            [[-w / 2.0, -h / 2.0, w / 2.0, h / 2.0] for w, h in _sides(sizes, aspect_ratios)],
            dtype=torch.float32,
        )

    def _shifts(self, shift_x: Tensor, shift_y: Tensor) -> Tensor:
        return torch.stack((shift_x, shift_y, shift_x, shift_y), dim=1)

    def forward(self, features: Sequence[Tensor]) -> list[Boxes]:
        """Anchors for feature maps [N, C, H, W]: for each level H * W * anchors boxes, cell by cell."""
        return [
            Boxes(anchors) for anchors in self._grid_anchors([feature.shape[-2:] for feature in features])
        ]


class RotatedAnchorGenerator(_AnchorGenerator):
    """Rotated anchors of given sizes, aspect ratios and angles (arXiv 1703.01086)."""

    box_dim = 5

    def __init__(
        self,
        *,
        sizes: Sequence[Any],
        aspect_ratios: Sequence[Any],
        strides: Sequence[int],
        angles: Sequence[Any],
        offset: float = 0.5,
    ) -> None:
        """As `DefaultAnchorGenerator`, with `angles` in degrees counter-clockwise for each level (or one
        list).
        """
        levels = zip(
            _per_level(sizes, len(strides), "SIZES"),
            _per_level(aspect_ratios, len(strides), "ASPECT_RATIOS"),
            _per_level(angles, len(strides), "ANGLES"),
            strict=True,
        )
        super().__init__(strides, offset, [self.generate_cell_anchors(s, r, a) for s, r, a in levels])

    def generate_cell_anchors(
        self,
        sizes: Sequence[float] = (32, 64, 128, 256, 512),
        aspect_ratios: Sequence[float] = (0.5, 1, 2),
        angles: Sequence[float] = (-90, -60, -30, 0, 30, 60, 90),
    ) -> Tensor:
        """float32[sizes * aspect_ratios * angles, 5]: centre (0, 0), width, height, angle."""
        return torch.tensor(
            [[0.0, 0.0, w, h, angle] for w, h in _sides(sizes, aspect_ratios) for angle in angles],
            dtype=torch.float32,
        )

    def _shifts(self, shift_x: Tensor, shift_y: Tensor) -> Tensor:
        zeros = torch.zeros_like(shift_x)
        return torch.stack((shift_x, shift_y, zeros, zeros, zeros), dim=1)

    def forward(self, features: Sequence[Tensor]) -> list[RotatedBoxes]:
        """Anchors for feature maps [N, C, H, W]: for each level H * W * anchors boxes, cell by cell."""
        grid_sizes = [feature.shape[-2:] for feature in features]
        return [RotatedBoxes(anchors) for anchors in self._grid_anchors(grid_sizes)]
