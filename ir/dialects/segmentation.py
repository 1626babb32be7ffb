"""`det.*` on semantic segmentation, and the panoptic combination of instances with it.

Conventions are detectron2's (modeling/postprocessing.py, modeling/meta_arch/panoptic_fpn.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import IRError
from ..ops import Fresh, op
from ..types import TensorType, Type
from .boxes import tensor


def _sem_seg_type(logits: Type, im_info: Type, output_size: Type) -> Type:
    shape = tensor(logits, 4, "logits")
    tensor(im_info, 2, "im_info")
    tensor(output_size, 2, "output_size")
    return shape.with_shape(*shape.shape[:2], Fresh("output_height"), Fresh("output_width"))


@op("det.sem_seg_postprocess", infer=_sem_seg_type)
def sem_seg_postprocess(logits: Tensor, im_info: Tensor, output_size: Tensor) -> Tensor:
    """Each image's logits, cut to the true image and resized (bilinear, half-pixel centres) to its output size.

    A batch whose output sizes differ has a canvas as large as the largest height and width; an image's own part is
    the upper left one, and zero is around it.

    Shapes: logits f32[N,C,H,W], as high and wide as the network's padded input; im_info f32[N,3], rows (height,
    width, scale); output_size i64[N,2], rows (height, width); result f32[N,C,h,w].
    """
    height, width = (int(size) for size in output_size.amax(dim=0))
    canvas = logits.new_zeros(*logits.shape[:2], height, width)
    for image, (info, size) in enumerate(zip(im_info.tolist(), output_size.tolist(), strict=True)):
        own = logits[image, None, :, : int(info[0]), : int(info[1])]
        resized = F.interpolate(own, size=size, mode="bilinear", align_corners=False)[0]
        canvas[image, :, : size[0], : size[1]] = resized
    return canvas


def _panoptic_type(
    masks: Type, scores: Type, classes: Type, batch_index: Type, sem_seg: Type, output_size: Type, **_: object
) -> tuple[Type, ...]:
    if tensor(masks, 3, "masks").dtype != torch.bool:
        raise IRError(f"masks must be pasted into the image, bool[D,h,w], not {masks}")
    for operand, name in ((scores, "scores"), (classes, "classes"), (batch_index, "batch_index")):
        tensor(operand, 1, name)
    batch, _classes, height, width = tensor(sem_seg, 4, "sem_seg").shape
    tensor(output_size, 2, "output_size")
    return (
        TensorType(torch.int32, (batch, height, width)),
        TensorType(torch.int64, (Fresh("segments"), 4)),
    )


@op("det.panoptic_combine", infer=_panoptic_type)
def panoptic_combine(
    masks: Tensor,
    scores: Tensor,
    classes: Tensor,
    batch_index: Tensor,
    sem_seg: Tensor,
    output_size: Tensor,
    *,
    overlap_threshold: float,
    stuff_area_limit: float,
    score_threshold: float,
) -> tuple[Tensor, Tensor]:
    """One segment per pixel: an image's instances by falling score, then stuff where nothing is yet.

    An instance below `score_threshold` makes no segment, nor does one of whose pixels a share greater than
    `overlap_threshold` is covered already. Class 0 of `sem_seg` stands for all things; any other class makes a
    segment of the pixels left to it if these are `stuff_area_limit` or more.

    Shapes: masks bool[D,h,w], scores f32[D], classes i64[D], batch_index i64[D]; sem_seg f32[N,C,h,w];
    output_size i64[N,2], rows (height, width): an image's part of the canvas.
    Results: the id of each pixel's segment i32[N,h,w], 0 for none, counted from 1 in each image; the segments
    i64[S,4], rows (batch_index, id, isthing, category_id), by image and id.
    """
    panoptic = torch.zeros(len(sem_seg), *sem_seg.shape[2:], dtype=torch.int32, device=sem_seg.device)
    segments: list[tuple[int, int, int, int]] = []
    for image, (height, width) in enumerate(output_size.tolist()):
        rows = torch.nonzero(batch_index == image)[:, 0]
        canvas = panoptic[image, :height, :width]
        found = kept_instances(masks[rows, :height, :width], scores[rows], overlap_threshold, score_threshold)
        segment = 0
        for row, free in found:
            segment += 1
            canvas[free] = segment
            segments.append((image, segment, 1, int(classes[rows[row]])))
        labels = sem_seg[image, :, :height, :width].argmax(dim=0)
        for label in torch.unique(labels).tolist():
            free = (labels == label) & (canvas == 0)
            if label == 0 or int(free.sum()) < stuff_area_limit:
                continue
            segment += 1
            canvas[free] = segment
            segments.append((image, segment, 0, label))
    return panoptic, torch.tensor(segments, dtype=torch.int64, device=sem_seg.device).reshape(-1, 4)


def kept_instances(
    masks: Tensor, scores: Tensor, overlap_threshold: float, score_threshold: float
) -> Iterator[tuple[int, Tensor]]:
    """The instances of one image that make segments, by falling score: the row, and its pixels bool[h,w].

    Shapes: masks bool[D,h,w]; scores f32[D]. The thresholds are those of `panoptic_combine`.
    """
    taken = torch.zeros(masks.shape[1:], dtype=torch.bool, device=masks.device)
    for row in torch.argsort(scores, descending=True, stable=True).tolist():
        if float(scores[row]) < score_threshold:
            return
        free = masks[row] & ~taken
        area, left = int(masks[row].sum()), int(free.sum())
        if area and (area - left) / area <= overlap_threshold:
            taken |= free
            yield row, free
