"""`det.*` on keypoints: where heatmaps are highest, and bringing that into the output image.

Conventions are detectron2's (structures/keypoints.py, modeling/roi_heads/keypoint_head.py, postprocessing.py).
`keypoint_inference` is Python that torch.jit.script takes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import IRError
from ..ops import op
from ..types import Type
from .boxes import tensor, whwh


def _keypoint_inference_type(heatmaps: Type, boxes: Type) -> Type:
    maps, placed = tensor(heatmaps, 4, "heatmaps"), tensor(boxes, 2, "boxes")
    if maps.shape[0] != placed.shape[0] or placed.shape[1] != 4:
        raise IRError(f"the boxes {placed} do not fit the heatmaps {maps}")
    return maps.with_shape(*maps.shape[:2], 3)


@op("det.keypoint_inference", infer=_keypoint_inference_type)
def keypoint_inference(heatmaps: Tensor, boxes: Tensor) -> Tensor:
    """Where in the image each keypoint's heatmap is highest, and how sure that is.

    A box's maps are resized (bicubic, a = -0.75, borders repeated) to its size in whole pixels, rounded up, at least
    one. The first pixel of the greatest value, taken at its centre and scaled back to the box's true size, is the
    keypoint. The score is its value's share in the softmax over the map as it was given: exp(greatest - m) summed
    over the cells m, inverted; with a value between cells it can exceed 1.

    Shapes: heatmaps f32[D,K,S,S], logits; boxes f32[D,4]; result f32[D,K,3], rows (x, y, score).
    """
    found = heatmaps.new_zeros((heatmaps.shape[0], heatmaps.shape[1], 3))
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    pixels = sides.ceil()
    counts = pixels.to(torch.int64).cpu()
    for row in range(len(heatmaps)):
        width, height = int(counts[row, 0]), int(counts[row, 1])
        resized = F.interpolate(heatmaps[row : row + 1], [height, width], mode="bicubic", align_corners=False)
        best, place = resized[0].flatten(1).max(dim=1)
        cell = torch.stack((place % width, place // width), dim=1).to(boxes.dtype)
        xy = (cell + 0.5) * (sides[row] / pixels[row]) + boxes[row, :2]
        score = 1.0 / (heatmaps[row] - best[:, None, None]).exp().sum((1, 2))
        found[row] = torch.cat((xy, score[:, None]), dim=1)
    return found


def _rescale_keypoints_type(keypoints: Type, batch_index: Type, im_info: Type, output_size: Type) -> Type:
    tensor(batch_index, 1, "batch_index")
    tensor(im_info, 2, "im_info")
    tensor(output_size, 2, "output_size")
    return tensor(keypoints, 3, "keypoints")


@op("det.rescale_keypoints", infer=_rescale_keypoints_type)
def rescale_keypoints(keypoints: Tensor, batch_index: Tensor, im_info: Tensor, output_size: Tensor) -> Tensor:
    """Keypoints from the network's input to the output image; scores stay.

    Shapes: keypoints f32[D,K,3], rows (x, y, score); batch_index i64[D]; im_info f32[N,3]; output_size i64[N,2],
    rows (height, width).
    """
    factors = whwh(output_size.to(keypoints.dtype)) / whwh(im_info)
    own = factors[:, :2].index_select(0, batch_index)[:, None]
    xy, score = torch.split(keypoints, [2, 1], dim=2)
    return torch.cat((xy * own, score), dim=2)
