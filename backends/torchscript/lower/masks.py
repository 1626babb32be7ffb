"""Lowering of `det.*` on masks to aten's operators."""

from __future__ import annotations

from detc.ir import Builder, Node, Value
from detc.passes.core.base import number
from detc.passes.rewrite.conversion import LoweringRule

from .common import columns, known


def paste_masks(b: Builder, node: Node) -> Value:
    """Bilinear resampling into a box is separable: rows x mask x columns, two matrix products for all masks.

    A pixel's weight for a mask's row or column is the hat function of their distance, which is zero beyond one.
    """
    masks, boxes, _, output_size = (node.operand(i) for i in range(4))
    height, width = (known(size, "the masks' size") for size in masks.shape[2:])
    largest = b.aten.amax(output_size, dim=(0,))  # [2]: height, width

    def weights(axis: int, cells: int) -> Value:
        """[D, pixels, cells], along y (axis 0) or x."""
        # Repeating is what turns a number in a tensor into a size.
        pixels = b.aten.repeat_interleave.Tensor(columns(b, largest, axis, axis + 1, 0))
        count = b.aten.cumsum(b.aten.ones_like(pixels, dtype=boxes.dtype), dim=0)
        pixels = b.aten.sub.Scalar(count, other=0.5)
        low, high = (columns(b, boxes, i, i + 1, 1) for i in (1 - axis, 3 - axis))  # [D, 1]
        scale = b.aten.reciprocal(b.aten.sub.Tensor(high, low))
        place = b.aten.mul.Tensor(b.aten.sub.Tensor(pixels, low), b.aten.mul.Scalar(scale, other=cells))
        centres = b.constant([c + 0.5 for c in range(cells)], boxes.dtype)
        distance = b.aten.abs(b.aten.sub.Tensor(b.aten.unsqueeze(place, dim=2), centres))
        return b.aten.clamp_min(b.aten.rsub.Scalar(distance, other=1), min=0.0)

    rows, columns_ = weights(0, height), weights(1, width)
    drawn = b.aten.bmm(
        b.aten.bmm(rows, b.aten.squeeze.dim(masks, dim=1)), b.aten.transpose.int(columns_, dim0=1, dim1=2)
    )
    return b.aten.ge.Scalar(drawn, other=number(node, "threshold"))


TABLE: dict[str, LoweringRule] = {"det.paste_masks": paste_masks}
