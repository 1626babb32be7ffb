"""IoU, NMS and ROIAlign of rotated boxes in plain torch, which torchvision lacks: what det ops compute with.

They follow detectron2's C++ ones (`box_iou_rotated`, `nms_rotated`, `ROIAlignRotated`). Boxes are centre x,
centre y, width, height and angle in degrees, counter-clockwise with y pointing down.

All of it is Python that torch.jit.script takes. Where it indexes a tensor, only names stand in the brackets: torch.jit
computes anything else there several times.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def corners_of(boxes: Tensor) -> Tensor:
    """[P, 4, 2]: x and y of the corners, going round."""
    x, y, width, height, angle = boxes.unbind(-1)
    theta = angle * (math.pi / 180.0)
    half_cos, half_sin = torch.cos(theta) * 0.5, torch.sin(theta) * 0.5
    across = torch.stack((half_cos * width, -half_sin * width), dim=-1)
    down = torch.stack((half_sin * height, half_cos * height), dim=-1)
    centre = torch.stack((x, y), dim=-1)
    return torch.stack(
        (centre + down + across, centre - down + across, centre - down - across, centre + down - across), 1
    )


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - b[..., 0] * a[..., 1]


def _inside(points: Tensor, corners: Tensor, slack: float) -> Tensor:
    """bool[P, 4]: which of the points [P, 4, 2] lie in the rectangle with these corners [P, 4, 2]."""
    origin = corners[:, :1]
    inside = torch.ones(points.shape[:2], dtype=torch.bool, device=points.device)
    for side in (corners[:, 1:2] - origin, corners[:, 3:4] - origin):
        along = ((points - origin) * side).sum(-1)
        inside &= (along > -slack) & (along < (side * side).sum(-1) + slack)
    return inside


def _intersection_area(corners1: Tensor, corners2: Tensor) -> Tensor:
    """[P]: the area shared by rectangles, pair by pair.

    The intersection is convex. Its corners are crossings of sides, and corners of one rectangle in the other;
    sorted by direction from their centroid they give the area by the shoelace formula.
    """
    # In deciding whether a point lies on a segment or in a box: a point too many adds no area to the convex hull to
    # speak of, but a missing corner takes some away.
    slack = 1e-5
    sides1 = corners1.roll(-1, dims=1) - corners1
    sides2 = corners2.roll(-1, dims=1) - corners2
    determinant = _cross(sides2[:, None, :], sides1[:, :, None])
    between = corners2[:, None, :] - corners1[:, :, None]
    parallel = determinant.abs() <= 1e-14
    divisor = torch.where(parallel, torch.ones_like(determinant), determinant)
    t1 = _cross(sides2[:, None, :], between) / divisor
    t2 = _cross(sides1[:, :, None], between) / divisor
    crossing = ~parallel
    for t in (t1, t2):
        crossing &= (t > -slack) & (t < 1.0 + slack)
    crossings = corners1[:, :, None] + sides1[:, :, None] * t1[..., None]

    points = torch.cat((crossings.flatten(1, 2), corners1, corners2), dim=1)
    corners = (_inside(corners1, corners2, slack), _inside(corners2, corners1, slack))
    valid = torch.cat((crossing.flatten(1), corners[0], corners[1]), dim=1)
    count = valid.sum(1)
    points = torch.where(valid[..., None], points, torch.zeros_like(points))
    centroid = points.sum(1) / count.clamp(min=1)[:, None]
    offsets = torch.where(valid[..., None], points - centroid[:, None], torch.zeros_like(points))
    direction = torch.atan2(offsets[..., 1], offsets[..., 0])
    order = direction.masked_fill(~valid, math.inf).argsort(dim=1)
    ring = offsets.gather(1, order[..., None].expand(-1, -1, 2))
    # What is not valid lies at the end and at the centroid, where it would cut the ring open: let it repeat
    # the first.
    ring = torch.where(valid.gather(1, order)[..., None], ring, ring[:, :1])
    area = _cross(ring, ring.roll(-1, dims=1)).sum(1).abs() / 2
    return torch.where(count > 2, area, torch.zeros_like(area))


def paired_iou_rotated(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """float64[P]: intersection over union of boxes [P, 5], pair by pair; 0 for a box without area."""
    boxes1, boxes2 = boxes1.double(), boxes2.double()
    # About the middle between them, coordinates are small and differences exact.
    middle = (boxes1[:, :2] + boxes2[:, :2]) / 2
    corners1 = corners_of(torch.cat((boxes1[:, :2] - middle, boxes1[:, 2:]), dim=1))
    corners2 = corners_of(torch.cat((boxes2[:, :2] - middle, boxes2[:, 2:]), dim=1))
    area1, area2 = boxes1[:, 2] * boxes1[:, 3], boxes2[:, 2] * boxes2[:, 3]
    shared = _intersection_area(corners1, corners2)
    empty = (area1 < 1e-14) | (area2 < 1e-14)
    return torch.where(empty, torch.zeros_like(shared), shared / (area1 + area2 - shared).clamp(min=1e-300))


def _bounds(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Upright bounding rectangles [N, 2], [N, 2], a little wider than the rectangles themselves."""
    corners = corners_of(boxes.double())
    return corners.amin(1) - 1e-3, corners.amax(1) + 1e-3


def _meeting_pairs(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    """Indices i and j of the pairs whose bounding rectangles meet; for all others the IoU is 0."""
    low1, high1 = _bounds(boxes1)
    low2, high2 = _bounds(boxes2)
    rows = max(1, (1 << 22) // max(1, len(boxes2)))
    found = [torch.zeros((2, 0), dtype=torch.int64, device=boxes1.device)]
    for start in range(0, len(boxes1), rows):
        end = start + rows
        meet = ((low1[start:end, None] <= high2) & (low2 <= high1[start:end, None])).all(-1)
        i, j = torch.nonzero(meet).unbind(1)
        found.append(torch.stack((i + start, j)))
    i, j = torch.cat(found, dim=1).unbind(0)
    return i, j


def _may_overlap(boxes: Tensor, i: Tensor, j: Tensor, iou_threshold: float) -> Tensor:
    """Which pairs can reach the threshold at all: what they share is at most what their bounding rectangles
    share.
    """
    low, high = _bounds(boxes)
    area = (boxes[:, 2] * boxes[:, 3]).double()
    shared = (torch.min(high[i], high[j]) - torch.max(low[i], low[j])).clamp(min=0).prod(1)
    shared = torch.min(shared, torch.min(area[i], area[j]))
    return (shared > 0) & (shared >= (iou_threshold - 1e-3) * (area[i] + area[j] - shared))


def _iou_of_pairs(boxes1: Tensor, boxes2: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """float32[P]: the IoU of box i[k] of the first with box j[k] of the second, so many at a time."""
    pairs = 1 << 16
    found = [torch.zeros(0, dtype=torch.float32, device=boxes1.device)]
    for start in range(0, len(i), pairs):
        end = start + pairs
        found.append(paired_iou_rotated(boxes1[i[start:end]], boxes2[j[start:end]]).float())
    return torch.cat(found)


def pairwise_iou_rotated(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """float32[N, M]: intersection over union of each of N boxes with each of M."""
    i, j = _meeting_pairs(boxes1, boxes2)
    iou = torch.zeros((len(boxes1), len(boxes2)), dtype=torch.float32, device=boxes1.device)
    iou[i, j] = _iou_of_pairs(boxes1, boxes2, i, j)
    return iou


def nms_rotated(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: [N, 5].
        scores: [N].
        iou_threshold: a box whose IoU with a better one that is kept is at least this goes.

    Returns:
        int64[K]: the indices of the boxes that are kept, best first.
    """
    order = scores.sort(descending=True)[1]
    if len(order) == 0 or iou_threshold <= 0:
        return order[:1]
    ranked = boxes[order]
    better, worse = _meeting_pairs(ranked, ranked)
    later = better < worse
    better, worse = better[later], worse[later]
    possible = _may_overlap(ranked, better, worse, iou_threshold)
    better, worse = better[possible], worse[possible]
    overlapping = _iou_of_pairs(ranked, ranked, better, worse) >= iou_threshold
    better, worse = better[overlapping], worse[overlapping]
    # Whether a box stays depends on better ones only: each round settles those that depend on settled ones.
    kept = torch.ones(len(ranked), dtype=torch.bool, device=boxes.device)
    settled = False
    while not settled:
        acts = kept[better]
        renewed = torch.ones_like(kept).index_fill(0, worse[acts], False)
        settled = torch.equal(renewed, kept)
        kept = renewed
    return order[kept]


def nms_rotated_by_group(boxes: Tensor, scores: Tensor, groups: Tensor, *, iou_threshold: float) -> Tensor:
    """`nms_rotated` within each group, for boxes that may lie anywhere: int64[K], best first.

    `groups` i64[N] says which box is of which.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    ranked = groups[order]
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for group in torch.unique(groups):
        mine = order[ranked == group]
        own = nms_rotated(boxes[mine], scores[mine], iou_threshold)
        best = mine[own]
        kept[best] = True
    return order[kept[order]]


def batched_nms_rotated(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """`nms_rotated` within each group; `idxs` [N] says which box is of which group.

    As in detectron2 the groups are moved apart far enough not to meet, in float32.
    """
    if boxes.numel() == 0:
        return torch.empty((0,), dtype=torch.int64, device=boxes.device)
    boxes = boxes.float()
    reach = boxes[:, 2:4].amax(1) / 2
    highest = (boxes[:, :2].amax(1) + reach).max()
    lowest = (boxes[:, :2].amin(1) - reach).min()
    offsets = idxs.to(boxes) * (highest - lowest + 1)
    moved = torch.cat((boxes[:, :2] + offsets[:, None], boxes[:, 2:]), dim=1)
    return nms_rotated(moved, scores, iou_threshold)


def _corner_indices(position: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two pixels beside each position on an axis, and the second one's share."""
    position = position.clamp(min=0)
    low = position.floor().clamp(max=size - 1)
    share = torch.where(low >= size - 1, torch.zeros_like(position), position - low)
    return low.long(), (low + 1).clamp(max=size - 1).long(), share


def _steps(length: Tensor, bins: int, samples: int) -> Tensor:
    """[R, bins * samples]: positions along a side of that length [R], from its middle."""
    size = (length / bins)[:, None, None]
    first = torch.arange(bins, dtype=length.dtype, device=length.device)[:, None]
    part = torch.arange(samples, dtype=length.dtype, device=length.device) + 0.5
    return (-length[:, None, None] / 2.0 + first * size + part * size / samples).flatten(1)


def _sample_bins(
    input: Tensor, rois: Tensor, spatial_scale: float, output_size: tuple[int, int], grid: tuple[int, int]
) -> Tensor:
    """[R, C, *output_size]: bins averaged over a `grid` of samples each, for regions that share the grid."""
    _, channels, height, width = input.shape
    bins_h, bins_w = output_size
    grid_h, grid_w = grid
    centre_x, centre_y = rois[:, 1] * spatial_scale - 0.5, rois[:, 2] * spatial_scale - 0.5
    theta = rois[:, 5] * (math.pi / 180.0)
    cos, sin = torch.cos(theta)[:, None, None], torch.sin(theta)[:, None, None]
    down = _steps(rois[:, 4] * spatial_scale, bins_h, grid_h)[:, :, None]
    across = _steps(rois[:, 3] * spatial_scale, bins_w, grid_w)[:, None, :]
    y = down * cos - across * sin + centre_y[:, None, None]
    x = down * sin + across * cos + centre_x[:, None, None]
    inside = (y >= -1.0) & (y <= height) & (x >= -1.0) & (x <= width)
    y_low, y_high, y_share = _corner_indices(y, height)
    x_low, x_high, x_share = _corner_indices(x, width)
    pixels = input.permute(0, 2, 3, 1).reshape(-1, channels)
    first_pixel = (rois[:, 0].long() * height * width)[:, None, None]
    samples = torch.zeros(1, dtype=input.dtype, device=input.device)
    for row, row_share in ((y_low, 1 - y_share), (y_high, y_share)):
        for column, column_share in ((x_low, 1 - x_share), (x_high, x_share)):
            weight = (row_share * column_share).masked_fill(~inside, 0.0)
            place = first_pixel + row * width + column
            samples = samples + pixels[place] * weight[..., None]
    samples = samples.view(-1, bins_h, grid_h, bins_w, grid_w, channels)
    return samples.mean(dim=(2, 4)).permute(0, 3, 1, 2)


def roi_align_rotated(
    input: Tensor, rois: Tensor, output_size: tuple[int, int], spatial_scale: float, sampling_ratio: int
) -> Tensor:
    """ROIAlign (aligned) of rotated regions.

    Args:
        input: [N, C, H, W].
        rois: [R, 6], each row the image's index and a rotated box in the input image's pixels.
        output_size: bins down and across the region.
        spatial_scale: the feature map's size over the image's.
        sampling_ratio: samples per bin and axis; 0 for as many as the bin is pixels long, rounded up.

    Returns:
        [R, C, *output_size].
    """
    dtype = input.dtype
    compute = dtype if dtype == torch.float64 else torch.float32
    input, rois = input.to(compute), rois.to(compute)
    bins_h, bins_w = output_size
    output = torch.zeros((len(rois), input.shape[1], bins_h, bins_w), dtype=compute, device=input.device)
    if sampling_ratio > 0:
        grids = torch.full((len(rois), 2), sampling_ratio, dtype=torch.int64, device=rois.device)
    else:
        down, across = rois[:, 4] * spatial_scale / bins_h, rois[:, 3] * spatial_scale / bins_w
        grids = torch.ceil(torch.stack((down, across), dim=1)).long()
    for grid in torch.unique(grids, dim=0):
        grid_h, grid_w = int(grid[0]), int(grid[1])
        if grid_h <= 0 or grid_w <= 0:
            continue  # a region without area has no samples, and pools to 0
        members = torch.nonzero((grids == grid).all(1))[:, 0]
        values = input.shape[1] * bins_h * grid_h * bins_w * grid_w
        for part in torch.split(members, max(1, (1 << 24) // values)):
            output[part] = _sample_bins(input, rois[part], spatial_scale, output_size, (grid_h, grid_w))
    return output.to(dtype)


def roi_align_rotated_by_level(
    features: list[Tensor],
    rois: Tensor,
    levels: Tensor,
    *,
    output_size: list[int],
    scales: list[float],
    sampling_ratio: int,
) -> Tensor:
    """`roi_align_rotated` of each region [R, 6] on the map, of those in `features`, that `levels` i64[R] says.

    `scales` are the maps'; all maps have as many channels.
    """
    size = (output_size[0], output_size[1])
    pooled = features[0].new_zeros((len(rois), features[0].shape[1], size[0], size[1]))
    for level, feature in enumerate(features):
        rows = torch.nonzero(levels == level)[:, 0]
        pooled[rows] = roi_align_rotated(feature, rois[rows], size, scales[level], sampling_ratio)
    return pooled
