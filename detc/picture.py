"""Drawing detections into a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import supervision
import torch
from PIL import Image

from detc.frontend.structures import Instances
from detc.ir.dialects.rotated_kernels import corners_of

from .detections import KEYPOINT_SCORE, boxes_of, names_of, scores_of

_LEGIBLE = 480
"""The shorter side in pixels from which on labels can be read without covering what they name."""
_PALETTE = supervision.ColorPalette.from_hex(
    [
        "#4cc9f0",
        "#ffd166",
        "#f78c6b",
        "#06d6a0",
        "#c77dff",
        "#f15bb5",
        "#90be6d",
        "#9bf6ff",
        "#e9c46a",
        "#b8c0ff",
    ]
)
"""Colors of classes: unlike one another, and light, for black text."""
_BONES, _JOINTS = (supervision.Color.from_hex(color) for color in ("#ffffff", "#d90429"))
_COCO_KEYPOINTS = 17
"""A person has so many in COCO, whose skeleton supervision knows."""
_CORNERS = supervision.config.ORIENTED_BOX_COORDINATES
"""Under this name supervision's detections hold the corners f32[D,4,2] of rotated boxes."""


def draw(image: Image.Image, instances: Instances, class_names: Sequence[str]) -> Image.Image:
    """The picture with masks, boxes, keypoints and labels. The instances are in its pixels.

    A small picture is enlarged by a whole factor first, so that the labels can be read.
    """
    factor = -(-_LEGIBLE // min(image.size))
    size = (image.width * factor, image.height * factor)
    # supervision draws in BGR, as OpenCV does.
    scene = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))[:, :, ::-1].copy()
    found = _detections(instances, size, factor)
    labels = [
        f"{name} {score:.2f}"
        for name, score in zip(names_of(instances, class_names), scores_of(instances).tolist(), strict=True)
    ]
    if found.mask is not None:
        scene = supervision.MaskAnnotator(_PALETTE, opacity=0.45).annotate(scene, found)
    thickness = supervision.calculate_optimal_line_thickness(resolution_wh=size)
    outline = supervision.OrientedBoxAnnotator if _CORNERS in found.data else supervision.BoxAnnotator
    scene = outline(_PALETTE, thickness=thickness).annotate(scene, found)
    if instances.has("pred_keypoints"):
        scene = _draw_keypoints(scene, instances.pred_keypoints.numpy(), factor, thickness)
    text = supervision.LabelAnnotator(
        _PALETTE,
        text_scale=supervision.calculate_optimal_text_scale(resolution_wh=size),
        text_padding=4,
        text_color=supervision.Color.BLACK,
        smart_position=True,
    )
    scene = text.annotate(scene, found, labels=labels)
    return Image.fromarray(scene[:, :, ::-1])


def _detections(instances: Instances, size: tuple[int, int], factor: int) -> supervision.Detections:
    """The instances as the annotators take them, in the pixels of a picture enlarged to a size (width, height)."""
    boxes, data = boxes_of(instances), {}
    if boxes.shape[1] == 5:
        corners = corners_of(boxes).numpy() * factor
        boxes = torch.from_numpy(np.concatenate((corners.min(1), corners.max(1)), axis=1)) / factor
        data[_CORNERS] = corners
    classes = instances.pred_classes if instances.has("pred_classes") else torch.zeros(len(boxes))
    return supervision.Detections(
        xyxy=boxes.numpy() * factor,
        confidence=scores_of(instances).numpy(),
        class_id=classes.numpy().astype(int),
        mask=_enlarged(instances.pred_masks.numpy(), size) if instances.has("pred_masks") else None,
        data=data,
    )


def _draw_keypoints(scene: np.ndarray, keypoints: np.ndarray, factor: int, thickness: int) -> np.ndarray:
    """Keypoints f32[D,K,3] as points, those of COCO's people joined to skeletons."""
    points = supervision.KeyPoints(
        xy=keypoints[..., :2] * factor, visible=keypoints[..., 2] >= KEYPOINT_SCORE
    )
    if keypoints.shape[1] == _COCO_KEYPOINTS:
        scene = supervision.EdgeAnnotator(_BONES, thickness=thickness).annotate(scene, points)
    drawn: np.ndarray = supervision.VertexAnnotator(_JOINTS, radius=2 * thickness).annotate(scene, points)
    return drawn


def _enlarged(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Masks bool[D,h,w] at another size (width, height), with smooth outlines."""
    resized = [
        np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BICUBIC)) >= 128
        for mask in masks
    ]
    return np.stack(resized) if resized else np.zeros((0, size[1], size[0]), dtype=bool)
