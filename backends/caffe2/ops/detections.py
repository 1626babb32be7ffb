"""The operators behind a box head: decoding its boxes, and choosing the detections.

Source: Caffe2's `bbox_transform_op` and `box_with_nms_limit_op`, of PyTorch 1.9.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ..errors import InputError
from .boxes import clip, decode, nms_by_group, soft_nms


def bbox_transform(
    rois: Tensor,
    deltas: Tensor,
    im_info: Tensor,
    *,
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    apply_scale: bool = True,
    rotated: bool = False,
    angle_bound_on: bool = True,
    angle_bound_lo: int = -90,
    angle_bound_hi: int = 90,
    clip_angle_thresh: float = 1.0,
    legacy_plus_one: bool = True,
) -> tuple[Tensor, Tensor]:
    """Each roi decoded with each class's deltas, and clipped to its image.

    With D = 5 if `rotated`, else 4:

    Args:
        rois: f32[n, D + 1], the image first, images in ascending order; or f32[n, D] of one image. In pixels
            of the network's input.
        deltas: f32[n, C * D].
        im_info: f32[N, 3], height, width and scale. Boxes are clipped at height / scale and width / scale,
            rounded.
        apply_scale: whether the result is in pixels of the input again, or of the image before scaling.

    Returns:
        boxes f32[n, C * D], and the number of rois of each image, f32[N].

    Errors:
        InputError: shapes that do not fit each other, an image number out of range.
    """
    dim = 5 if rotated else 4
    if len(weights) != 4:
        raise InputError(f"BBoxTransform: {len(weights)} weights, where 4 are expected")
    if rois.dim() != 2 or rois.shape[1] not in (dim, dim + 1):
        raise InputError(f"BBoxTransform: rois {list(rois.shape)}, where n, {dim} or {dim + 1} is expected")
    if deltas.dim() != 2 or len(deltas) != len(rois) or deltas.shape[1] % dim:
        raise InputError(
            f"BBoxTransform: deltas {list(deltas.shape)}, where {len(rois)}, a multiple of {dim} is expected"
        )
    if im_info.dim() != 2 or im_info.shape[1] != 3:
        raise InputError(f"BBoxTransform: im_info {list(im_info.shape)}, where N, 3 is expected")
    images = len(im_info)
    if rois.shape[1] == dim:
        if images != 1:
            raise InputError(f"BBoxTransform: rois without image numbers for {images} images")
        counts = [len(rois)]
    else:
        image = rois[:, 0].to(torch.int64)
        if bool(((image < 0) | (image >= images)).any()):
            raise InputError(f"BBoxTransform: a roi of an image that is not among the {images}")
        counts = torch.bincount(image, minlength=images).tolist()
    # By position, not by number: rois come grouped by image, and Caffe2 relies on it.
    per_roi = im_info.repeat_interleave(torch.tensor(counts, device=im_info.device), dim=0)
    scale = per_roi[:, 2:3]
    height, width = ((per_roi[:, i : i + 1] / scale + 0.5).trunc() for i in (0, 1))
    boxes = rois[:, -dim:].clone()
    boxes[:, :4] /= scale
    decoded = decode(
        boxes[:, None],
        # Columns of deltas one after the other: several times faster than striding over them.
        deltas.reshape(len(deltas), deltas.shape[1] // dim, dim).movedim(-1, 0).contiguous().movedim(0, -1),
        weights=weights,
        legacy_plus_one=legacy_plus_one,
        angle_bound_on=angle_bound_on,
        angle_bound_lo=angle_bound_lo,
        angle_bound_hi=angle_bound_hi,
    )
    clipped = clip(
        decoded, height, width, clip_angle_thresh=clip_angle_thresh, legacy_plus_one=legacy_plus_one
    )
    if apply_scale:
        clipped[..., :4] *= scale[:, None]
    return clipped.reshape(deltas.shape), torch.tensor(counts, dtype=torch.float32, device=rois.device)


def _matrix(tensor: Tensor, what: str) -> Tensor:
    """f32[n, m] of f32[n, m] or f32[n, m, 1, 1], as a fully connected or a convolutional head gives it."""
    if tensor.dim() == 4 and tensor.shape[2:] == (1, 1):
        return tensor[:, :, 0, 0]
    if tensor.dim() != 2:
        raise InputError(f"BoxWithNMSLimit: {what} {list(tensor.shape)}, where two dimensions are expected")
    return tensor


def box_with_nms_limit(
    scores: Tensor,
    boxes: Tensor,
    batch_splits: Tensor | None = None,
    *,
    score_thresh: float = 0.05,
    nms: float = 0.3,
    detections_per_im: int = 100,
    soft_nms_enabled: bool = False,
    soft_nms_method: Literal["linear", "gaussian"] = "linear",
    soft_nms_sigma: float = 0.5,
    soft_nms_min_score_thres: float = 0.001,
    rotated: bool = False,
    cls_agnostic_bbox_reg: bool = False,
    input_boxes_include_bg_cls: bool = True,
    output_classes_include_bg_cls: bool = True,
    legacy_plus_one: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The detections of each image: what scores above the threshold, suppressed by class, the best of all.

    With D = 5 if `rotated`, else 4, and C classes, of which one is the background:

    Args:
        scores: f32[n, C], the background's first if `input_boxes_include_bg_cls`, last otherwise.
        boxes: f32[n, C * D]; without background f32[n, (C - 1) * D]; f32[n, D] if `cls_agnostic_bbox_reg`. In
            pixels.
        batch_splits: f32[N] or i32[N], how many of the rows belong to each image; all to one if left out.
        output_classes_include_bg_cls: whether the first class after the background is 1, or 0.

    Returns:
        Grouped by image, in it by class, best first: scores f32[m], boxes f32[m, D], classes f32[m]; the
        number of detections of each image, f32[N]; the row, within its image, of each detection, i32[m]; the
        number of detections by image and class, i32[N, C].

    Errors:
        InputError: shapes that do not fit each other, an unknown method.
    """
    dim = 5 if rotated else 4
    if soft_nms_method not in ("linear", "gaussian"):
        raise InputError(
            f"BoxWithNMSLimit: soft_nms_method {soft_nms_method!r} is neither linear nor gaussian"
        )
    scores, boxes = _matrix(scores, "scores"), _matrix(boxes, "boxes")
    count, classes = scores.shape
    with_background = input_boxes_include_bg_cls
    box_classes = 1 if cls_agnostic_bbox_reg else classes if with_background else classes - 1
    if list(boxes.shape) != [count, box_classes * dim]:
        raise InputError(
            f"BoxWithNMSLimit: boxes {list(boxes.shape)} for scores {list(scores.shape)}, "
            f"where {count}, {box_classes * dim} is expected"
        )
    splits = [count] if batch_splits is None else [int(split) for split in batch_splits.tolist()]
    if sum(splits) != count or min(splits, default=0) < 0:
        raise InputError(f"BoxWithNMSLimit: batch_splits {splits} for {count} rows")

    # Only foreground classes from here on, and boxes by class: a view, also where all classes share one box.
    foreground = scores[:, 1:] if with_background else scores[:, :-1]
    by_class = boxes.reshape(count, box_classes, dim)
    if cls_agnostic_bbox_reg:
        by_class = by_class.expand(count, max(classes - 1, 0), dim)
    elif with_background:
        by_class = by_class[:, 1:]

    results: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    keep_sizes = torch.zeros(len(splits), classes, dtype=torch.int32, device=scores.device)
    for image, (image_scores, image_boxes) in enumerate(
        zip(foreground.split_with_sizes(splits), by_class.split_with_sizes(splits), strict=True)
    ):
        above = (image_scores > score_thresh).T
        kept_classes, kept_rows = above.nonzero(as_tuple=True)
        sizes = torch.bincount(kept_classes, minlength=classes - 1).tolist()
        if soft_nms_enabled:
            # Each class has its own scores afterwards, of which only those of the rows that stay are wanted.
            rows_left, scores_left = [], []
            for index, candidates in enumerate(kept_rows.split_with_sizes(sizes)):
                rows, lowered = soft_nms(
                    image_boxes[:, index],
                    image_scores[:, index],
                    candidates,
                    sigma=soft_nms_sigma,
                    overlap_threshold=nms,
                    score_threshold=soft_nms_min_score_thres,
                    method=soft_nms_method,
                    legacy_plus_one=legacy_plus_one,
                )
                rows_left.append(rows)
                scores_left.append(lowered[rows])
            kept_sizes = torch.tensor([len(rows) for rows in rows_left], device=scores.device)
            kept_classes = torch.arange(classes - 1, device=scores.device).repeat_interleave(kept_sizes)
            kept_rows = torch.cat([kept_rows[:0], *rows_left])
            kept_scores = torch.cat([scores[:0, 0], *scores_left])
            kept_boxes = image_boxes[kept_rows, kept_classes]
        else:
            # By class, and within it best first.
            kept_scores = image_scores.T[above]
            order = kept_scores.argsort(descending=True, stable=True)
            order = order[kept_classes[order].argsort(stable=True)]
            candidate_boxes = image_boxes[kept_rows[order], kept_classes[order]]
            stay = nms_by_group(candidate_boxes, sizes, nms, legacy_plus_one=legacy_plus_one)
            limit = detections_per_im if detections_per_im > 0 else count
            chosen = torch.cat([order[:0], *(rows[:limit] for rows in stay)])
            kept_boxes = candidate_boxes[chosen]
            kept_scores, kept_classes, kept_rows = (
                part[order[chosen]] for part in (kept_scores, kept_classes, kept_rows)
            )
        if 0 < detections_per_im < len(kept_scores):
            best = kept_scores.argsort(descending=True, stable=True)[:detections_per_im]
            best = best[kept_classes[best].argsort(stable=True)]
            kept_scores, kept_boxes, kept_classes, kept_rows = (
                part[best] for part in (kept_scores, kept_boxes, kept_classes, kept_rows)
            )
        keep_sizes[image, 1:] = torch.bincount(kept_classes, minlength=classes - 1).to(torch.int32)
        results.append((kept_scores, kept_boxes, kept_classes, kept_rows))
    empty = (
        scores.new_zeros(0),
        boxes.new_zeros(0, dim),
        torch.zeros(0, dtype=torch.int64, device=scores.device),
        torch.zeros(0, dtype=torch.int64, device=scores.device),
    )
    out_scores, out_boxes, out_classes, out_rows = (
        torch.cat(part) for part in zip(empty, *results, strict=True)
    )
    first_class = 1 if output_classes_include_bg_cls else 0
    return (
        out_scores,
        out_boxes,
        (out_classes + first_class).to(torch.float32),
        keep_sizes.sum(1).to(torch.float32),
        out_rows.to(torch.int32),
        keep_sizes,
    )
