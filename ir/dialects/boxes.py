"""`det.*` on boxes: normalizing the input, anchors, box regression, and detectron2's box inference.

Boxes are in pixels of the network's input unless said otherwise, upright f32[R,4] or rotated f32[R,5]: see `box_forms`.
Conventions are detectron2's (modeling/anchor_generator.py, roi_heads/fast_rcnn.py and rotated_fast_rcnn.py,
postprocessing.py).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..dims import Dim
from ..errors import IRError
from ..ops import Fresh, op
from ..types import TensorType, Type
from .box_forms import FORMS, box_columns, form_of


def tensor(type: Type | None, rank: int, what: str) -> TensorType:
    """For inference rules: the type as a tensor of that rank. Raises IRError if it is none."""
    if not isinstance(type, TensorType) or type.rank != rank:
        raise IRError(f"{what} must be a tensor of rank {rank}, not {type}")
    return type


def boxes_type(type: Type | None, what: str = "boxes") -> TensorType:
    """For inference rules: the type as one of upright or rotated boxes, [R,4] or [R,5]. Raises IRError otherwise."""
    boxes = tensor(type, 2, what)
    box_columns(boxes.shape)
    return boxes


def whwh(hw: Tensor) -> Tensor:
    """Rows (height, width, ...) [N,*] as (width, height, width, height) [N,4]: what bounds x0 y0 x1 y1."""
    return hw.index_select(1, torch.tensor([1, 0, 1, 0], device=hw.device))


def box_sizes(im_info: Tensor, batch_index: Tensor) -> Tensor:
    """The bounds f32[R,4] (width, height, width, height) of each row's image. im_info: rows (height, width, ...)."""
    return whwh(im_info).index_select(0, batch_index)


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
    height, width, _ = torch.split(im_info.to(torch.int64).reshape(-1, 3, 1, 1), 1, dim=1)
    rows = torch.arange(data.shape[2], device=data.device)[:, None] < height
    columns = torch.arange(data.shape[3], device=data.device) < width
    return torch.where(rows & columns, (data - shift) / scale, 0.0)


def _anchors_type(feature: Type, cell_anchors: Type, **_: object) -> Type:
    shape = tensor(feature, 4, "the feature map").shape
    cells = boxes_type(cell_anchors, "cell_anchors")
    return TensorType(cells.dtype, (shape[2] * shape[3] * cells.shape[0], cells.shape[1]))


@op("det.anchors", infer=_anchors_type)
def anchors(feature: Tensor, cell_anchors: Tensor, *, stride: int, offset: float) -> Tensor:
    """The cell anchors at every position of a feature map, in the order (row, column, cell anchor).

    Shapes: feature [N,C,h,w], of which only the size matters; cell_anchors f32[A,4] or f32[A,5] around the origin;
    result f32[h*w*A,4] or f32[h*w*A,5]. `stride` is the map's step in input pixels, `offset` the first position in
    steps.
    """
    height, width = feature.shape[2:]
    y = (torch.arange(height, dtype=cell_anchors.dtype, device=cell_anchors.device) + offset) * stride
    x = (torch.arange(width, dtype=cell_anchors.dtype, device=cell_anchors.device) + offset) * stride
    xy = torch.stack((x.expand(height, width), y[:, None].expand(height, width)), dim=-1)
    return form_of(cell_anchors).move(cell_anchors, xy.reshape(height * width, 1, 2)).flatten(0, 1)


def _deltas_type(deltas: Type, boxes: Type, **_: object) -> Type:
    boxes_type(boxes)
    return tensor(deltas, 2, "deltas")


@op("det.apply_deltas", infer=_deltas_type)
def apply_deltas(deltas: Tensor, boxes: Tensor, *, weights: tuple[float, ...], scale_clamp: float) -> Tensor:
    """Move and scale boxes by regression deltas (dx, dy, dw, dh), each divided by its weight first.

    Centre += (dx, dy) * size; size *= exp(min((dw, dh), scale_clamp)). Rotated boxes are turned too, by a fifth delta
    in radians: angle += da, brought into [-180, 180) degrees. Their dx and dy are along the image's axes all the same.

    Shapes: deltas f32[R,K*4], K predictions for each box; boxes f32[R,4]; result f32[R,K*4]. Rotated: 5 for 4.
    """
    columns = boxes.shape[1]
    per_box = deltas.reshape(deltas.shape[0], deltas.shape[1] // columns, columns)
    decoded = decode(per_box, *parts(boxes[:, None]), weights=weights, scale_clamp=scale_clamp)
    return decoded.reshape(deltas.shape)


def parts(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes [...,4] or [...,5] as their centres [...,2] and the rest: size [...,2] and, rotated, angle [...,3]."""
    return form_of(boxes).parts(boxes)


def decode(
    deltas: Tensor, centre: Tensor, rest: Tensor, *, weights: tuple[float, ...], scale_clamp: float
) -> Tensor:
    """`det.apply_deltas` of deltas [...,4] or [...,5] and the parts of boxes, which broadcast."""
    scaled = deltas / torch.tensor(weights, dtype=deltas.dtype, device=deltas.device)
    return form_of(deltas).decode(scaled, centre, rest, scale_clamp=scale_clamp)


def clip(boxes: Tensor, bounds: Tensor) -> Tensor:
    """Boxes [...,4] or [...,5] cut to their bounds (width, height, width, height), which broadcast."""
    return form_of(boxes).clip(boxes, bounds)


def sides(boxes: Tensor) -> Tensor:
    """Width and height [...,2] of boxes [...,4] or [...,5]."""
    return form_of(boxes).sides(boxes)


def _box_inference_type(
    boxes: Type, scores: Type, batch_index: Type, im_info: Type, **_: object
) -> tuple[Type, ...]:
    boxed, scored = tensor(boxes, 2, "boxes"), tensor(scores, 2, "scores")
    tensor(batch_index, 1, "batch_index")
    tensor(im_info, 2, "im_info")
    columns = box_columns(boxed.shape, scored.shape[1] - 1)
    found = Fresh("detections")
    index = TensorType(torch.int64, (found,))
    return TensorType(boxed.dtype, (found, columns)), TensorType(scored.dtype, (found,)), index, index


@op("det.box_inference", infer=_box_inference_type)
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
    Of rotated boxes only nearly upright ones are clipped, and one suppresses those that it overlaps, by their true
    overlap, with an IoU of `nms_thresh` or more.

    Shapes: boxes f32[R,K*4] or, class-agnostic, f32[R,4]; scores f32[R,K+1], the last column being background;
    batch_index i64[R], ascending; im_info f32[N,3].
    Results: boxes f32[D,4], scores f32[D], classes i64[D], batch_index i64[D], by image, then by falling score.
    Rotated: 5 for 4.
    """
    classes = scores.shape[1] - 1
    form = FORMS[box_columns(boxes.shape, classes)]
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


def _clip_type(boxes: Type, batch_index: Type, im_info: Type) -> Type:
    tensor(batch_index, 1, "batch_index")
    tensor(im_info, 2, "im_info")
    return boxes_type(boxes)


@op("det.clip_boxes", infer=_clip_type)
def clip_boxes(boxes: Tensor, batch_index: Tensor, im_info: Tensor) -> Tensor:
    """Boxes cut to their images, of rotated ones those that are nearly upright.

    Shapes: boxes f32[R,4] or f32[R,5]; batch_index i64[R]; im_info f32[N,3], rows (height, width, scale).
    """
    return clip(boxes, box_sizes(im_info, batch_index))


def _rescale_type(boxes: Type, batch_index: Type, im_info: Type, output_size: Type) -> Type:
    tensor(batch_index, 1, "batch_index")
    tensor(im_info, 2, "im_info")
    tensor(output_size, 2, "output_size")
    return boxes_type(boxes)


@op("det.rescale_boxes", infer=_rescale_type)
def rescale_boxes(boxes: Tensor, batch_index: Tensor, im_info: Tensor, output_size: Tensor) -> Tensor:
    """Boxes from the network's input to the output image: scaled, then cut to it as by `det.clip_boxes`.

    Unequal factors would shear a rotated box: it becomes the rectangle with the sheared one's side lengths whose height
    keeps its direction.

    Shapes: boxes f32[D,4] or f32[D,5]; batch_index i64[D]; im_info f32[N,3]; output_size i64[N,2], rows (height,
    width).
    """
    target = whwh(output_size.to(boxes.dtype))
    factors = (target / whwh(im_info)).index_select(0, batch_index)
    return clip(form_of(boxes).rescale(boxes, factors), target.index_select(0, batch_index))


def _nonempty_type(boxes: Type, *, threshold: float = 0.0) -> Type:
    boxes_type(boxes)
    return TensorType(torch.int64, (Fresh("kept"),))


@op("det.nonempty", infer=_nonempty_type)
def nonempty(boxes: Tensor, *, threshold: float = 0.0) -> Tensor:
    """The rows (i64[K], ascending) of the boxes f32[D,4] or f32[D,5] with both sides longer than `threshold` pixels."""
    return torch.nonzero(sides(boxes).amin(dim=1) > threshold)[:, 0]


def rows_of(type: TensorType, rows: Dim) -> TensorType:
    """The tensor type with another number of rows."""
    return type.with_shape(rows, *type.shape[1:])
