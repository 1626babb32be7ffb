"""Drawing detections into a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import supervision
from PIL import Image

from detc.frontend.structures import Instances


def draw(image: Image.Image, instances: Instances, class_names: Sequence[str]) -> Image.Image:
    """The picture with masks, boxes and labels. The instances are in its pixels."""
    classes = instances.pred_classes.numpy()
    found = supervision.Detections(
        xyxy=instances.pred_boxes.tensor.numpy(),
        confidence=instances.scores.numpy(),
        class_id=classes,
        mask=instances.pred_masks.numpy() if instances.has("pred_masks") else None,
    )
    labels = [
        f"{class_names[c] if c < len(class_names) else c} {score:.2f}"
        for c, score in zip(classes.tolist(), instances.scores.tolist(), strict=True)
    ]
    scale = supervision.calculate_optimal_text_scale(resolution_wh=image.size)
    # supervision draws in BGR, as OpenCV does.
    scene = np.asarray(image.convert("RGB"))[:, :, ::-1].copy()
    if found.mask is not None:
        scene = supervision.MaskAnnotator(opacity=0.45).annotate(scene, found)
    thickness = supervision.calculate_optimal_line_thickness(resolution_wh=image.size)
    scene = supervision.BoxAnnotator(thickness=thickness).annotate(scene, found)
    text = supervision.LabelAnnotator(text_scale=scale, text_padding=3)
    scene = text.annotate(scene, found, labels=labels)
    return Image.fromarray(scene[:, :, ::-1])
