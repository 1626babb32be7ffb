"""`det.*` on points: sampling maps at them, choosing uncertain ones, and writing predictions back.

Conventions are PointRend's as detectron2 has it (projects/PointRend/point_rend/point_features.py). Points are (x, y)
in [0, 1] x [0, 1] from the top left corner of a map, or of a box, to its bottom right one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..dims import Dim, minimum
from ..errors import IRError
from ..ops import op
from ..types import TensorType, Type
from .boxes import tensor


def _sample_type(map: Type, points: Type) -> Type:
    maps, places = tensor(map, 4, "the map"), tensor(points, 3, "points")
    return maps.with_shape(maps.shape[0], maps.shape[1], places.shape[1])


@op("det.point_sample", infer=_sample_type)
def point_sample(map: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples of each map at its own points; outside of the map is zero.

    Shapes: map f32[R,C,h,w]; points f32[R,P,2]; result f32[R,C,P].
    """
    return F.grid_sample(map, 2.0 * points[:, :, None] - 1.0, align_corners=False)[..., 0]


def _box_sample_type(
    features: tuple[Type, ...], boxes: Type, batch_index: Type, points: Type, *, scales: tuple[float, ...]
) -> Type:
    maps = [tensor(feature, 4, "a feature map") for feature in features]
    if len(scales) != len(maps):
        raise IRError(f"{len(maps)} feature maps need as many scales, not {scales}")
    tensor(batch_index, 1, "batch_index")
    rows = tensor(boxes, 2, "boxes").shape[0]
    channels: Dim = 0
    for each in maps:
        channels = channels + each.shape[1]
    return maps[0].with_shape(rows, channels, tensor(points, 3, "points").shape[1])


@op("det.box_point_sample", infer=_box_sample_type)
def box_point_sample(
    features: Sequence[Tensor],
    boxes: Tensor,
    batch_index: Tensor,
    points: Tensor,
    *,
    scales: tuple[float, ...],
) -> Tensor:
    """Bilinear samples of an image's feature maps at points that are given relative to boxes.

    Outside of a map is zero. `scales` are the maps' 1 / stride, as in `det.roi_pool`.

    Shapes: features [N,C_l,h_l,w_l] each; boxes f32[R,4]; batch_index i64[R], ascending; points f32[R,P,2] relative
    to the boxes; result [R,sum of C_l,P].
    """
    places = points * (boxes[:, None, 2:] - boxes[:, None, :2]) + boxes[:, None, :2]
    channels = sum(feature.shape[1] for feature in features)
    result = features[0].new_zeros(len(boxes), channels, points.shape[1])
    for image in range(len(features[0])):
        rows = torch.nonzero(batch_index == image)[:, 0]
        levels = []
        for feature, scale in zip(features, scales, strict=True):
            # A map spans its own size divided by its scale, which may be more than the image.
            size = places.new_tensor([feature.shape[3] / scale, feature.shape[2] / scale])
            levels.append(point_sample(feature[image, None], (places[rows] / size).reshape(1, -1, 2))[0])
        sampled = torch.cat(levels).reshape(channels, len(rows), points.shape[1])
        result[rows] = sampled.transpose(0, 1)
    return result


def _uncertain_type(uncertainty: Type, *, num_points: int) -> tuple[Type, ...]:
    shape = tensor(uncertainty, 4, "uncertainty")
    if shape.shape[1] != 1:
        raise IRError(f"uncertainty has one channel, not {shape.shape[1]}")
    count = minimum(shape.shape[2] * shape.shape[3], num_points)
    rows = shape.shape[0]
    return TensorType(torch.int64, (rows, count)), shape.with_shape(rows, count, 2)


@op("det.uncertain_points", infer=_uncertain_type)
def uncertain_points(uncertainty: Tensor, *, num_points: int) -> tuple[Tensor, Tensor]:
    """The cells of each map that are most uncertain: `num_points`, or all where there are fewer.

    Shapes: uncertainty f32[R,1,h,w], the higher the less certain. Results: the cells' places in the flattened map
    i64[R,P]; their centres f32[R,P,2].
    """
    height, width = uncertainty.shape[2:]
    flat = uncertainty.flatten(1)
    indices = flat.topk(torch.sym_min(height * width, num_points), dim=1).indices
    along: list[Tensor] = []
    for size, place in ((width, indices % width), (height, torch.div(indices, width, rounding_mode="trunc"))):
        # Half a step plus so many steps, in float32, as detectron2 rounds it.
        step = torch.full((), size, dtype=uncertainty.dtype, device=uncertainty.device).reciprocal()
        along.append(step * 0.5 + place.to(uncertainty.dtype) * step)
    return indices, torch.stack(along, dim=-1)


def _put_type(map: Type, indices: Type, values: Type) -> Type:
    tensor(indices, 2, "indices")
    if tensor(values, 3, "values").shape[1] != tensor(map, 4, "the map").shape[1]:
        raise IRError("the map and the values differ in their channels")
    return map


@op("det.put_points", infer=_put_type)
def put_points(map: Tensor, indices: Tensor, values: Tensor) -> Tensor:
    """The maps with other values in some of their cells.

    Shapes: map f32[R,K,h,w]; indices i64[R,P], places in a flattened map, none twice; values f32[R,K,P].
    """
    places = indices[:, None].expand(-1, map.shape[1], -1)
    return map.flatten(2).scatter(2, places, values).view_as(map)
