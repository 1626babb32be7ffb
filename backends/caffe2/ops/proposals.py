"""The operators of a region proposal network: decoding anchors, dealing proposals out to feature levels.

Regions of interest are f32[n, 5] (image, x0, y0, x1, y1) or f32[n, 6] (image, center x, center y, width,
height, angle), in pixels of the network's input. Source: Caffe2's `generate_proposals_op` and
`collect_and_distribute_fpn_rpn_proposals_op`, of PyTorch 1.9.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .boxes import as_float32, clip, decode, nms, sides


def best_first(scores: Tensor, limit: int) -> Tensor:
    """i64 positions of the `limit` highest of f32[n] scores (all if limit <= 0), best first.

    Equal scores stay in the order of the input. Caffe2 sorts unstably, so that their order is its C++
    library's; up to 16 scores it is this one.
    """
    if 0 < limit < len(scores):
        # Far cheaper than sorting all: a selection, then a sort of what is no worse than the last selected.
        least = scores.topk(limit, sorted=False).values.amin()
        candidates = (scores >= least).nonzero().squeeze(1)
        if len(candidates) >= limit:
            order = scores[candidates].argsort(descending=True, stable=True)
            return candidates[order[:limit]]
    order = scores.argsort(descending=True, stable=True)
    return order[:limit] if limit > 0 else order


def generate_proposals(
    scores: Tensor,
    bbox_deltas: Tensor,
    im_info: Tensor,
    anchors: Tensor,
    *,
    spatial_scale: float = 1.0 / 16,
    pre_nms_topN: int = 6000,
    post_nms_topN: int = 300,
    nms_thresh: float = 0.7,
    min_size: float = 16.0,
    angle_bound_on: bool = True,
    angle_bound_lo: int = -90,
    angle_bound_hi: int = 90,
    clip_angle_thresh: float = 1.0,
    legacy_plus_one: bool = True,
) -> tuple[Tensor, Tensor]:
    """The best boxes of one feature level: decoded, clipped, filtered and suppressed, image by image.

    Args:
        scores: f32[N, A, H, W].
        bbox_deltas: f32[N, A * D, H, W], with D = 4 for upright and 5 for rotated anchors.
        im_info: f32[N, 3], height, width and scale of each image; `min_size` times the scale is the least
            side.
        anchors: f32[A, D], of the cell in the image's corner; the next cells' lie 1 / spatial_scale pixels
            on.

    Returns:
        rois f32[n, D + 1] and their scores f32[n], images in order, best first within each.

    Errors:
        InputError: shapes that do not fit each other.
    """
    _check_proposal_shapes(scores, bbox_deltas, im_info, anchors)
    step = as_float32(1.0 / as_float32(spatial_scale))
    found = [(scores.new_zeros(0, anchors.shape[1] + 1), scores.new_zeros(0))]
    for image, info in enumerate(im_info):
        logits = scores[image].reshape(-1)
        top = best_first(logits, pre_nms_topN)
        placed, deltas = _placed_anchors(top, anchors, bbox_deltas[image], step)
        boxes = decode(
            placed,
            deltas,
            weights=(1.0, 1.0, 1.0, 1.0),
            legacy_plus_one=legacy_plus_one,
            angle_bound_on=angle_bound_on,
            angle_bound_lo=angle_bound_lo,
            angle_bound_hi=angle_bound_hi,
        )
        height, width = info[:2].trunc()
        boxes = clip(
            boxes, height, width, clip_angle_thresh=clip_angle_thresh, legacy_plus_one=legacy_plus_one
        )
        fit = _large_and_inside(boxes, info, min_size, legacy_plus_one)
        boxes, top = boxes[fit], top[fit]
        limit = post_nms_topN if 0 < post_nms_topN < len(boxes) else -1
        kept = nms(boxes, nms_thresh, limit=limit, legacy_plus_one=legacy_plus_one)
        found.append((F.pad(boxes[kept], (1, 0), value=float(image)), logits[top[kept]]))
    rois, roi_scores = (torch.cat(part) for part in zip(*found, strict=True))
    return rois, roi_scores


def _check_proposal_shapes(scores: Tensor, deltas: Tensor, im_info: Tensor, anchors: Tensor) -> None:
    if scores.dim() != 4 or anchors.dim() != 2 or anchors.shape[1] not in (4, 5):
        raise InputError(
            f"GenerateProposals: scores {list(scores.shape)} and anchors {list(anchors.shape)}, "
            "where N, A, H, W and A, 4 or 5 are expected"
        )
    images, count, height, width = scores.shape
    if list(deltas.shape) != [images, count * anchors.shape[1], height, width] or len(anchors) != count:
        raise InputError(
            f"GenerateProposals: deltas {list(deltas.shape)} and anchors {list(anchors.shape)} "
            f"do not fit scores {list(scores.shape)}"
        )
    if list(im_info.shape) != [images, 3]:
        raise InputError(f"GenerateProposals: im_info {list(im_info.shape)} for {images} images")


def _placed_anchors(top: Tensor, anchors: Tensor, deltas: Tensor, stride: float) -> tuple[Tensor, Tensor]:
    """The anchors f32[n, D] that i64[n] `top` counts (by anchor, row, column), where they lie, and their deltas."""
    count, dim = anchors.shape
    height, width = deltas.shape[1:]
    anchor = top.div(height * width, rounding_mode="floor")
    cell = top - anchor * (height * width)
    row = cell.div(max(width, 1), rounding_mode="floor")
    shift_x, shift_y = (cell - row * width).to(anchors.dtype) * stride, row.to(anchors.dtype) * stride
    still = torch.zeros_like(shift_x)
    columns = (shift_x, shift_y, shift_x, shift_y) if dim == 4 else (shift_x, shift_y, *[still] * 3)
    placed = anchors[anchor] + torch.stack(columns, dim=1)
    return placed, deltas.reshape(count, dim, -1)[anchor, :, cell]


def _large_and_inside(boxes: Tensor, info: Tensor, min_size: float, legacy_plus_one: bool) -> Tensor:
    """bool[n]: which boxes have sides of at least `min_size` before scaling, and their centers in the image."""
    image_height, image_width, scale = info
    width, height = sides(boxes, legacy_plus_one=legacy_plus_one)
    x, y = boxes[:, :2].unbind(1)
    if boxes.shape[1] == 4:
        x, y = x + width / 2, y + height / 2
    least = min_size * scale
    inside: Tensor = (width >= least) & (height >= least) & (x < image_width) & (y < image_height)
    return inside


def _levels(least: int, most: int, what: str) -> int:
    if most < least:
        raise InputError(f"{what}_max_level {most} is below {what}_min_level {least}")
    return most - least + 1


def collect_rpn_proposals(
    inputs: Sequence[Tensor],
    *,
    rpn_max_level: int = 6,
    rpn_min_level: int = 2,
    rpn_post_nms_topN: int = 2000,
) -> Tensor:
    """The best proposals of all feature levels together.

    Args:
        inputs: the levels' rois, f32[n, 5] each, then their scores, f32[n] each.

    Returns:
        rois f32[m, 5], best first whatever their image, equal scores in the order of the input.

    Errors:
        InputError: a number of inputs that is not twice the number of levels; rotated rois, which Caffe2
            cannot take.
    """
    levels = _levels(rpn_min_level, rpn_max_level, "rpn")
    if len(inputs) != 2 * levels:
        raise InputError(
            f"CollectRpnProposals: {len(inputs)} inputs, 2 for each of {levels} levels are expected"
        )
    for rois, scores in zip(inputs[:levels], inputs[levels:], strict=True):
        if rois.dim() != 2 or rois.shape[1] != 5 or scores.numel() != len(rois):
            raise InputError(
                f"CollectRpnProposals: rois {list(rois.shape)} with scores {list(scores.shape)}, "
                "where n, 5 and n are expected"
            )
    rois = torch.cat(list(inputs[:levels]))
    scores = torch.cat([score.reshape(-1) for score in inputs[levels:]])
    return rois[best_first(scores, rpn_post_nms_topN)]


def distribute_fpn_proposals(
    rois: Tensor,
    *,
    roi_canonical_scale: int = 224,
    roi_canonical_level: int = 4,
    roi_max_level: int = 5,
    roi_min_level: int = 2,
    legacy_plus_one: bool = True,
) -> tuple[Tensor, ...]:
    """Rois dealt out to the feature levels that fit their size.

    Args:
        rois: f32[n, 5], or f32[n, 4] of one image.

    Returns:
        For each level from roi_min_level to roi_max_level its rois, f32[n_l, 5]; and i32[n], which row of
        their concatenation each of `rois` is.

    Errors:
        InputError: rotated rois, which Caffe2 cannot take; a negative area.

    Source: "Feature Pyramid Networks for Object Detection", Lin et al., equation 1.
    """
    levels = _levels(roi_min_level, roi_max_level, "roi")
    if rois.dim() != 2 or rois.shape[1] not in (4, 5):
        raise InputError(f"DistributeFpnProposals: rois {list(rois.shape)}, where n, 4 or 5 is expected")
    if rois.shape[1] == 4:
        rois = F.pad(rois, (1, 0))
    width, height = sides(rois[:, 1:], legacy_plus_one=legacy_plus_one)
    area = width * height
    if not bool((area >= 0).all()):
        raise InputError("DistributeFpnProposals: a roi whose area is negative or not a number")
    size = area.sqrt() / float(roi_canonical_scale)
    level = roi_canonical_level + (size + 1e-6).log() / math.log(2)
    index = level.floor().clamp(roi_min_level, roi_max_level).to(torch.int64) - roi_min_level
    order = index.argsort(stable=True)
    sizes = torch.bincount(index, minlength=levels).tolist()
    return (*rois[order].split_with_sizes(sizes), order.argsort().to(torch.int32))


def collect_and_distribute_fpn_rpn_proposals(
    inputs: Sequence[Tensor],
    *,
    roi_canonical_scale: int = 224,
    roi_canonical_level: int = 4,
    roi_max_level: int = 5,
    roi_min_level: int = 2,
    rpn_max_level: int = 6,
    rpn_min_level: int = 2,
    rpn_post_nms_topN: int = 2000,
    legacy_plus_one: bool = True,
) -> tuple[Tensor, ...]:
    """CollectRpnProposals, then DistributeFpnProposals: the collected rois, and what the latter returns."""
    rois = collect_rpn_proposals(
        inputs, rpn_max_level=rpn_max_level, rpn_min_level=rpn_min_level, rpn_post_nms_topN=rpn_post_nms_topN
    )
    return (
        rois,
        *distribute_fpn_proposals(
            rois,
            roi_canonical_scale=roi_canonical_scale,
            roi_canonical_level=roi_canonical_level,
            roi_max_level=roi_max_level,
            roi_min_level=roi_min_level,
            legacy_plus_one=legacy_plus_one,
        ),
    )
