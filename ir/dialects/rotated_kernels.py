"""What `det.rotated_*` computes with, and torchvision lacks, in plain torch: IoU, NMS and ROIAlign of rotated boxes.

They follow detectron2's C++ ones (`box_iou_rotated`, `nms_rotated`, `ROIAlignRotated`). Boxes are centre x,
centre y, width, height and angle in degrees, counter-clockwise with y pointing down.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_PAIRS_PER_CHUNK = 1 << 16
_VALUES_PER_CHUNK = 1 << 24
# Slack in deciding whether a point lies on a segment or in a box: a point too many adds no area to the convex
# hull to speak of, but a missing corner takes some away.
_EPSILON = 1e-5


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


def _inside(points: Tensor, corners: Tensor) -> Tensor:
    """bool[P, 4]: which of the points [P, 4, 2] lie in the rectangle with these corners [P, 4, 2]."""
    origin = corners[:, :1]
    sides = (corners[:, 1:2] - origin, corners[:, 3:4] - origin)
    inside = torch.ones(points.shape[:2], dtype=torch.bool, device=points.device)
    for side in sides:
        along = ((points - origin) * side).sum(-1)
        inside &= (along > -_EPSILON) & (along < (side * side).sum(-1) + _EPSILON)
    return inside


def _intersection_area(corners1: Tensor, corners2: Tensor) -> Tensor:
    """[P]: the area shared by rectangles, pair by pair.

    The intersection is convex. Its corners are crossings of sides, and corners of one rectangle in the other;
    sorted by direction from their centroid they give the area by the shoelace formula.
    """
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
        crossing &= (t > -_EPSILON) & (t < 1.0 + _EPSILON)
    crossings = corners1[:, :, None] + sides1[:, :, None] * t1[..., None]

    points = torch.cat((crossings.flatten(1, 2), corners1, corners2), dim=1)
    valid = torch.cat((crossing.flatten(1), _inside(corners1, corners2), _inside(corners2, corners1)), dim=1)
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
    rows = max(1, _VALUES_PER_CHUNK // max(1, 4 * len(boxes2)))
    found = []
    for start in range(0, len(boxes1), rows):
        chunk = slice(start, start + rows)
        meet = ((low1[chunk, None] <= high2) & (low2 <= high1[chunk, None])).all(-1)
        i, j = torch.where(meet)
        found.append(torch.stack((i + start, j)))
    i, j = torch.cat(found, dim=1) if found else torch.zeros((2, 0), dtype=torch.int64, device=boxes1.device)
    return i, j


def _may_overlap(boxes: Tensor, i: Tensor, j: Tensor, iou_threshold: float) -> Tensor:
    """Which pairs can reach the threshold at all: what they share is at most what their bounding rectangles
    share.
    """
    low, high = _bounds(boxes)
    area = (boxes[:, 2] * boxes[:, 3]).double()
    shared = (torch.min(high[i], high[j]) - torch.max(low[i], low[j])).clamp(min=0).prod(1)
    shared = torch.min(shared, torch.min(area[i], area[j]))
    return shared >= (iou_threshold - 1e-3) * (area[i] + area[j] - shared)


def _iou_of_pairs(boxes1: Tensor, boxes2: Tensor, i: Tensor, j: Tensor) -> Tensor:
    chunks = zip(torch.split(i, _PAIRS_PER_CHUNK), torch.split(j, _PAIRS_PER_CHUNK), strict=True)
    return torch.cat([paired_iou_rotated(boxes1[a], boxes2[b]) for a, b in chunks])


def pairwise_iou_rotated(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """float32[N, M]: intersection over union of each of N boxes with each of M."""
    i, j = _meeting_pairs(boxes1, boxes2)
    iou = torch.zeros((len(boxes1), len(boxes2)), dtype=torch.float32, device=boxes1.device)
    iou[i, j] = _iou_of_pairs(boxes1, boxes2, i, j).float()
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
    order = scores.sort(descending=True).indices
    if len(order) == 0 or iou_threshold <= 0:
        return order[:1]
    ranked = boxes[order]
    better, worse = _meeting_pairs(ranked, ranked)
    later = better < worse
    better, worse = better[later], worse[later]
    possible = _may_overlap(ranked, better, worse, iou_threshold)
    better, worse = better[possible], worse[possible]
    overlapping = _iou_of_pairs(ranked, ranked, better, worse).float() >= iou_threshold
    victims = worse[overlapping].cpu().numpy()
    # `better` ascends: the boxes that overlap box k are victims[starts[k] : starts[k + 1]].
    starts = torch.searchsorted(better[overlapping].cpu(), torch.arange(len(ranked) + 1)).tolist()
    suppressed = torch.zeros(len(ranked), dtype=torch.bool).numpy()
    for k in range(len(ranked)):
        if not suppressed[k]:
            suppressed[victims[starts[k] : starts[k + 1]]] = True
    return order[torch.from_numpy(~suppressed).to(order.device)]


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


def _sample_bins(
    input: Tensor, rois: Tensor, spatial_scale: float, output_size: tuple[int, int], grid: tuple[int, int]
) -> Tensor:
    """[R, C, *output_size]: bins averaged over a `grid` of samples each, for regions that share the grid."""
    channels, height, width = input.shape[1:]
    (bins_h, bins_w), (grid_h, grid_w) = output_size, grid
    centre_x, centre_y = rois[:, 1] * spatial_scale - 0.5, rois[:, 2] * spatial_scale - 0.5
    roi_w, roi_h = rois[:, 3] * spatial_scale, rois[:, 4] * spatial_scale
    theta = rois[:, 5] * (math.pi / 180.0)
    cos, sin = torch.cos(theta)[:, None, None], torch.sin(theta)[:, None, None]

    def steps(length: Tensor, bins: int, samples: int) -> Tensor:
        """[R, bins * samples]: positions along a side, from its middle."""
        size = (length / bins)[:, None, None]
        first = torch.arange(bins, dtype=rois.dtype, device=rois.device)[:, None]
        part = torch.arange(samples, dtype=rois.dtype, device=rois.device) + 0.5
        return (-length[:, None, None] / 2.0 + first * size + part * size / samples).flatten(1)

    down, across = steps(roi_h, bins_h, grid_h)[:, :, None], steps(roi_w, bins_w, grid_w)[:, None, :]
    y = down * cos - across * sin + centre_y[:, None, None]
    x = down * sin + across * cos + centre_x[:, None, None]
    outside = (y < -1.0) | (y > height) | (x < -1.0) | (x > width)
    y_low, y_high, y_share = _corner_indices(y, height)
    x_low, x_high, x_share = _corner_indices(x, width)
    pixels = input.permute(0, 2, 3, 1).reshape(-1, channels)
    first_pixel = (rois[:, 0].long() * height * width)[:, None, None]

    def weighted(row: Tensor, column: Tensor, weight: Tensor) -> Tensor:
        values = pixels[first_pixel + row * width + column]
        return values * weight.masked_fill(outside, 0.0)[..., None]

    samples = weighted(y_low, x_low, (1 - y_share) * (1 - x_share))
    samples = samples + weighted(y_low, x_high, (1 - y_share) * x_share)
    samples = samples + weighted(y_high, x_low, y_share * (1 - x_share))
    samples = samples + weighted(y_high, x_high, y_share * x_share)
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
    compute = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    input, rois = input.to(compute), rois.to(compute)
    bins_h, bins_w = output_size
    output = input.new_zeros((len(rois), input.shape[1], bins_h, bins_w))
    if sampling_ratio > 0:
        grids = torch.full((len(rois), 2), sampling_ratio, dtype=torch.int64)
    else:
        grid_h = torch.ceil(rois[:, 4] * spatial_scale / bins_h)
        grid_w = torch.ceil(rois[:, 3] * spatial_scale / bins_w)
        grids = torch.stack((grid_h, grid_w), dim=1).long().cpu()
    for grid_h, grid_w in torch.unique(grids, dim=0).tolist():
        if grid_h <= 0 or grid_w <= 0:
            continue  # a region without area has no samples, and pools to 0
        (members,) = torch.where((grids == torch.tensor([grid_h, grid_w])).all(1))
        values = input.shape[1] * bins_h * grid_h * bins_w * grid_w
        for part in torch.split(members.to(rois.device), max(1, _VALUES_PER_CHUNK // values)):
            output[part] = _sample_bins(input, rois[part], spatial_scale, output_size, (grid_h, grid_w))
    return output.to(dtype)
