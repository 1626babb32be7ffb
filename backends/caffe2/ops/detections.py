"""The operators behind a box head: decoding its boxes, and choosing the detections.

Source: Caffe2's `bbox_transform_op` and `box_with_nms_limit_op`, of PyTorch 1.9.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, TypeAlias

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
    counts = _rois_of_images(rois, deltas, im_info, dim)
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


def _rois_of_images(rois: Tensor, deltas: Tensor, im_info: Tensor, dim: int) -> list[int]:
    """How many rois each image has; InputError where shapes do not fit each other."""
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
        return [len(rois)]
    image = rois[:, 0].to(torch.int64)
    if bool(((image < 0) | (image >= images)).any()):
        raise InputError(f"BBoxTransform: a roi of an image that is not among the {images}")
    counts: list[int] = torch.bincount(image, minlength=images).tolist()
    return counts


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
    lower = _soft_nms(soft_nms_method, soft_nms_sigma, nms, soft_nms_min_score_thres, legacy_plus_one)
    scores, boxes = _matrix(scores, "scores"), _matrix(boxes, "boxes")
    foreground, by_class = _foreground(
        scores, boxes, 5 if rotated else 4, cls_agnostic_bbox_reg, input_boxes_include_bg_cls
    )
    limit = detections_per_im if detections_per_im > 0 else None
    found: list[_Detections] = []
    for image in zip(*_by_image(foreground, by_class, batch_splits), strict=True):
        if soft_nms_enabled:
            kept = _soft_suppressed(*image, score_thresh, lower)
        else:
            kept = _suppressed(*image, score_thresh, nms, limit, legacy_plus_one)
        found.append(_best(kept, limit))
    found_scores, found_boxes, classes, rows = _joined(found, foreground, by_class)
    sizes = _sizes(found, scores)
    return (
        found_scores,
        found_boxes,
        (classes + int(output_classes_include_bg_cls)).to(torch.float32),
        sizes.sum(1).to(torch.float32),
        rows.to(torch.int32),
        sizes,
    )


_Detections: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
"""What was found in one image, by class and within it best first: scores f32[m], boxes f32[m, D], foreground classes
i64[m], rows i64[m]."""
_SoftNms: TypeAlias = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def _soft_nms(
    method: str, sigma: float, overlap_threshold: float, score_threshold: float, legacy_plus_one: bool
) -> _SoftNms:
    """`soft_nms` with the operator's arguments; InputError where they are wrong, wanted or not."""
    if method not in ("linear", "gaussian"):
        raise InputError(f"BoxWithNMSLimit: soft_nms_method {method!r} is neither linear nor gaussian")
    return partial(
        soft_nms,
        sigma=sigma,
        overlap_threshold=overlap_threshold,
        score_threshold=score_threshold,
        method=method,
        legacy_plus_one=legacy_plus_one,
    )


def _matrix(tensor: Tensor, what: str) -> Tensor:
    """f32[n, m] of f32[n, m] or f32[n, m, 1, 1], as a fully connected or a convolutional head gives it."""
    if tensor.dim() == 4 and tensor.shape[2:] == (1, 1):
        return tensor[:, :, 0, 0]
    if tensor.dim() != 2:
        raise InputError(f"BoxWithNMSLimit: {what} {list(tensor.shape)}, where two dimensions are expected")
    return tensor


def _foreground(
    scores: Tensor, boxes: Tensor, dim: int, class_agnostic: bool, background_first: bool
) -> tuple[Tensor, Tensor]:
    """Scores f32[n, C - 1] and boxes f32[n, C - 1, D] of the foreground: views, also where classes share a box."""
    count, classes = scores.shape
    box_classes = 1 if class_agnostic else classes if background_first else classes - 1
    if list(boxes.shape) != [count, box_classes * dim]:
        raise InputError(
            f"BoxWithNMSLimit: boxes {list(boxes.shape)} for scores {list(scores.shape)}, "
            f"where {count}, {box_classes * dim} is expected"
        )
    foreground = scores[:, 1:] if background_first else scores[:, :-1]
    by_class = boxes.reshape(count, box_classes, dim)
    if class_agnostic:
        return foreground, by_class.expand(count, foreground.shape[1], dim)
    return foreground, by_class[:, 1:] if background_first else by_class


def _by_image(
    scores: Tensor, boxes: Tensor, batch_splits: Tensor | None
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Both taken apart into the rows of each image."""
    count = len(scores)
    splits = [count] if batch_splits is None else [int(split) for split in batch_splits.tolist()]
    if sum(splits) != count or min(splits, default=0) < 0:
        raise InputError(f"BoxWithNMSLimit: batch_splits {splits} for {count} rows")
    return scores.split_with_sizes(splits), boxes.split_with_sizes(splits)


def _candidates(scores: Tensor, threshold: float) -> tuple[Tensor, Tensor, list[int]]:
    """Classes i64[m] and rows i64[m] of what scores above the threshold, by class, and how many each class has."""
    classes, rows = (scores > threshold).T.nonzero(as_tuple=True)
    return classes, rows, torch.bincount(classes, minlength=scores.shape[1]).tolist()


def _soft_suppressed(scores: Tensor, boxes: Tensor, score_threshold: float, lower: _SoftNms) -> _Detections:
    """The detections of one image, each class's scores lowered by their overlaps."""
    _, rows, sizes = _candidates(scores, score_threshold)
    # Each class has its own scores afterwards, of which only those of the rows that stay are wanted.
    rows_left, scores_left = [rows[:0]], [scores[:0].flatten()]
    for index, candidates in enumerate(rows.split_with_sizes(sizes)):
        stay, lowered = lower(boxes[:, index], scores[:, index], candidates)
        rows_left.append(stay)
        scores_left.append(lowered[stay])
    kept_sizes = torch.tensor([len(stay) for stay in rows_left[1:]], dtype=torch.int64, device=scores.device)
    classes = torch.arange(len(sizes), device=scores.device).repeat_interleave(kept_sizes)
    rows = torch.cat(rows_left)
    return torch.cat(scores_left), boxes[rows, classes], classes, rows


def _suppressed(
    scores: Tensor,
    boxes: Tensor,
    score_threshold: float,
    overlap_threshold: float,
    limit: int | None,
    legacy_plus_one: bool,
) -> _Detections:
    """The detections of one image that no better one of their class overlaps, at most `limit` a class."""
    classes, rows, sizes = _candidates(scores, score_threshold)
    kept = scores[rows, classes]
    order = kept.argsort(descending=True, stable=True)
    order = order[classes[order].argsort(stable=True)]
    candidates = boxes[rows[order], classes[order]]
    stay = nms_by_group(candidates, sizes, overlap_threshold, legacy_plus_one=legacy_plus_one)
    chosen = torch.cat([order[:0], *(group[:limit] for group in stay)])
    kept, classes, rows = (part[order[chosen]] for part in (kept, classes, rows))
    return kept, candidates[chosen], classes, rows


def _best(found: _Detections, limit: int | None) -> _Detections:
    """The `limit` best of all classes, still by class."""
    scores, boxes, classes, rows = found
    if limit is None or len(scores) <= limit:
        return found
    best = scores.argsort(descending=True, stable=True)[:limit]
    best = best[classes[best].argsort(stable=True)]
    return scores[best], boxes[best], classes[best], rows[best]


def _sizes(found: Sequence[_Detections], scores: Tensor) -> Tensor:
    """How many detections there are by image and class, i32[N, C]; `scores` are f32[n, C]."""
    sizes = torch.zeros(len(found), scores.shape[1], dtype=torch.int32, device=scores.device)
    for row, (_, _, classes, _) in zip(sizes, found, strict=True):
        row[1:] = torch.bincount(classes, minlength=len(row) - 1)
    return sizes


def _joined(found: Sequence[_Detections], scores: Tensor, boxes: Tensor) -> _Detections:
    """All images' detections one after the other; of no image none, in the types of `scores` and `boxes`."""
    none = torch.zeros(0, dtype=torch.int64, device=scores.device)
    empty = (scores.new_zeros(0), boxes.new_zeros(0, boxes.shape[-1]), none, none)
    joined, joined_boxes, classes, rows = (torch.cat(part) for part in zip(empty, *found, strict=True))
    return joined, joined_boxes, classes, rows
