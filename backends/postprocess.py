"""What a compiled file leaves to its caller, on arrays: bringing detections into the output image.

The same as `det.postprocess`, `det.paste_masks` and their like, which are written for tensors; tests hold them equal.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from detc.ir.instances import BOX_FIELDS, UPRIGHT_WITHIN


def postprocess(
    fields: Mapping[str, np.ndarray], im_info: np.ndarray, output_size: np.ndarray, mask_threshold: float
) -> dict[str, np.ndarray]:
    """Detections in the output image: boxes and keypoints rescaled, empty boxes left out, masks pasted.

    Shapes: fields by detectron2's names, each with D rows, "batch_index" i64[D] among them; im_info f32[N,3], rows
    (height, width, scale) of the network's input; output_size i64[N,2], rows (height, width). `pred_masks` turns from
    f32[D,1,S,S] to bool[D,h,w].
    """
    index = fields["batch_index"]
    name = next(field for field in BOX_FIELDS if field in fields)
    factors = (output_size.astype(np.float32) / im_info[:, :2])[index][:, ::-1]
    bounds = output_size.astype(np.float32)[index][:, ::-1]
    upright = fields[name].shape[1] == 4
    boxes = (_rescaled if upright else _rescaled_rotated)(fields[name], factors, bounds)
    sides = boxes[:, 2:] - boxes[:, :2] if upright else boxes[:, 2:4]
    rows = np.flatnonzero((sides > 0).all(axis=1))
    found = {field: value[rows] for field, value in {**fields, name: boxes}.items()}
    if "pred_keypoints" in found:
        scale = np.concatenate([factors[rows], np.ones((len(rows), 1), np.float32)], axis=1)
        found["pred_keypoints"] = found["pred_keypoints"] * scale[:, None]
    if "pred_masks" in found:
        found["pred_masks"] = paste_masks(
            found["pred_masks"], found[name], found["batch_index"], output_size, mask_threshold
        )
    return found


def _rescaled(boxes: np.ndarray, factors: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    clipped: np.ndarray = np.clip(boxes * np.tile(factors, 2), 0, np.tile(bounds, 2))
    return clipped


def _rescaled_rotated(boxes: np.ndarray, factors: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Unequal factors would shear a box: it becomes the rectangle with the sheared one's side lengths whose height
    keeps its direction. Nearly upright ones are then cut."""
    theta = boxes[:, 4:] * np.float32(np.pi / 180)
    cos, sin = np.cos(theta), np.sin(theta)
    across, down = factors * np.concatenate([cos, sin], 1), factors * np.concatenate([sin, cos], 1)
    lengths = np.stack([np.sqrt((side * side).sum(axis=1)) for side in (across, down)], axis=1)
    angle = np.arctan2(down[:, :1], down[:, 1:]) * np.float32(180 / np.pi)
    angle = (angle + 180) % 360 - 180
    centre, size = boxes[:, :2] * factors, boxes[:, 2:4] * lengths
    low, high = np.clip(centre - size / 2, 0, bounds), np.clip(centre + size / 2, 0, bounds)
    cut = np.concatenate([(low + high) / 2, np.minimum(size, high - low)], axis=1)
    placed = np.where(np.abs(angle) <= UPRIGHT_WITHIN, cut, np.concatenate([centre, size], axis=1))
    return np.concatenate([placed, angle], axis=1).astype(boxes.dtype)


def paste_masks(
    masks: np.ndarray, boxes: np.ndarray, batch_index: np.ndarray, output_size: np.ndarray, threshold: float
) -> np.ndarray:
    """Masks of boxes resampled (bilinear, zero outside) into the image and compared with the threshold.

    Shapes: masks f32[D,1,S,S] probabilities; boxes f32[D,4] in output pixels; batch_index i64[D]; output_size
    i64[N,2], rows (height, width); result bool[D,h,w] on a canvas as large as the largest height and width.
    """
    canvas = np.zeros((len(masks), *output_size.max(axis=0)), bool)
    for row, (mask, box) in enumerate(zip(masks, boxes, strict=True)):
        x0, y0, x1, y1 = box
        height, width = output_size[batch_index[row]]
        # Outside of the box every sample is zero: one pixel around it is enough.
        top, bottom = max(int(y0) - 1, 0), min(int(np.ceil(y1)) + 1, int(height))
        left, right = max(int(x0) - 1, 0), min(int(np.ceil(x1)) + 1, int(width))
        down = _weights(np.arange(top, bottom, dtype=np.float32), y0, y1, mask.shape[1])
        across = _weights(np.arange(left, right, dtype=np.float32), x0, x1, mask.shape[2])
        canvas[row, top:bottom, left:right] = down @ mask[0] @ across.T >= threshold
    return canvas


def _weights(pixels: np.ndarray, low: float, high: float, cells: int) -> np.ndarray:
    """How much each pixel takes of each cell along one axis of a grid from low to high: f32[pixels,cells]."""
    place = (pixels + np.float32(0.5) - low) / (high - low) * cells - np.float32(0.5)
    weights: np.ndarray = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(cells, dtype=np.float32)))
    return weights
