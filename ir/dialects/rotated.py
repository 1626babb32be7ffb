"""`det.rotated_*`: what a detector of rotated boxes does otherwise than one of upright boxes.

Rotated boxes are f32[R,5], rows (centre x, centre y, width, height, angle), in pixels and degrees, counter-clockwise
as seen, with y pointing down. Conventions are detectron2's (structures/rotated_boxes.py, modeling/box_regression.py,
modeling/proposal_generator/rrpn.py, modeling/roi_heads/rotated_fast_rcnn.py, layers/roi_align_rotated.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import IRError
from ..ops import Fresh, op
from ..types import TensorType, Type
from .boxes import BoxForm, box_inference_type, infer_boxes, tensor
from .pooling import levels_of_areas, roi_pool_type
from .proposals import grid_proposals_type, propose, rpn_proposals_type
from .rotated_kernels import batched_nms_rotated, roi_align_rotated_by_level

UPRIGHT_WITHIN = 1.0
"""Boxes turned by at most so many degrees are clipped to their image; there is no one way to clip the others."""


def _rotated(type: Type, what: str) -> TensorType:
    boxes = tensor(type, 2, what)
    if boxes.shape[1] != 5:
        raise IRError(f"{what} must be rotated boxes [R,5], not {boxes}")
    return boxes


def normalized_angles(boxes: Tensor) -> Tensor:
    """Boxes [R,5] with angles in [-180, 180)."""
    return torch.cat((boxes[:, :4], (boxes[:, 4:] + 180.0) % 360.0 - 180.0), dim=1)


def clip_rotated(boxes: Tensor, whwh: Tensor) -> Tensor:
    """Boxes [R,5] with normalized angles, those that are nearly upright cut to their images; no side grows.

    whwh: the images' width and height, broadcast against the boxes in the first two of its columns.
    """
    boxes = normalized_angles(boxes)
    bound = whwh[..., :2]
    centre, size = boxes[:, :2], boxes[:, 2:4]
    low = torch.minimum((centre - size / 2).clamp(min=0), bound)
    high = torch.minimum((centre + size / 2).clamp(min=0), bound)
    cut = torch.cat(((low + high) / 2, torch.minimum(size, high - low), boxes[:, 4:]), dim=1)
    return torch.where(boxes[:, 4:].abs() <= UPRIGHT_WITHIN, cut, boxes)


def _rotated_anchors_type(feature: Type, cell_anchors: Type, **_: object) -> Type:
    shape = tensor(feature, 4, "the feature map").shape
    cells = _rotated(cell_anchors, "cell_anchors")
    return cells.with_shape(shape[2] * shape[3] * cells.shape[0], 5)


@op("det.rotated_anchors", infer=_rotated_anchors_type)
def rotated_anchors(feature: Tensor, cell_anchors: Tensor, *, stride: int, offset: float) -> Tensor:
    """As `det.anchors`, with cell_anchors f32[A,5]: only the centre follows the position. Result f32[h*w*A,5]."""
    height, width = feature.shape[2:]
    y = (torch.arange(height, dtype=cell_anchors.dtype, device=cell_anchors.device) + offset) * stride
    x = (torch.arange(width, dtype=cell_anchors.dtype, device=cell_anchors.device) + offset) * stride
    yy, xx = torch.meshgrid(y, x, indexing="ij")
    zero = torch.zeros_like(xx)
    shifts = torch.stack((xx, yy, zero, zero, zero), dim=-1).reshape(-1, 1, 5)
    return (shifts + cell_anchors).reshape(-1, 5)


def _rotated_deltas_type(deltas: Type, boxes: Type, **_: object) -> Type:
    _rotated(boxes, "boxes")
    return tensor(deltas, 2, "deltas")


@op("det.rotated_apply_deltas", infer=_rotated_deltas_type)
def rotated_apply_deltas(
    deltas: Tensor, boxes: Tensor, *, weights: tuple[float, ...], scale_clamp: float
) -> Tensor:
    """Move, scale and turn boxes by deltas (dx, dy, dw, dh, da), each divided by its weight first.

    Centre += (dx, dy) * size; size *= exp(min((dw, dh), scale_clamp)); angle += da, which is in radians, brought
    into [-180, 180) degrees. Sides are not turned with the box: dx and dy are along the image's axes.

    Shapes: deltas f32[R,K*5], K predictions for each box; boxes f32[R,5]; result f32[R,K*5].
    """
    d = deltas.reshape(len(deltas), deltas.shape[1] // 5, 5) / torch.tensor(
        weights, dtype=deltas.dtype, device=deltas.device
    )
    centre, size, angle = (part[:, None] for part in (boxes[:, :2], boxes[:, 2:4], boxes[:, 4:]))
    moved = d[..., :2] * size + centre
    grown = torch.exp(d[..., 2:4].clamp(max=scale_clamp)) * size
    turned = (d[..., 4:] * (180.0 / math.pi) + angle + 180.0) % 360.0 - 180.0
    return torch.cat((moved, grown, turned), dim=-1).reshape(deltas.shape)


ROTATED = BoxForm(5, rotated_apply_deltas, clip_rotated, lambda boxes: boxes[:, 2:4], batched_nms_rotated)
"""Boxes as this module has them. One suppresses those that it overlaps with an IoU of the threshold or more."""


@op("det.rotated_rpn_proposals", infer=rpn_proposals_type)
def rotated_rpn_proposals(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    im_info: Tensor,
    *,
    weights: tuple[float, ...],
    scale_clamp: float,
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `det.rpn_proposals`, for rotated boxes: only nearly upright ones are clipped, and NMS takes their true
    overlap; a box goes when its IoU with a better one is `nms_thresh` or more.

    Shapes, per level: logits f32[N,A,h,w], deltas f32[N,A*5,h,w], anchors f32[h*w*A,5]; im_info f32[N,3].
    Results: boxes f32[P,5], objectness logits f32[P], batch_index i64[P], by image, then by falling logit.
    """
    return propose(
        ROTATED,
        logits,
        deltas,
        anchors,
        im_info,
        weights=weights,
        scale_clamp=scale_clamp,
        nms_thresh=nms_thresh,
        pre_nms_topk=pre_nms_topk,
        post_nms_topk=post_nms_topk,
        min_box_size=min_box_size,
    )


@op("det.rotated_grid_proposals", infer=grid_proposals_type)
def rotated_grid_proposals(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    cell_anchors: Sequence[Tensor],
    im_info: Tensor,
    *,
    strides: tuple[int, ...],
    offset: float,
    weights: tuple[float, ...],
    scale_clamp: float,
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """`det.rotated_rpn_proposals` over the anchors of `det.rotated_anchors`, as `det.grid_proposals` has them.

    Shapes, per level: logits f32[N,A,h,w], deltas f32[N,A*5,h,w], cell_anchors f32[A,5]; im_info f32[N,3].
    Results: as those of `det.rotated_rpn_proposals`.
    """
    placed = [
        rotated_anchors(score, cells, stride=stride, offset=offset)
        for score, cells, stride in zip(logits, cell_anchors, strides, strict=True)
    ]
    return rotated_rpn_proposals(
        logits,
        deltas,
        placed,
        im_info,
        weights=weights,
        scale_clamp=scale_clamp,
        nms_thresh=nms_thresh,
        pre_nms_topk=pre_nms_topk,
        post_nms_topk=post_nms_topk,
        min_box_size=min_box_size,
    )


@op("det.rotated_box_inference", infer=box_inference_type(5))
def rotated_box_inference(
    boxes: Tensor,
    scores: Tensor,
    batch_index: Tensor,
    im_info: Tensor,
    *,
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `det.box_inference`, for rotated boxes: only nearly upright ones are clipped, and NMS takes their true
    overlap; a box goes when its IoU with a better one of its class is `nms_thresh` or more.

    Shapes: boxes f32[R,K*5] or, class-agnostic, f32[R,5]; scores f32[R,K+1], the last column being background;
    batch_index i64[R], ascending; im_info f32[N,3].
    Results: boxes f32[D,5], scores f32[D], classes i64[D], batch_index i64[D], by image, then by falling score.
    """
    return infer_boxes(
        ROTATED,
        boxes,
        scores,
        batch_index,
        im_info,
        score_thresh=score_thresh,
        nms_thresh=nms_thresh,
        topk_per_image=topk_per_image,
    )


def _rotated_roi_pool_type(
    features: tuple[Type, ...], boxes: Type, batch_index: Type, **rest: object
) -> Type:
    _rotated(boxes, "boxes")
    return roi_pool_type(features, boxes, batch_index, **rest)  # type: ignore[arg-type]


@op("det.rotated_roi_pool", infer=_rotated_roi_pool_type)
def rotated_roi_pool(
    features: Sequence[Tensor],
    boxes: Tensor,
    batch_index: Tensor,
    *,
    output_size: tuple[int, int],
    scales: tuple[float, ...],
    sampling_ratio: int,
    canonical_box_size: int,
    canonical_level: int,
) -> Tensor:
    """As `det.roi_pool` with ROIAlignV2, along the boxes' own axes.

    Samples are bilinear; they are zero more than a pixel outside of the map, and clamped to it up to there.
    `sampling_ratio` 0 takes as many samples along a bin's side as it is pixels long, rounded up; a box without area
    pools to zero.

    Shapes: features [N,C,h,w] each, from fine to coarse; boxes f32[R,5]; batch_index i64[R]; result [R,C,oh,ow].
    """
    rois = torch.cat((batch_index[:, None].to(boxes.dtype), boxes), dim=1)
    levels = levels_of_areas(boxes[:, 2] * boxes[:, 3], scales, canonical_box_size, canonical_level)
    return roi_align_rotated_by_level(
        list(features),
        rois,
        levels,
        output_size=list(output_size),
        scales=list(scales),
        sampling_ratio=sampling_ratio,
    )


def _rotated_rescale_type(boxes: Type, batch_index: Type, im_info: Type, output_size: Type) -> Type:
    tensor(batch_index, 1, "batch_index")
    tensor(im_info, 2, "im_info")
    tensor(output_size, 2, "output_size")
    return _rotated(boxes, "boxes")


@op("det.rotated_rescale_boxes", infer=_rotated_rescale_type)
def rotated_rescale_boxes(boxes: Tensor, batch_index: Tensor, im_info: Tensor, output_size: Tensor) -> Tensor:
    """Rotated boxes from the network's input to the output image: scaled, then cut to it where nearly upright.

    Unequal factors would shear a box: it becomes the rectangle with the sheared one's side lengths whose height keeps
    its direction.

    Shapes: boxes f32[D,5]; batch_index i64[D]; im_info f32[N,3]; output_size i64[N,2], rows (height, width).
    """
    target = output_size.to(boxes.dtype)
    y_factor, x_factor = (target / im_info[:, :2])[batch_index].unbind(dim=1)
    x, y, width, height, angle = boxes.unbind(dim=1)
    theta = angle * (math.pi / 180.0)
    cos, sin = torch.cos(theta), torch.sin(theta)
    scaled = (
        x * x_factor,
        y * y_factor,
        width * torch.sqrt((x_factor * cos) ** 2 + (y_factor * sin) ** 2),
        height * torch.sqrt((x_factor * sin) ** 2 + (y_factor * cos) ** 2),
        torch.atan2(x_factor * sin, y_factor * cos) * (180.0 / math.pi),
    )
    return clip_rotated(torch.stack(scaled, dim=1), target[batch_index][:, [1, 0]])


def _rotated_nonempty_type(boxes: Type, *, threshold: float = 0.0) -> Type:
    _rotated(boxes, "boxes")
    return TensorType(torch.int64, (Fresh("kept"),))


@op("det.rotated_nonempty", infer=_rotated_nonempty_type)
def rotated_nonempty(boxes: Tensor, *, threshold: float = 0.0) -> Tensor:
    """The rows (i64[K], ascending) of the boxes f32[D,5] with both sides longer than `threshold` pixels."""
    return torch.nonzero((ROTATED.sides(boxes) > threshold).all(dim=1))[:, 0]
