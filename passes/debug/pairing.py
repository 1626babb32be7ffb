"""Pairing detections one to one, by how far their boxes overlap and how near their scores are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Pairing:
    """Detections paired one to one: the same image and class, boxes that overlap, scores that are close.

    The best-overlapping pair is taken first.

    Attributes:
        mine, theirs: role -> tensor, as in `Reference.groups`.
        overlap: the least IoU of two boxes of a pair.
        gap: the largest difference of their scores.
        left, right: the rows of the pairs on either side, in one order.
    """

    mine: Mapping[str, Tensor]
    theirs: Mapping[str, Tensor]
    overlap: float
    gap: float
    left: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        for image, category in self._kinds():
            self._pair(self._rows(self.mine, image, category), self._rows(self.theirs, image, category))

    @property
    def rows(self) -> tuple[Tensor, Tensor]:
        """The matched rows (i64[M]) of the reference, and those of the other result in the same order."""
        left, right = (torch.tensor(rows, dtype=torch.int64) for rows in (self.left, self.right))
        return left, right

    @property
    def left_over(self) -> list[int]:
        """Rows of the reference without a partner."""
        return sorted(set(range(len(self.mine["boxes"]))) - set(self.left))

    @property
    def extra(self) -> list[int]:
        """Rows of the other result without a partner."""
        return sorted(set(range(len(self.theirs["boxes"]))) - set(self.right))

    def _kinds(self) -> list[tuple[int, int]]:
        classes = self.mine.get("classes", torch.zeros_like(self.mine["batch_index"]))
        return sorted(set(zip(self.mine["batch_index"].tolist(), classes.tolist(), strict=True)))

    def _rows(self, side: Mapping[str, Tensor], image: int, category: int) -> Tensor:
        classes = side.get("classes", torch.zeros_like(side["batch_index"]))
        return torch.nonzero((side["batch_index"] == image) & (classes == category))[:, 0]

    def _pair(self, mine: Tensor, theirs: Tensor) -> None:
        if len(mine) == len(theirs) and self._are_pairs(mine, theirs):
            # As a rule the order is the same: a thousand proposals need not all be compared with each other.
            self.left += mine.tolist()
            self.right += theirs.tolist()
            return
        overlap = box_overlap(self.mine["boxes"][mine], self.theirs["boxes"][theirs])
        gap = (self.mine["scores"][mine].double()[:, None] - self.theirs["scores"][theirs].double()).abs()
        near = (overlap >= self.overlap) & (gap <= self.gap)
        rows, columns = (index.tolist() for index in torch.nonzero(near, as_tuple=True))
        ranked = sorted(zip(rows, columns, strict=True), key=lambda p: (-float(overlap[p]), float(gap[p])))
        taken_left: set[int] = set()
        taken_right: set[int] = set()
        for row, column in ranked:
            if row not in taken_left and column not in taken_right:
                taken_left.add(row)
                taken_right.add(column)
                self.left.append(int(mine[row]))
                self.right.append(int(theirs[column]))

    def _are_pairs(self, mine: Tensor, theirs: Tensor) -> bool:
        overlap = pair_overlap(self.mine["boxes"][mine], self.theirs["boxes"][theirs])
        gap = (self.mine["scores"][mine].double() - self.theirs["scores"][theirs].double()).abs()
        return bool(((overlap >= self.overlap) & (gap <= self.gap)).all())


def box_overlap(left: Tensor, right: Tensor) -> Tensor:
    """IoU (f64[A,B]) of boxes [A,4] and [B,4]; of rotated boxes [.,5] 1 where all five are within 0.1."""
    return pair_overlap(left[:, None], right[None])


def pair_overlap(left: Tensor, right: Tensor) -> Tensor:
    """IoU of boxes that broadcast against each other."""
    a, b = left.double(), right.double()
    apart = (a - b).abs()
    if left.shape[-1] != 4:
        turned = (apart[..., 4:] + 180.0) % 360.0 - 180.0
        return (torch.cat((apart[..., :4], turned.abs()), dim=-1) <= 0.1).all(dim=-1).double()
    size = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    shared = size.prod(dim=-1)
    union = (a[..., 2:] - a[..., :2]).prod(dim=-1) + (b[..., 2:] - b[..., :2]).prod(dim=-1) - shared
    # A box without area overlaps nothing, and the rounding of a thin one is much of it: what is within a thousandth
    # of a pixel on all sides is the same box.
    same = (apart <= 1e-3).all(dim=-1)
    return torch.where(same, 1.0, torch.where(union > 0, shared / union, 0.0))


def mask_overlap(left: Tensor, right: Tensor) -> Tensor:
    """IoU (f64[D]) of masks [D,...], row by row. Probabilities are cut at 0.5; empty masks overlap fully."""
    a, b = ((m if m.dtype is torch.bool else m >= 0.5).flatten(1) for m in (left, right))
    union = (a | b).sum(dim=1).double()
    return torch.where(union > 0, (a & b).sum(dim=1).double() / union, 1.0)
