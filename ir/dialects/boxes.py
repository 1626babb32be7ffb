"""`det.*` on boxes: normalizing the input, anchors, box regression, and detectron2's box inference.

Boxes are x0 y0 x1 y1 in pixels of the network's input unless said otherwise. Formulas and conventions are
detectron2's (modeling/anchor_generator.py, box_regression.py, roi_heads/fast_rcnn.py, postprocessing.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from ..dims import Dim
from ..errors import IRError
from ..ops import Fresh, op
from ..types import TensorType, Type


def tensor(type: Type | None, rank: int, what: str) -> TensorType:
    """For inference rules: the type as a tensor of that rank. Raises IRError if it is none."""
    if not isinstance(type, TensorType) or type.rank != rank:
        raise IRError(f"{what} must be a tensor of rank {rank}, not {type}")
    return type


def box_sizes(im_info: Tensor, batch_index: Tensor) -> Tensor:
    """Each row's image as f32[R,4]: width, height, width, height."""
    return im_info[batch_index][:, [1, 0, 1, 0]]


def clip(boxes: Tensor, whwh: Tensor) -> Tensor:
    """Boxes cut to their images. whwh: each box's bound, broadcast against the boxes."""
    return torch.minimum(boxes.clamp(min=0), whwh)


@dataclass(frozen=True)
class BoxForm:
    """What ops on upright and on rotated boxes do differently.

    Attributes:
        columns: how many numbers a box is.
        apply_deltas: as `det.apply_deltas`.
        clip: cuts boxes to their images; takes boxes [R,columns] and their bounds (width, height, ...) [4] or [R,4].
        sides: width and height [R,2] of boxes.
        nms: boxes, scores and groups to the rows kept of each group at a threshold, by falling score.
    """

    columns: int
    apply_deltas: Callable[..., Tensor]
    clip: Callable[[Tensor, Tensor], Tensor]
    sides: Callable[[Tensor], Tensor]
    nms: Callable[[Tensor, Tensor, Tensor, float], Tensor]


def _normalize_type(data: Type, im_info: Type, **_: object) -> Type:
    tensor(im_info, 2, "im_info")
    return tensor(data, 4, "data")


@op("det.normalize", infer=_normalize_type)
def normalize(data: Tensor, im_info: Tensor, *, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(data - mean) / std per channel, and zero outside each image.

    detectron2 normalizes the images first and pads the batch with zeros after; `data` comes padded already.

    Shapes: data f32[N,C,H,W] in the model's pixel range; im_info f32[N,3], rows (height, width, scale).
    """
    shift = torch.tensor(mean, dtype=data.dtype, device=data.device).view(-1, 1, 1)
    scale = torch.tensor(std, dtype=data.dtype, device=data.device).view(-1, 1, 1)
    rows = torch.arange(data.shape[2], device=data.device) < im_info[:, 0:1]
    columns = torch.arange(data.shape[3], device=data.device) < im_info[:, 1:2]
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(inside, (data - shift) / scale, 0.0)


def _anchors_type(feature: Type, cell_anchors: Type, **_: object) -> Type:
    shape = tensor(feature, 4, "the feature map").shape
    cells = tensor(cell_anchors, 2, "cell_anchors")
    return TensorType(cells.dtype, (shape[2] * shape[3] * cells.shape[0], cells.shape[1]))


@op("det.anchors", infer=_anchors_type)
def anchors(feature: Tensor, cell_anchors: Tensor, *, stride: int, offset: float) -> Tensor:
    """The cell anchors at every position of a feature map, in the order (row, column, cell anchor).

    Shapes: feature [N,C,h,w], of which only the size matters; cell_anchors f32[A,4] around the origin;
    result f32[h*w*A,4]. `stride` is the map's step in input pixels, `offset` the first position in steps.
    """
    height, width = feature.shape[2:]
    y = (torch.arange(height, dtype=cell_anchors.dtype, device=cell_anchors.device) + offset) * stride
    x = (torch.arange(width, dtype=cell_anchors.dtype, device=cell_anchors.device) + offset) * stride
    yy, xx = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack((xx, yy, xx, yy), dim=-1).reshape(-1, 1, 4)
    return (shifts + cell_anchors).reshape(-1, 4)


def _deltas_type(deltas: Type, boxes: Type, **_: object) -> Type:
    tensor(boxes, 2, "boxes")
    return tensor(deltas, 2, "deltas")


@op("det.apply_deltas", infer=_deltas_type)
def apply_deltas(deltas: Tensor, boxes: Tensor, *, weights: tuple[float, ...], scale_clamp: float) -> Tensor:
    """Move and scale boxes by regression deltas (dx, dy, dw, dh), each divided by its weight first.

    Centre += (dx, dy) * size; size *= exp(min((dw, dh), scale_clamp)).

    Shapes: deltas f32[R,K*4], K predictions for each box; boxes f32[R,4]; result f32[R,K*4].
    """
    d = deltas.reshape(len(deltas), deltas.shape[1] // 4, 4) / torch.tensor(
        weights, dtype=deltas.dtype, device=deltas.device
    )
    size = (boxes[:, 2:] - boxes[:, :2])[:, None]
    centre = boxes[:, None, :2] + 0.5 * size
    new_centre = d[..., :2] * size + centre
    new_size = torch.exp(d[..., 2:].clamp(max=scale_clamp)) * size
    return torch.cat((new_centre - 0.5 * new_size, new_centre + 0.5 * new_size), dim=-1).reshape(deltas.shape)


def box_inference_type(form_columns: int) -> Callable[..., tuple[Type, ...]]:
    """The inference rule of box inference on boxes of so many columns."""

    def rule(boxes: Type, scores: Type, batch_index: Type, im_info: Type, **_: object) -> tuple[Type, ...]:
        scored = tensor(scores, 2, "scores")
        boxed = tensor(boxes, 2, "boxes")
        tensor(batch_index, 1, "batch_index")
        tensor(im_info, 2, "im_info")
        classes = scored.shape[1]
        columns = boxed.shape[1]
        if isinstance(classes, int) and columns not in (form_columns, form_columns * (classes - 1)):
            raise IRError(f"{columns} box columns fit neither one box nor {classes - 1} boxes per row")
        found = Fresh("detections")
        index = TensorType(torch.int64, (found,))
        return (
            TensorType(boxed.dtype, (found, form_columns)),
            TensorType(scored.dtype, (found,)),
            index,
            index,
        )

    return rule


@op("det.box_inference", infer=box_inference_type(4))
def box_inference(
    boxes: Tensor,
    scores: Tensor,
    batch_index: Tensor,
    im_info: Tensor,
    *,
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """From scored boxes to detections: clip, threshold, NMS within each class, the best of each image.

    Rows that are not finite are left out. A score counts when it is greater than `score_thresh`; a box
    suppresses those it overlaps with an IoU greater than `nms_thresh`; `topk_per_image` < 0 keeps all.

    Shapes: boxes f32[R,K*4] or, class-agnostic, f32[R,4]; scores f32[R,K+1], the last column being
    background;
    batch_index i64[R], ascending; im_info f32[N,3].
    Results: boxes f32[D,4], scores f32[D], classes i64[D], batch_index i64[D], by image, then by falling
    score.
    """
    return infer_boxes(
        UPRIGHT,
        boxes,
        scores,
        batch_index,
        im_info,
        score_thresh=score_thresh,
        nms_thresh=nms_thresh,
        topk_per_image=topk_per_image,
    )


def infer_boxes(
    form: BoxForm,
    boxes: Tensor,
    scores: Tensor,
    batch_index: Tensor,
    im_info: Tensor,
    *,
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The body of `det.box_inference`, for boxes of either form."""
    classes = scores.shape[1] - 1
    boxes = boxes.reshape(len(boxes), boxes.shape[1] // form.columns, form.columns)
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for image in range(len(im_info)):
        mine = batch_index == image
        mine &= torch.isfinite(boxes).all(dim=2).all(dim=1) & torch.isfinite(scores).all(dim=1)
        whwh = im_info[image, [1, 0, 1, 0]]
        kept_boxes = form.clip(boxes[mine].flatten(0, 1), whwh).reshape(boxes[mine].shape)
        kept_scores = scores[mine, :-1]
        row, category = torch.nonzero(kept_scores > score_thresh, as_tuple=True)
        candidates = kept_boxes.expand(-1, classes, form.columns)[row, category]
        values = kept_scores[row, category]
        keep = form.nms(candidates.float(), values, category, nms_thresh)
        if topk_per_image >= 0:
            keep = keep[:topk_per_image]
        found.append((candidates[keep], values[keep], category[keep], torch.full_like(keep, image)))
    return (
        torch.cat([f[0] for f in found]),
        torch.cat([f[1] for f in found]),
        torch.cat([f[2] for f in found]),
        torch.cat([f[3] for f in found]),
    )


UPRIGHT = BoxForm(4, apply_deltas, clip, lambda boxes: boxes[:, 2:] - boxes[:, :2], batched_nms)
"""Boxes x0 y0 x1 y1."""


def _clip_type(boxes: Type, batch_index: Type, im_info: Type) -> Type:
    tensor(batch_index, 1, "batch_index")
    tensor(im_info, 2, "im_info")
    return tensor(boxes, 2, "boxes")


@op("det.clip_boxes", infer=_clip_type)
def clip_boxes(boxes: Tensor, batch_index: Tensor, im_info: Tensor) -> Tensor:
    """Boxes cut to their images.

    Shapes: boxes f32[R,4]; batch_index i64[R]; im_info f32[N,3], rows (height, width, scale).
    """
    return clip(boxes, box_sizes(im_info, batch_index))


def _rescale_type(boxes: Type, batch_index: Type, im_info: Type, output_size: Type) -> Type:
    tensor(batch_index, 1, "batch_index")
    tensor(im_info, 2, "im_info")
    tensor(output_size, 2, "output_size")
    return tensor(boxes, 2, "boxes")


@op("det.rescale_boxes", infer=_rescale_type)
def rescale_boxes(boxes: Tensor, batch_index: Tensor, im_info: Tensor, output_size: Tensor) -> Tensor:
    """Boxes from the network's input to the output image: scaled, then cut to it.

    Shapes: boxes f32[D,4]; batch_index i64[D]; im_info f32[N,3]; output_size i64[N,2], rows (height, width).
    """
    target = output_size.to(boxes.dtype)
    scale = (target / im_info[:, :2])[batch_index][:, [1, 0, 1, 0]]
    return clip(boxes * scale, target[batch_index][:, [1, 0, 1, 0]])


def _nonempty_type(boxes: Type, *, threshold: float = 0.0) -> Type:
    tensor(boxes, 2, "boxes")
    return TensorType(torch.int64, (Fresh("kept"),))


@op("det.nonempty", infer=_nonempty_type)
def nonempty(boxes: Tensor, *, threshold: float = 0.0) -> Tensor:
    """The rows (i64[K], ascending) of the boxes f32[D,4] with both sides longer than `threshold` pixels."""
    return torch.nonzero((UPRIGHT.sides(boxes) > threshold).all(dim=1))[:, 0]


def rows_of(type: TensorType, rows: Dim) -> TensorType:
    """The tensor type with another number of rows."""
    return type.with_shape(rows, *type.shape[1:])
