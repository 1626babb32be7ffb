"""From what a detector predicts at its input's resolution to results at the resolution asked for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from detc.ir.structures import Boxes, Instances


def detector_postprocess(
    results: Instances, output_height: int, output_width: int, mask_threshold: float = 0.5
) -> Instances:
    """Scale instances to another image size; unlike detectron2's function it leaves its argument as it is.

    Args:
        results: raw detections with pred_boxes or proposal_boxes, in pixels of `results.image_size`;
            pred_masks are probabilities [N, 1, M, M], pred_keypoints [N, K, 3].
        output_height: in pixels.
        output_width: in pixels.
        mask_threshold: probability from which a pixel belongs to a mask.

    Returns:
        The instances whose boxes, clipped to the output, are not empty; pred_masks are bool[N', height,
        width].
    """
    input_height, input_width = results.image_size
    scale_x, scale_y = output_width / input_width, output_height / input_height
    scaled = Instances((output_height, output_width), **results.get_fields())
    field = "pred_boxes" if scaled.has("pred_boxes") else "proposal_boxes"
    boxes = scaled.get(field).clone()
    boxes.scale(scale_x, scale_y)
    boxes.clip(scaled.image_size)
    scaled.set(field, boxes)
    scaled = scaled[boxes.nonempty()]
    if scaled.has("pred_masks"):
        scaled.pred_masks = paste_masks_in_image(
            scaled.pred_masks[:, 0], scaled.pred_boxes, scaled.image_size, mask_threshold
        )
    if scaled.has("pred_keypoints"):
        factors = scaled.pred_keypoints.new_tensor([scale_x, scale_y, 1.0])
        scaled.pred_keypoints = scaled.pred_keypoints * factors
    return scaled


def paste_masks_in_image(
    masks: Tensor, boxes: Boxes | Tensor, image_shape: tuple[int, int], threshold: float = 0.5
) -> Tensor:
    """Resample the masks of boxes, bilinearly, at the pixels of the image.

    A mask covers its box; pixel centres lie at .5. Outside a mask the probability falls off to 0 within half
    a cell.

    Args:
        masks: [N, M, M], probabilities.
        boxes: [N, 4], x0, y0, x1, y1 in the image's pixels.
        image_shape: (height, width) of the image.
        threshold: probability from which a pixel belongs to a mask; below 0 for the probabilities times 255.

    Returns:
        bool[N, height, width], or uint8 with a threshold below 0.
    """
    corners = boxes.tensor if isinstance(boxes, Boxes) else boxes
    if masks.shape[-1] != masks.shape[-2] or len(corners) != len(masks):
        raise ValueError(
            f"need one square mask per box, not masks {tuple(masks.shape)} and {len(corners)} boxes"
        )
    height, width = image_shape
    masks = masks if masks.is_floating_point() else masks.float()
    pasted = torch.zeros(
        (len(masks), height, width), device=masks.device, dtype=torch.bool if threshold >= 0 else torch.uint8
    )
    for image, mask, box in zip(pasted, masks, corners, strict=True):
        # Beyond one pixel around the box there is nothing to sample.
        x0, y0 = (box[:2].floor() - 1).clamp(min=0).int().tolist()
        x1, y1 = (box[2:].ceil() + 1).int().tolist()
        x1, y1 = max(min(x1, width), x0), max(min(y1, height), y0)
        values = _sample_mask(mask, box, (x0, y0, x1, y1))
        image[y0:y1, x0:x1] = values >= threshold if threshold >= 0 else (values * 255).to(torch.uint8)
    return pasted


def _sample_mask(mask: Tensor, box: Tensor, window: tuple[int, int, int, int]) -> Tensor:
    """One mask [M, M] of a box at the pixels of a window x0, y0, x1, y1 of the image."""
    left, top, right, bottom = window
    x0, y0, x1, y1 = box.unbind()
    x = torch.arange(left, right, device=box.device, dtype=torch.float32) + 0.5
    y = torch.arange(top, bottom, device=box.device, dtype=torch.float32) + 0.5
    x = (x - x0) / (x1 - x0) * 2 - 1
    y = (y - y0) / (y1 - y0) * 2 - 1
    grid = torch.stack((x[None, :].expand(len(y), -1), y[:, None].expand(-1, len(x))), dim=-1)
    return F.grid_sample(mask[None, None], grid[None].to(mask.dtype), align_corners=False)[0, 0]


def sem_seg_postprocess(
    result: Tensor, img_size: tuple[int, int], output_height: int, output_width: int
) -> Tensor:
    """Crop the logits of one padded image, [K, H, W], to its true (height, width), and resize them
    bilinearly.
    """
    cropped = result[None, :, : img_size[0], : img_size[1]]
    return F.interpolate(cropped, size=(output_height, output_width), mode="bilinear", align_corners=False)[0]
