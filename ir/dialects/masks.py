"""`det.*` on masks. Conventions are detectron2's (modeling/roi_heads/mask_head.py, layers/mask_ops.py)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import IRError
from ..ops import Fresh, op
from ..types import TensorType, Type
from .boxes import tensor


def _mask_inference_type(logits: Type, classes: Type) -> Type:
    shape = tensor(logits, 4, "mask logits")
    tensor(classes, 1, "classes")
    return shape.with_shape(shape.shape[0], 1, *shape.shape[2:])


@op("det.mask_inference", infer=_mask_inference_type)
def mask_inference(logits: Tensor, classes: Tensor) -> Tensor:
    """Each detection's own mask as probabilities.

    Shapes: logits f32[D,K,S,S], or f32[D,1,S,S] when class-agnostic; classes i64[D]; result f32[D,1,S,S].
    """
    return class_logits(logits, classes).sigmoid()


def _class_logits_type(logits: Type, classes: Type) -> Type:
    if not isinstance(logits, TensorType) or logits.rank < 2:
        raise IRError(f"logits must be a tensor [D,K,...], not {logits}")
    tensor(classes, 1, "classes")
    return logits.with_shape(logits.shape[0], 1, *logits.shape[2:])


@op("det.class_logits", infer=_class_logits_type)
def class_logits(logits: Tensor, classes: Tensor) -> Tensor:
    """The logits of each detection's own class.

    Shapes: logits f32[D,K,...], or f32[D,1,...] when class-agnostic; classes i64[D]; result f32[D,1,...].
    """
    if logits.shape[1] == 1:
        return logits
    rest = logits.shape[2:]
    own = classes.reshape(-1, *[1] * (1 + len(rest))).expand(-1, 1, *rest)
    return logits.gather(1, own)


def _paste_type(masks: Type, boxes: Type, batch_index: Type, output_size: Type, **_: object) -> Type:
    rows = tensor(masks, 4, "masks").shape[0]
    tensor(boxes, 2, "boxes")
    tensor(batch_index, 1, "batch_index")
    tensor(output_size, 2, "output_size")
    return TensorType(torch.bool, (rows, Fresh("output_height"), Fresh("output_width")))


@op("det.paste_masks", infer=_paste_type)
def paste_masks(
    masks: Tensor, boxes: Tensor, batch_index: Tensor, output_size: Tensor, *, threshold: float
) -> Tensor:
    """Masks of boxes resampled (bilinear, zero outside) into the image and compared with the threshold.

    A batch whose output sizes differ is pasted on a canvas as large as the largest height and width; an
    image's own part is the upper left one.

    Shapes: masks f32[D,1,S,S] probabilities; boxes f32[D,4] in output pixels; batch_index i64[D];
    output_size i64[N,2], rows (height, width); result bool[D,h,w].
    """
    height, width = (int(size) for size in output_size.amax(dim=0))
    canvas = torch.zeros(len(masks), height, width, dtype=torch.bool, device=masks.device)
    for row, (mask, box) in enumerate(zip(masks, boxes, strict=True)):
        own_height, own_width = (int(size) for size in output_size[batch_index[row]])
        x0, y0, x1, y1 = box.tolist()
        # Outside of the box every sample is zero: one pixel around it is enough.
        left, top = max(int(x0) - 1, 0), max(int(y0) - 1, 0)
        right, bottom = min(-int(-x1 // 1) + 1, own_width), min(-int(-y1 // 1) + 1, own_height)
        y = (torch.arange(top, bottom, device=masks.device, dtype=masks.dtype) + 0.5 - box[1]) / (
            box[3] - box[1]
        )
        x = (torch.arange(left, right, device=masks.device, dtype=masks.dtype) + 0.5 - box[0]) / (
            box[2] - box[0]
        )
        grid = torch.stack((x.expand(len(y), len(x)), y[:, None].expand(len(y), len(x))), dim=-1) * 2 - 1
        pasted = F.grid_sample(mask[None], grid[None], align_corners=False)[0, 0]
        canvas[row, top:bottom, left:right] = pasted >= threshold
    return canvas
