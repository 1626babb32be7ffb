"""Drawing detections and segments into a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import supervision
from PIL import Image

from detc.frontend.structures import Instances

from .detections import class_name
from .segments import Segment

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


def draw(image: Image.Image, instances: Instances, class_names: Sequence[str]) -> Image.Image:
    """The picture with masks, boxes and labels. The instances are in its pixels.

    A small picture is enlarged by a whole factor first, so that the labels can be read.
    """
    scene, size, factor = _legible(image)
    classes = instances.pred_classes.numpy()
    found = supervision.Detections(
        xyxy=instances.pred_boxes.tensor.numpy() * factor,
        confidence=instances.scores.numpy(),
        class_id=classes,
        mask=_enlarged(instances.pred_masks.numpy(), size) if instances.has("pred_masks") else None,
    )
    labels = [
        f"{class_name(category, class_names)} {score:.2f}"
        for category, score in zip(classes.tolist(), instances.scores.tolist(), strict=True)
    ]
    if found.mask is not None:
        scene = supervision.MaskAnnotator(_PALETTE, opacity=0.45).annotate(scene, found)
    thickness = supervision.calculate_optimal_line_thickness(resolution_wh=size)
    scene = supervision.BoxAnnotator(_PALETTE, thickness=thickness).annotate(scene, found)
    return _labelled(scene, size, found, labels)


def draw_segments(image: Image.Image, segments: Sequence[Segment]) -> Image.Image:
    """The picture with each segment in a color of its own, and its name on it. A small picture is enlarged, as by
    `draw`."""
    scene, size, _ = _legible(image)
    masks = _enlarged(
        np.array([s.mask for s in segments], dtype=bool).reshape(-1, image.height, image.width), size
    )
    ids = np.array([segment.id for segment in segments], dtype=int)
    found = supervision.Detections(xyxy=supervision.mask_to_xyxy(masks), mask=masks, class_id=ids)
    scene = supervision.MaskAnnotator(_PALETTE, opacity=0.5).annotate(scene, found)
    # A segment's box, or its centre of mass, may lie on another one.
    inside = np.array([_innermost(mask) for mask in masks], dtype=float).reshape(-1, 2)
    places = supervision.Detections(xyxy=np.concatenate([inside, inside], axis=1), class_id=ids)
    labels = [s.name if s.score is None else f"{s.name} {s.score:.2f}" for s in segments]
    return _labelled(scene, size, places, labels, text_position=supervision.Position.CENTER)


def _innermost(mask: np.ndarray) -> tuple[int, int]:
    """x and y of the pixel of a mask that is farthest from its edge, the picture's edge included."""
    distance = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)
    y, x = np.unravel_index(distance.argmax(), distance.shape)
    return int(x) - 1, int(y) - 1


def _legible(image: Image.Image) -> tuple[np.ndarray, tuple[int, int], int]:
    """The picture as supervision draws in it, its size (width, height), and by how much it is enlarged."""
    factor = -(-_LEGIBLE // min(image.size))
    size = (image.width * factor, image.height * factor)
    # supervision draws in BGR, as OpenCV does.
    scene = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))[:, :, ::-1].copy()
    return scene, size, factor


def _labelled(
    scene: np.ndarray, size: tuple[int, int], found: supervision.Detections, labels: list[str], **options: Any
) -> Image.Image:
    text = supervision.LabelAnnotator(
        _PALETTE,
        text_scale=supervision.calculate_optimal_text_scale(resolution_wh=size),
        text_padding=4,
        text_color=supervision.Color.BLACK,
        smart_position=True,
        **options,
    )
    return Image.fromarray(text.annotate(scene, found, labels=labels)[:, :, ::-1])


def _enlarged(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Masks bool[D,h,w] at another size (width, height), with smooth outlines."""
    resized = [
        np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BICUBIC)) >= 128
        for mask in masks
    ]
    return np.stack(resized) if resized else np.zeros((0, size[1], size[0]), dtype=bool)
