"""Lowering of `det.*` on points to aten's operators."""

from __future__ import annotations

from detc.ir import Builder, Dim, Node, Value
from detc.passes.core.base import numbers
from detc.passes.rewrite.conversion import LoweringRule

from .common import F32, I64, columns, one_or_cat


def _grid(b: Builder, points: Value) -> Value:
    """Points in [0, 1] as grids have them, in [-1, 1]."""
    return b.aten.sub.Scalar(b.aten.mul.Scalar(points, other=2.0), other=1.0)


def _sample(b: Builder, map: Value, grid: Value) -> Value:
    """Bilinear samples, zero outside."""
    modes = {"interpolation_mode": 0, "padding_mode": 0, "align_corners": False}
    return b.aten.grid_sampler(map, grid, **modes)


def box_point_sample(b: Builder, node: Node) -> Value:
    """One grid per map, whose rows are an image's boxes: as many as the image with the most boxes has."""
    features, boxes, batch_index, points = node.operand_list(0), *(node.operand(i) for i in (1, 2, 3))
    low, high = (b.aten.unsqueeze(columns(b, boxes, i, i + 2, 1), dim=1) for i in (0, 2))  # [R, 1, 2]
    places = b.aten.add.Tensor(b.aten.mul.Tensor(points, b.aten.sub.Tensor(high, low)), low)

    first = b.aten.searchsorted.Tensor(batch_index, batch_index)
    rank = b.aten.sub.Tensor(b.aten.arange(end=batch_index.shape[0], dtype=I64), first)
    last = b.aten.amax(b.aten.cat([rank, b.constant([0], I64)], dim=0), dim=(0,), keepdim=True)
    # Repeating is what turns a number in a tensor into a size.
    row = b.aten.zeros_like(b.aten.repeat_interleave.Tensor(b.aten.add.Scalar(last, other=1)), dtype=F32)
    most = row.shape[0]
    blank = b.aten.reshape(row, shape=(1, most, 1, 1))
    cells = (features[0].shape[0], most, points.shape[1], 2)
    spread = b.aten.index_put(b.aten.expand(blank, size=cells), [batch_index, rank], places)

    sampled: list[Value] = []
    for feature, scale in zip(features, numbers(node, "scales"), strict=True):
        height, width = feature.shape[2:]
        # What the map covers, in pixels of the network's input.
        size = b.aten.stack([_number(b, side) for side in (width, height)], dim=0)
        size = b.aten.mul.Scalar(size, other=1.0 / scale)
        values = _sample(b, feature, _grid(b, b.aten.div.Tensor(spread, size)))  # [N, C, K, P]
        by_box = b.aten.permute(values, dims=(0, 2, 1, 3))
        sampled.append(b.aten.index.Tensor(by_box, [batch_index, rank]))
    return one_or_cat(b, sampled, 1)


def _number(b: Builder, size: Dim) -> Value:
    """A size as f32[]."""
    return b.aten.full(size=(), fill_value=size, dtype=F32)


TABLE: dict[str, LoweringRule] = {"det.box_point_sample": box_point_sample}
