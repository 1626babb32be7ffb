"""The operators of a region proposal network: decoding anchors, dealing proposals out to feature levels.

Regions of interest are f32[n, 5] (image, x0, y0, x1, y1) or f32[n, 6] (image, center x, center y, width,
height, angle), in pixels of the network's input. Source: Caffe2's `generate_proposals_op` and
`collect_and_distribute_fpn_rpn_proposals_op`, of PyTorch 1.9.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
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
    if scores.dim() != 4 or anchors.dim() != 2 or anchors.shape[1] not in (4, 5):
        raise InputError(
            f"GenerateProposals: scores {list(scores.shape)} and anchors {list(anchors.shape)}, "
            "where N, A, H, W and A, 4 or 5 are expected"
        )
    images, count, height, width = scores.shape
    dim = anchors.shape[1]
    if list(bbox_deltas.shape) != [images, count * dim, height, width] or len(anchors) != count:
        raise InputError(
            f"GenerateProposals: deltas {list(bbox_deltas.shape)} and anchors {list(anchors.shape)} "
            f"do not fit scores {list(scores.shape)}"
        )
    if list(im_info.shape) != [images, 3]:
        raise InputError(f"GenerateProposals: im_info {list(im_info.shape)} for {images} images")
    stride = as_float32(1.0 / as_float32(spatial_scale))
    all_rois, all_scores = [], []
    for image in range(images):
        flat = scores[image].reshape(-1)
        top = best_first(flat, pre_nms_topN)
        anchor = top.div(height * width, rounding_mode="floor")
        cell = top - anchor * (height * width)
        row = cell.div(max(width, 1), rounding_mode="floor")
        shift_x, shift_y = (cell - row * width).to(anchors.dtype) * stride, row.to(anchors.dtype) * stride
        still = torch.zeros_like(shift_x)
        columns = (shift_x, shift_y, shift_x, shift_y) if dim == 4 else (shift_x, shift_y, *[still] * 3)
        deltas = bbox_deltas[image].reshape(count, dim, -1)[anchor, :, cell]
        boxes = decode(
            anchors[anchor] + torch.stack(columns, dim=1),
            deltas,
            weights=(1.0, 1.0, 1.0, 1.0),
            legacy_plus_one=legacy_plus_one,
            angle_bound_on=angle_bound_on,
            angle_bound_lo=angle_bound_lo,
            angle_bound_hi=angle_bound_hi,
        )
        image_height, image_width, scale = im_info[image].unbind()
        boxes = clip(
            boxes,
            image_height.trunc(),
            image_width.trunc(),
            clip_angle_thresh=clip_angle_thresh,
            legacy_plus_one=legacy_plus_one,
        )
        box_width, box_height = sides(boxes, legacy_plus_one=legacy_plus_one)
        center_x, center_y = (
            (boxes[:, 0] + box_width / 2, boxes[:, 1] + box_height / 2)
            if dim == 4
            else boxes[:, :2].unbind(1)
        )
        least = min_size * scale
        fit = (
            (box_width >= least)
            & (box_height >= least)
            & (center_x < image_width)
            & (center_y < image_height)
        )
        boxes, top = boxes[fit], top[fit]
        limit = post_nms_topN if 0 < post_nms_topN < len(boxes) else -1
        kept = nms(boxes, nms_thresh, limit=limit, legacy_plus_one=legacy_plus_one)
        all_rois.append(torch.nn.functional.pad(boxes[kept], (1, 0), value=float(image)))
        all_scores.append(flat[top[kept]])
    if not all_rois:
        return scores.new_zeros(0, dim + 1), scores.new_zeros(0)
    return torch.cat(all_rois), torch.cat(all_scores)


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
        rois = torch.nn.functional.pad(rois, (1, 0))
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
