"""Drawing detections into a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import supervision
from PIL import Image

from detc.frontend.structures import Instances

from .detections import class_name

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
    factor = -(-_LEGIBLE // min(image.size))
    size = (image.width * factor, image.height * factor)
    # supervision draws in BGR, as OpenCV does.
    scene = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))[:, :, ::-1].copy()
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
    text = supervision.LabelAnnotator(
        _PALETTE,
        text_scale=supervision.calculate_optimal_text_scale(resolution_wh=size),
        text_padding=4,
        text_color=supervision.Color.BLACK,
        smart_position=True,
    )
    scene = text.annotate(scene, found, labels=labels)
    return Image.fromarray(scene[:, :, ::-1])


def _enlarged(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Masks bool[D,h,w] at another size (width, height), with smooth outlines."""
    resized = [
        np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BICUBIC)) >= 128
        for mask in masks
    ]
    return np.stack(resized) if resized else np.zeros((0, size[1], size[0]), dtype=bool)
