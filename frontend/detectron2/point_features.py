"""Sampling feature maps at points (arXiv 1912.08193, PointRend)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from detc.ir.structures import Boxes


def point_sample(input: Tensor, point_coords: Tensor) -> Tensor:
    """Bilinear samples of a map; outside it there are zeros.

    Args:
        input: [N, C, H, W].
        point_coords: [N, P, 2] or [N, A, B, 2], x and y in [0, 1] from the top left corner to the bottom
            right one.

    Returns:
        [N, C, P] or [N, C, A, B].
    """
    if point_coords.dim() == 3:
        return point_sample(input, point_coords[:, :, None])[..., 0]
    return F.grid_sample(input, 2.0 * point_coords - 1.0, align_corners=False)


def generate_regular_grid_point_coords(count: int, side_size: int, device: torch.device) -> Tensor:
    """float32[count, side_size**2, 2]: the cell centres of a grid over [0, 1] x [0, 1], row by row."""
    centres = (torch.arange(side_size, dtype=torch.float32, device=device) + 0.5) / side_size
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack((x, y), dim=-1).view(1, -1, 2).expand(count, -1, -1)


def get_uncertain_point_coords_on_grid(uncertainty_map: Tensor, num_points: int) -> tuple[Tensor, Tensor]:
    """The cells that are most uncertain.

    Args:
        uncertainty_map: [N, 1, H, W].
        num_points: how many are chosen, or all if there are fewer.

    Returns:
        int64[N, P], indices into the H * W cells; and float32[N, P, 2], their centres in [0, 1] x [0, 1].
    """
    count, _, height, width = uncertainty_map.shape
    flat = uncertainty_map.reshape(count, height * width)
    indices = flat.topk(min(height * width, num_points), dim=1).indices
    column, row = (indices % width).float(), (indices // width).float()
    # Half a step plus so many steps, in float32, as detectron2 rounds it.
    step_x, step_y = 1.0 / width, 1.0 / height
    return indices, torch.stack((step_x / 2.0 + column * step_x, step_y / 2.0 + row * step_y), dim=-1)


def get_point_coords_wrt_image(boxes_coords: Tensor, point_coords: Tensor) -> Tensor:
    """Points [R, P, 2] relative to boxes [R, 4] become points in pixels of the image."""
    sides = boxes_coords[:, 2:] - boxes_coords[:, :2]
    return point_coords * sides[:, None] + boxes_coords[:, None, :2]


def point_sample_fine_grained_features(
    features_list: Sequence[Tensor],
    feature_scales: Sequence[float],
    boxes: Sequence[Boxes],
    point_coords: Tensor,
) -> tuple[Tensor, Tensor]:
    """Features of points that are given relative to boxes.

    Args:
        features_list: [N, C_l, H_l, W_l] for each level.
        feature_scales: for each level 1 / stride.
        boxes: for each of the N images R_i boxes.
        point_coords: [R, P, 2] relative to the boxes of all images, in [0, 1] x [0, 1].

    Returns:
        [R, C, P], the levels' channels one after the other; and the points in pixels [R, P, 2].
    """
    in_image = get_point_coords_wrt_image(torch.cat([image.tensor for image in boxes]), point_coords)
    per_image = []
    for index, points in enumerate(torch.split(in_image, [len(image) for image in boxes])):
        levels = []
        for feature, scale in zip(features_list, feature_scales, strict=True):
            height, width = feature.shape[-2:]
            size = torch.tensor([width / scale, height / scale], dtype=points.dtype, device=points.device)
            sampled = point_sample(feature[index, None], (points / size)[None])
            levels.append(sampled[0].transpose(0, 1))
        per_image.append(torch.cat(levels, dim=1))
    return torch.cat(per_image), in_image
