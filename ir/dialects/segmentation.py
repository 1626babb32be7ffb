"""`det.*` on semantic segmentation, and the panoptic combination of instances with it.

Conventions are detectron2's (modeling/postprocessing.py, modeling/meta_arch/panoptic_fpn.py). The bodies are Python
that torch.jit.script takes.
"""

from __future__ import annotations

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
    sizes, output_sizes = im_info.to(torch.int64).cpu(), output_size.cpu()
    height, width = int(output_sizes[:, 0].max()), int(output_sizes[:, 1].max())
    canvas = logits.new_zeros((len(logits), logits.shape[1], height, width))
    for image in range(len(logits)):
        own = logits[image : image + 1, :, : int(sizes[image, 0]), : int(sizes[image, 1])]
        bottom, right = int(output_sizes[image, 0]), int(output_sizes[image, 1])
        resized = F.interpolate(own, [bottom, right], mode="bilinear", align_corners=False)
        canvas[image, :, :bottom, :right] = resized[0]
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
    sizes = output_size.cpu()
    panoptic = torch.zeros(
        (len(sem_seg), sem_seg.shape[2], sem_seg.shape[3]), dtype=torch.int32, device=sem_seg.device
    )
    segments: list[Tensor] = []
    for image in range(len(sem_seg)):
        height, width = int(sizes[image, 0]), int(sizes[image, 1])
        # The others' masks need not be copied.
        mine = torch.nonzero((batch_index == image) & (scores.double() >= score_threshold))[:, 0]
        kept, canvas = place_instances(
            masks[mine, :height, :width], scores[mine], overlap_threshold, score_threshold
        )
        kept = mine[kept]
        things = classes[kept]
        labels = sem_seg[image, :, :height, :width].argmax(dim=0)
        free = canvas == 0
        present = torch.bincount(labels.flatten(), minlength=sem_seg.shape[1]) > 0
        area = torch.bincount(labels[free], minlength=sem_seg.shape[1])
        is_stuff = present & (area >= stuff_area_limit)
        is_stuff[0] = False
        number = torch.cumsum(is_stuff, dim=0) + len(things)
        ids = torch.where(is_stuff, number, torch.zeros_like(number)).to(torch.int32)
        panoptic[image, :height, :width] = torch.where(free, ids[labels], canvas)
        category = torch.cat((things, torch.nonzero(is_stuff)[:, 0]))
        segment = torch.arange(1, len(category) + 1, device=category.device)
        is_thing = (segment <= len(things)).to(torch.int64)
        segments.append(torch.stack((torch.full_like(segment, image), segment, is_thing, category), dim=1))
    return panoptic, torch.cat(segments)


def place_instances(
    masks: Tensor, scores: Tensor, overlap_threshold: float, score_threshold: float
) -> tuple[Tensor, Tensor]:
    """The instances of one image that make segments: their rows i64[K] by falling score, and whose each pixel is
    i32[h,w], the first one's 1, nobody's 0.

    Shapes: masks bool[D,h,w]; scores f32[D]. The thresholds are those of `panoptic_combine`.
    """
    canvas = torch.zeros((masks.shape[1], masks.shape[2]), dtype=torch.int32, device=masks.device)
    order = torch.argsort(scores, descending=True, stable=True)
    # In float64, as detectron2 compares them.
    good = scores[order].double() >= score_threshold
    order = order[good]
    is_kept = torch.zeros(len(order), dtype=torch.bool, device=masks.device)
    segment = 0
    for place in range(len(order)):
        row = int(order[place])
        free = masks[row] & (canvas == 0)
        area, left = int(torch.count_nonzero(masks[row])), int(torch.count_nonzero(free))
        if area > 0 and (area - left) / area <= overlap_threshold:
            segment += 1
            canvas.masked_fill_(free, segment)
            is_kept[place] = True
    return order[is_kept], canvas
