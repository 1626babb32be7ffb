"""Sampling of maps at points, and what PointRend does with it, as Caffe2's operators.

RoIAlign of a roi without area is a bilinear sample at its corner, if it takes one sample. It clamps points beside the
map to its border; a border of zeros around the map makes it fade to zero there, as `det.point_sample` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from detc.ir import Constant, Node, Value
from detc.passes.core.base import NoMatch, integer, numbers
from detc.passes.rewrite.conversion import LoweringRule
from detc.passes.rewrite.lowering_rules import RuleTable

from .builder import FLOAT, INT32, Caffe2Builder, whole

ATEN = RuleTable()


def point_sample(b: Caffe2Builder, node: Node) -> Value:
    """Each row's own map at its points."""
    maps, points = node.operand(0), node.operand(1)
    height, width = (whole(size, "the size of the maps") for size in maps.shape[2:])
    places = b.caffe2.Mul(points, b.constant(torch.tensor([float(width), float(height)])))
    return _sampled(b, maps, places, b.caffe2.Cast(b.row_numbers(_row(b, maps)), to=FLOAT), 1.0)


def _row(b: Caffe2Builder, value: Value) -> Value:
    """f32[n] for a value of n rows."""
    return b.zeros(value.shape[0])


def box_point_sample(b: Caffe2Builder, node: Node) -> Value:
    """The images' maps at points within boxes."""
    features, boxes, index, points = (
        node.operand_list(0),
        node.operand(1),
        node.operand(2),
        node.operand(3),
    )
    near, far = b.columns(boxes, 0, 2), b.columns(boxes, 2, 4)
    size = b.caffe2.ExpandDims(b.caffe2.Sub(far, near), dims=(1,))
    places = b.caffe2.Add(b.caffe2.Mul(points, size), b.caffe2.ExpandDims(near, dims=(1,)))
    image = None if features[0].shape[0] == 1 else b.cast(index, torch.float32)
    return b.concat(
        [
            _sampled(b, feature, places, image, scale)
            for feature, scale in zip(features, numbers(node, "scales"), strict=True)
        ],
        1,
    )


def _sampled(b: Caffe2Builder, maps: Value, places: Value, image: Value | None, scale: float) -> Value:
    """f32[n,C,P]: maps f32[N,C,h,w] at places f32[n,P,2] in pixels, of the maps that f32[n] `image` names."""
    count = whole(places.shape[1], "the number of points")
    channels = whole(maps.shape[1], "the number of channels")
    padded = b.caffe2.PadImage(maps, pads=(1, 1, 1, 1), mode="constant", value=0.0)
    moved = b.caffe2.Add(places, b.constant(torch.tensor([1.0 / scale])))
    parts = [moved, moved]
    if image is not None:
        column = b.caffe2.ExpandDims(image, dims=(1, 2))
        parts.insert(0, b.caffe2.Add(column, b.constant(torch.zeros(1, count, 1))))
    rois, _ = b.caffe2.Reshape(b.concat(parts, 2), shape=(-1, 4 if image is None else 5))
    sampled = b.caffe2.RoIAlign(
        padded,
        rois,
        order="NCHW",
        spatial_scale=scale,
        pooled_h=1,
        pooled_w=1,
        sampling_ratio=1,
        aligned=True,
    )
    rows, _ = b.caffe2.Reshape(sampled, shape=(-1, count, channels))
    return b.caffe2.Transpose(rows, axes=(0, 2, 1))


def class_logits(b: Caffe2Builder, node: Node) -> Value:
    """Row i * K + k of the maps, one below the other, is what image i has for class k."""
    logits, classes = node.operand(0), node.operand(1)
    count, *inner = (whole(size, "the size of the maps") for size in logits.shape[1:])
    if count == 1:
        return logits
    rows, _ = b.caffe2.Reshape(logits, shape=(-1, *inner))
    first = b.caffe2.Mul(b.row_numbers(classes), b.constant([count], torch.int32))
    picked = b.caffe2.Gather(rows, b.caffe2.Add(first, b.caffe2.Cast(classes, to=INT32)))
    return b.caffe2.ExpandDims(picked, dims=(1,))


def uncertain_points(b: Caffe2Builder, node: Node) -> list[Value]:
    """TopK of the cells, and their places by division."""
    uncertainty = node.operand(0)
    height, width = (whole(size, "the size of the maps") for size in uncertainty.shape[2:])
    flat, _ = b.caffe2.Reshape(uncertainty, shape=(-1, height * width))
    wanted = min(integer(node, "num_points"), height * width)
    _, cells = b.caffe2.TopK(flat, k=wanted)
    across = b.constant([width], torch.int64)
    row = b.caffe2.Div(cells, across)
    column = b.caffe2.Sub(cells, b.caffe2.Mul(row, across))
    centers = [
        b.caffe2.ExpandDims(
            b.caffe2.Add(
                b.caffe2.Mul(b.caffe2.Cast(place, to=FLOAT), b.number(1.0 / size, torch.float32)),
                b.number(0.5 / size, torch.float32),
            ),
            dims=(2,),
        )
        for place, size in ((column, width), (row, height))
    ]
    return [cells, b.concat(centers, 2)]


def put_points(b: Caffe2Builder, node: Node) -> Value:
    """Scatter into each row's one map."""
    maps, indices, values = (node.operand(i) for i in range(3))
    if maps.shape[1] != 1:
        raise NoMatch("points of several maps at once")
    height, width = (whole(size, "the size of the maps") for size in maps.shape[2:])
    flat, _ = b.caffe2.Reshape(maps, shape=(-1, height * width))
    written = b.caffe2.Scatter(flat, indices, b.caffe2.Squeeze(values, dims=(1,)), axis=1)
    made = b.caffe2.Reshape(written, shape=(-1, 1, height, width))
    return made[0]


@ATEN.rule("aten.expand")
def expand(b: Caffe2Builder, self: Value, **_: Any) -> Value:
    """The same rows for each detection: added to as many zeros."""
    wanted = b.result.shape
    if wanted == self.shape:
        return self
    if self.rank != len(wanted) or self.shape[0] != 1 or self.shape[1:] != wanted[1:]:
        raise NoMatch("an expansion along another dimension than the first")
    zeros = b.zeros(wanted[0])
    if self.rank > 1:
        zeros = b.caffe2.ExpandDims(zeros, dims=tuple(range(1, self.rank)))
    return b.caffe2.Add(zeros, self)


@ATEN.rule("aten.conv1d")
def conv1d(
    b: Caffe2Builder,
    input: Value,
    weight: Value,
    bias: Value | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Value:
    """Conv of maps that are one cell wide."""
    if input.rank != 3 or not isinstance(weight, Constant) or isinstance(padding, str):
        raise NoMatch("a convolution without batch, with named padding or a computed weight")
    kernel = b.graph.constant(weight.data.unsqueeze(-1), weight.name or "weight")
    step, pad, spread = (_one(value) for value in (stride, padding, dilation))
    made = b.caffe2.Conv(
        b.caffe2.ExpandDims(input, dims=(3,)),
        kernel,
        bias,
        kernels=(weight.data.shape[2], 1),
        strides=(step, 1),
        pads=(pad, 0, pad, 0),
        dilations=(spread, 1),
        group=groups,
    )
    return b.caffe2.Squeeze(made, dims=(3,))


def _one(value: int | Sequence[int]) -> int:
    return value if isinstance(value, int) else value[0]


TABLE: dict[str, LoweringRule] = {
    **ATEN,
    "det.point_sample": point_sample,
    "det.box_point_sample": box_point_sample,
    "det.class_logits": class_logits,
    "det.uncertain_points": uncertain_points,
    "det.put_points": put_points,
}
