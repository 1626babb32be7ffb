"""Drawing detections and segments into a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from detc.backends.arrays import as_arrays
from detc.ir.extras import extra
from detc.ir.instances import Instances

from .detections import KEYPOINT_SCORE, boxes_of, names_of, scores_of
from .segments import Segment

with extra("pictures", "drawing pictures"):
    import cv2
    import supervision

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
    scene, size, factor = _legible(image)
    instances = as_arrays(instances)
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
        scene = _with_keypoints(scene, instances.pred_keypoints, factor, thickness)
    return _labelled(scene, size, found, labels)


def _detections(instances: Instances, size: tuple[int, int], factor: int) -> supervision.Detections:
    """The instances as the annotators take them, in the pixels of a picture enlarged to a size (width, height)."""
    boxes = boxes_of(instances) * factor
    data: dict[str, np.ndarray | list[Any]] = {}
    if boxes.shape[1] == 5:
        # OpenCV turns boxes the other way round.
        turned = [((x, y), (w, h), -angle / factor) for x, y, w, h, angle in boxes.tolist()]
        corners = np.array([cv2.boxPoints(box) for box in turned], np.float32).reshape(-1, 4, 2)
        data[_CORNERS] = corners
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    return supervision.Detections(
        xyxy=boxes,
        confidence=scores_of(instances),
        class_id=instances.pred_classes if instances.has("pred_classes") else np.zeros(len(boxes), int),
        mask=_enlarged(instances.pred_masks, size) if instances.has("pred_masks") else None,
        data=data,
    )


def _with_keypoints(scene: np.ndarray, keypoints: np.ndarray, factor: int, thickness: int) -> np.ndarray:
    """Keypoints f32[D,K,3] as points, those of COCO's people joined to skeletons."""
    points = supervision.KeyPoints(
        xy=keypoints[..., :2] * factor, visible=keypoints[..., 2] >= KEYPOINT_SCORE
    )
    if keypoints.shape[1] == _COCO_KEYPOINTS:
        scene = supervision.EdgeAnnotator(_BONES, thickness=thickness).annotate(scene, points)
    drawn: np.ndarray = supervision.VertexAnnotator(_JOINTS, radius=2 * thickness).annotate(scene, points)
    return drawn


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
