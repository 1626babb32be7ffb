"""The operators on regions of interest: pooling their features, reordering them, decoding keypoint heatmaps.

Source: Caffe2's `roi_align_op`, `roi_align_rotated_op`, `batch_permutation_op` and `heatmap_max_keypoint_op`,
    of PyTorch 1.9.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align as torchvision_roi_align

from ..errors import InputError
from .boxes import as_float32

Order = Literal["NCHW", "NHWC"]


def _features(features: Tensor, order: str, name: str) -> Tensor:
    """The features with channels first."""
    if features.dim() != 4:
        raise InputError(f"{name}: features {list(features.shape)}, where four dimensions are expected")
    if order not in ("NCHW", "NHWC"):
        raise InputError(f"{name}: order {order!r} is neither NCHW nor NHWC")
    return features if order == "NCHW" else features.permute(0, 3, 1, 2)


def _rois(rois: Tensor, columns: int, images: int, name: str) -> Tensor:
    """Rois with the image in the first column."""
    if rois.dim() != 2 or rois.shape[1] not in (columns, columns + 1):
        raise InputError(f"{name}: rois {list(rois.shape)}, where n, {columns} or {columns + 1} is expected")
    if rois.shape[1] == columns:
        return F.pad(rois, (1, 0))
    if bool(((rois[:, 0] < 0) | (rois[:, 0] >= images)).any()):
        raise InputError(f"{name}: a roi of an image that is not among the {images}")
    return rois


def _in_threads(function: Callable[[Tensor], Tensor], parts: Sequence[Tensor]) -> list[Tensor]:
    """The function of each part, side by side. Kernels run without Python's lock, so that threads suffice."""
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def run(part: Tensor) -> Tensor:
        # These modes belong to a thread.
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return function(part)

    with ThreadPoolExecutor(max_workers=len(parts)) as pool:
        return list(pool.map(run, parts))


def roi_align(
    features: Tensor,
    rois: Tensor,
    *,
    order: Order = "NCHW",
    spatial_scale: float = 1.0,
    pooled_h: int = 1,
    pooled_w: int = 1,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Features under each roi, averaged over bins, sampled bilinearly.

    Args:
        features: f32[N, C, H, W], or channels last if `order` says so; one cell is 1 / spatial_scale pixels
            wide.
        rois: f32[n, 5] (image, x0, y0, x1, y1), or f32[n, 4] of the first image, in pixels.
        sampling_ratio: samples per bin and axis; if <= 0 as many as the bin has cells, rounded up.
        aligned: whether pixel centers are at half pixels. If not, a roi is one cell wide at least.

    Returns:
        f32[n, C, pooled_h, pooled_w], or channels last. A roi without area has no samples if `aligned` and
        sampling_ratio <= 0: its result is not a number, as in Caffe2.

    Errors:
        InputError: shapes that do not fit; with `aligned`, a roi of negative size.
    """
    features = _features(features, order, "RoIAlign")
    rois = _rois(rois, 4, len(features), "RoIAlign")
    spatial_scale = as_float32(spatial_scale)
    features = features.contiguous()

    def pool(some: Tensor) -> Tensor:
        return torchvision_roi_align(
            features, some, (pooled_h, pooled_w), spatial_scale, max(sampling_ratio, 0), aligned
        )

    # torchvision's kernel for CPUs has one thread.
    large = features.device.type == "cpu" and len(rois) * features.shape[1] * pooled_h * pooled_w > 1 << 18
    pooled = torch.cat(_in_threads(pool, rois.chunk(torch.get_num_threads()))) if large else pool(rois)
    if aligned:
        scaled = rois[:, 1:] * spatial_scale - 0.5
        size = scaled[:, 2:] - scaled[:, :2]
        if bool((size < 0).any()):
            raise InputError("RoIAlign: a roi of negative size")
        if sampling_ratio <= 0:
            flat = (size == 0).any(1)
            if bool(flat.any()):
                pooled[flat] = math.nan
    return pooled if order == "NCHW" else pooled.permute(0, 2, 3, 1).contiguous()


def roi_align_rotated(
    features: Tensor,
    rois: Tensor,
    *,
    order: Order = "NCHW",
    spatial_scale: float = 1.0,
    pooled_h: int = 1,
    pooled_w: int = 1,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """RoIAlign for rotated rois.

    They are f32[n, 6] (image, center x, center y, width, height in pixels, angle in degrees,
    counter-clockwise), or f32[n, 5] of the first image. The rest is as for `roi_align`.
    """
    features = _features(features, order, "RoIAlignRotated")
    rois = _rois(rois, 5, len(features), "RoIAlignRotated")
    channels, height, width = features.shape[1:]
    if len(rois) == 0:
        pooled = features.new_zeros(0, channels, pooled_h, pooled_w)
        return pooled if order == "NCHW" else pooled.permute(0, 2, 3, 1).contiguous()
    offset = 0.5 if aligned else 0.0
    spatial_scale = as_float32(spatial_scale)
    center = rois[:, 1:3] * spatial_scale - offset
    size = rois[:, 3:5] * spatial_scale
    if not aligned:
        size = size.clamp(min=1.0)
    elif bool((size < 0).any()):
        raise InputError("RoIAlignRotated: a roi of negative size")
    pooled_size = size.new_tensor([pooled_w, pooled_h])
    bin_size = size / pooled_size
    grid = torch.full_like(bin_size, sampling_ratio) if sampling_ratio > 0 else bin_size.ceil()
    roi, first, xx, yy = _samples(size, bin_size, grid, pooled_h, pooled_w)
    theta = (rois[:, 5].double() * math.pi / 180.0).to(rois.dtype)
    cos, sin = theta.cos()[roi], theta.sin()[roi]
    x = xx * cos + yy * sin + center[roi, 0]
    y = yy * cos - xx * sin + center[roi, 1]
    cells, weights = _bilinear(x, y, height, width)
    image = rois[roi, 0].to(torch.int64) * (height * width)
    table = features.permute(0, 2, 3, 1).reshape(-1, channels)
    summed = F.embedding_bag(
        (cells + image[:, None]).flatten(), table, first * 4, mode="sum", per_sample_weights=weights.flatten()
    )
    # No sample, in a roi without area, gives 0 / 0.
    pooled = summed.reshape(len(rois), pooled_h, pooled_w, channels) / grid.prod(1)[:, None, None, None]
    return pooled if order == "NHWC" else pooled.permute(0, 3, 1, 2).contiguous()


def _samples(
    size: Tensor, bin_size: Tensor, grid: Tensor, pooled_h: int, pooled_w: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The samples of all bins of all rois, one after the other.

    Args:
        size, bin_size: f32[n, 2], width and height in cells.
        grid: f32[n, 2], samples of a bin by axis.

    Returns:
        Of each sample its roi, i64[s], then the first sample of each bin, i64[n * pooled_h * pooled_w], then where
        each sample is seen from its roi's center, f32[s] along x and along y.
    """
    bins = pooled_h * pooled_w
    bag_sizes = grid.prod(1).to(torch.int64).repeat_interleave(bins)
    bag = torch.arange(len(bag_sizes), device=grid.device).repeat_interleave(bag_sizes)
    first = bag_sizes.cumsum(0) - bag_sizes
    within = torch.arange(len(bag), device=grid.device) - first[bag]
    roi = bag // bins
    columns = grid[roi, 0].to(torch.int64)
    bin_row, bin_column = (bag % bins) // pooled_w, bag % pooled_w
    sample_row = within // columns
    sample_column = within - sample_row * columns

    def along(bin_index: Tensor, sample: Tensor, axis: int) -> Tensor:
        step = bin_size[roi, axis]
        start = -size[roi, axis] / 2.0
        return start + bin_index * step + (sample + 0.5) * step / grid[roi, axis]

    return roi, first, along(bin_column, sample_column, 0), along(bin_row, sample_row, 1)


def _bilinear(x: Tensor, y: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The four cells around each point and their weights, i64[n, 4] and f32[n, 4]; zero off the map."""
    outside = (y < -1.0) | (y > height) | (x < -1.0) | (x > width)
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    low_x, low_y = x.floor(), y.floor()
    lx, ly = x - low_x, y - low_y
    hx, hy = 1.0 - lx, 1.0 - ly
    column, row = low_x.to(torch.int64), low_y.to(torch.int64)
    next_column, next_row = (column + 1).clamp(max=width - 1), (row + 1).clamp(max=height - 1)
    cells = torch.stack(
        (
            row * width + column,
            row * width + next_column,
            next_row * width + column,
            next_row * width + next_column,
        ),
        dim=1,
    )
    weights = torch.stack((hy * hx, hy * lx, ly * hx, ly * lx), dim=1)
    return cells, weights.masked_fill(outside[:, None], 0.0)


def batch_permutation(inputs: Tensor, indices: Tensor) -> Tensor:
    """Rows of [n, ...] in the order i32[n] `indices`: row i of the result is row indices[i].

    Errors:
        InputError: as many indices as rows are needed, each within them.
    """
    if indices.dim() != 1 or len(indices) != len(inputs):
        raise InputError(f"BatchPermutation: indices {list(indices.shape)} for {len(inputs)} rows")
    if bool(((indices < 0) | (indices >= len(inputs))).any()):
        raise InputError(f"BatchPermutation: an index outside of the {len(inputs)} rows")
    return inputs.index_select(0, indices.to(torch.int64))


def heatmap_max_keypoint(
    heatmaps: Tensor, bboxes_in: Tensor, *, should_output_softmax: bool = False
) -> Tensor:
    """Keypoints at the maxima of heatmaps, refined by a Taylor expansion instead of bicubic upsampling.

    Args:
        heatmaps: f32[n, K, S, S] logits.
        bboxes_in: f32[n, 4 or more], x0, y0, x1, y1 in pixels, less than one pixel wide counting as one.
        should_output_softmax: whether the probability is computed; it is 0 otherwise.

    Returns:
        f32[n, 4, K]: x and y in pixels, the logit at the refined maximum, the probability of the maximal
        cell.

    Errors:
        InputError: heatmaps that are not square, or smaller than 2 x 2; another number of boxes.
    """
    if heatmaps.dim() != 4 or heatmaps.shape[2] != heatmaps.shape[3] or heatmaps.shape[2] < 2:
        raise InputError(f"HeatmapMaxKeypoint: heatmaps {list(heatmaps.shape)}, where n, K, S, S is expected")
    count, keypoints, side = heatmaps.shape[:3]
    if bboxes_in.dim() != 2 or len(bboxes_in) != count or bboxes_in.shape[1] < 4:
        raise InputError(f"HeatmapMaxKeypoint: boxes {list(bboxes_in.shape)} for {count} heatmaps")
    if heatmaps.numel() == 0:
        return heatmaps.new_zeros(count, 4, keypoints)
    flat = heatmaps.reshape(count, keypoints, side * side)
    best = flat.max(-1).indices
    best_y = best.div(side, rounding_mode="floor")
    best_x = best - best_y * side

    # The 3 x 3 cells around the maximum; what is off the map mirrors what is opposite.
    step = torch.tensor([-1, 0, 1], device=heatmaps.device)
    rows, columns = (_mirrored(center[..., None] + step, side) for center in (best_y, best_x))
    cells = (rows[..., :, None] * side + columns[..., None, :]).flatten(-2)
    window = flat.gather(-1, cells).reshape(count, keypoints, 3, 3)
    delta_x, delta_y, score = _refined_maximum(window)
    x0, y0, x1, y1 = (bboxes_in[:, i, None] for i in range(4))
    x = x0 + (0.5 + best_x + delta_x) * (x1 - x0).clamp(min=1.0) / side
    y = y0 + (0.5 + best_y + delta_y) * (y1 - y0).clamp(min=1.0) / side
    if should_output_softmax:
        # Without subtracting the maximum, as Caffe2 does: logits above 88 overflow there too.
        exponentials = flat.exp()
        probability = exponentials.gather(-1, best[..., None]).squeeze(-1) / exponentials.sum(-1)
    else:
        probability = torch.zeros_like(x)
    return torch.stack((x, y, score, probability), dim=1)


def _refined_maximum(window: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where, x and y from the center of [..., 3, 3], the quadratic through it is greatest, and its value there."""
    f = {(row, column): window[..., row, column] for row in range(3) for column in range(3)}
    slope_x, slope_y = -(f[1, 2] - f[1, 0]) / 2, -(f[2, 1] - f[0, 1]) / 2
    xx = f[1, 0] - 2 * f[1, 1] + f[1, 2]
    yy = f[0, 1] - 2 * f[1, 1] + f[2, 1]
    xy = (f[2, 2] - f[2, 0] - f[0, 2] + f[0, 0]) / 4
    determinant = xx * yy - xy * xy
    solvable = determinant.abs() >= 1e-4
    divisor = torch.where(solvable, determinant, 1.0)
    delta_x = torch.where(solvable, (slope_x * yy - slope_y * xy) / divisor, 0.0)
    delta_y = torch.where(solvable, (slope_y * xx - slope_x * xy) / divisor, 0.0)
    # A step beyond the 3 x 3 cells is shortened.
    larger = torch.maximum(delta_x.abs(), delta_y.abs())
    shorten = larger > 1.5
    larger = torch.where(shorten, larger, 1.0)
    delta_x = torch.where(shorten, delta_x / larger * 1.5, delta_x)
    delta_y = torch.where(shorten, delta_y / larger * 1.5, delta_y)
    curvature = delta_x * (xx * delta_x + xy * delta_y) + delta_y * (xy * delta_x + yy * delta_y)
    score = f[1, 1] - (slope_x * delta_x + slope_y * delta_y) + 0.5 * curvature
    score = torch.where(solvable, score, f[1, 1])
    return delta_x, delta_y, score


def _mirrored(index: Tensor, size: int) -> Tensor:
    index = torch.where(index < 0, index + 2, index)
    return torch.where(index >= size, index - 2, index)
