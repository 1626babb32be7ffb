"""The operators behind a box head against the real Caffe2."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .client import RealCaffe2
from .compare import check, check_refused

BOXES = {"rtol": 1e-4, "atol": 1e-3}
"""Coordinates up to a few hundred pixels, after an exponential whose last bits differ."""

TRANSFORM: dict[str, Any] = {
    "weights": [10.0, 10.0, 5.0, 5.0],
    "apply_scale": 1,
    "rotated": 0,
    "angle_bound_on": 1,
    "angle_bound_lo": -180,
    "angle_bound_hi": 180,
    "clip_angle_thresh": 1.0,
    "legacy_plus_one": 0,
}
IM_INFO = np.array([[320, 480, 1.0], [300, 333, 1.7]], dtype=np.float32)


def _rois(counts: list[int], dim: int = 4, seed: int = 0) -> np.ndarray:
    """Rois of images with so many each, some beyond the image, some without area."""
    random = np.random.default_rng(seed)
    count = sum(counts)
    image = np.repeat(np.arange(len(counts)), counts)[:, None]
    corner, side = random.uniform(-50, 400, size=(count, 2)), random.uniform(0, 150, size=(count, 2))
    side[::7] = 0
    if dim == 4:
        return np.concatenate([image, corner, corner + side], axis=1).astype(np.float32)
    angle = random.uniform(-180, 180, size=(count, 1))
    angle[::3] *= 0.005
    return np.concatenate([image, corner, side, angle], axis=1).astype(np.float32)


def _deltas(count: int, columns: int, seed: int = 1, spread: float = 3.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(count, columns)) * spread).astype(np.float32)


@pytest.mark.parametrize("counts", [[20], [12, 8], [0, 5], [5, 0], [0], [1]])
@pytest.mark.parametrize("dim", [4, 5])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"apply_scale": 0},
        {"legacy_plus_one": 1},
        {"weights": [1.0, 2.0, 3.0, 4.0]},
        {"angle_bound_on": 0},
        {"angle_bound_lo": -90, "angle_bound_hi": 90},
        {"clip_angle_thresh": 200.0},
        {"clip_angle_thresh": -1.0},
        {"clip_angle_thresh": 30.0, "legacy_plus_one": 1},
    ],
)
def test_decoding(real: RealCaffe2, counts: list[int], dim: int, change: dict[str, Any]) -> None:
    rois, deltas = _rois(counts, dim), _deltas(sum(counts), 3 * dim)
    arguments = TRANSFORM | {"rotated": int(dim == 5)} | change
    check(real, "BBoxTransform", [rois, deltas, IM_INFO[: len(counts)]], arguments, outputs=2, **BOXES)


def test_decoding_by_default(real: RealCaffe2) -> None:
    inputs = [_rois([9])[:, 1:], _deltas(9, 8), IM_INFO[1:]]
    check(real, "BBoxTransform", inputs, outputs=2, **BOXES)
    check(real, "BBoxTransform", inputs, outputs=1, **BOXES)
    check(real, "BBoxTransform", inputs, {"correct_transform_coords": 1}, outputs=1, **BOXES)


def test_decoding_large_deltas(real: RealCaffe2) -> None:
    inputs = [_rois([9]), _deltas(9, 8, spread=100.0), IM_INFO[:1]]
    check(real, "BBoxTransform", inputs, TRANSFORM, outputs=2, **BOXES)


def test_decoding_what_is_refused(real: RealCaffe2) -> None:
    rois, deltas = _rois([9]), _deltas(9, 8)
    for inputs, match in (
        ([rois[:, 2:], deltas, IM_INFO[:1]], "rois"),
        ([rois, deltas[:8], IM_INFO[:1]], "deltas"),
        ([rois, deltas[:, :7], IM_INFO[:1]], "deltas"),
        ([rois, deltas, IM_INFO[:1, :2]], "im_info"),
        ([rois[:, 1:], deltas, IM_INFO], "without image numbers"),
        ([rois + 1, deltas, IM_INFO[:1]], "not among"),
    ):
        check_refused(real, "BBoxTransform", inputs, TRANSFORM, outputs=2, match=match)


LIMIT: dict[str, Any] = {
    "score_thresh": 0.05,
    "nms": 0.5,
    "detections_per_im": 100,
    "soft_nms_enabled": 0,
    "soft_nms_method": "linear",
    "soft_nms_sigma": 0.5,
    "soft_nms_min_score_thres": 0.001,
    "rotated": 0,
    "cls_agnostic_bbox_reg": 0,
    "input_boxes_include_bg_cls": 0,
    "output_classes_include_bg_cls": 0,
    "legacy_plus_one": 0,
}


def _scores(count: int, classes: int, seed: int = 0, decimals: int | None = None) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(count, classes)) * 2
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return (scores if decimals is None else np.round(scores, decimals)).astype(np.float32)


def _boxes(count: int, classes: int, dim: int = 4, seed: int = 0) -> np.ndarray:
    """Boxes in a few clusters, so that there is something to suppress."""
    random = np.random.default_rng(seed)
    center = random.uniform(50, 150, size=(6, 2))[random.integers(0, 6, size=count)]
    parts = []
    for _ in range(classes):
        corner = center + random.normal(size=(count, 2)) * 8
        side = random.uniform(20, 60, size=(count, 2))
        if dim == 4:
            parts.append(np.concatenate([corner, corner + side], axis=1))
        else:
            parts.append(np.concatenate([corner, side, random.uniform(-180, 180, size=(count, 1))], axis=1))
    return np.concatenate(parts, axis=1).astype(np.float32)


@pytest.mark.parametrize("counts", [[40], [25, 15], [0, 7], [7, 0], [0], [1], [0, 0]])
@pytest.mark.parametrize("dim", [4, 5])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"legacy_plus_one": 1},
        {"nms": 0.2, "score_thresh": 0.3},
        {"detections_per_im": 5},
        {"detections_per_im": 0},
        {"detections_per_im": -1},
        {"cls_agnostic_bbox_reg": 1},
        {"input_boxes_include_bg_cls": 1},
        {"output_classes_include_bg_cls": 1},
        {"input_boxes_include_bg_cls": 1, "output_classes_include_bg_cls": 1, "cls_agnostic_bbox_reg": 1},
        {"soft_nms_enabled": 1},
        {"soft_nms_enabled": 1, "soft_nms_method": "gaussian", "soft_nms_min_score_thres": 0.1},
        {
            "soft_nms_enabled": 1,
            "detections_per_im": 7,
            "soft_nms_min_score_thres": 0.2,
            "legacy_plus_one": 1,
        },
    ],
)
def test_limiting(real: RealCaffe2, counts: list[int], dim: int, change: dict[str, Any]) -> None:
    arguments = LIMIT | {"rotated": int(dim == 5)} | change
    classes = 4
    box_classes = (
        1
        if arguments["cls_agnostic_bbox_reg"]
        else classes
        if arguments["input_boxes_include_bg_cls"]
        else classes - 1
    )
    scores, boxes = _scores(sum(counts), classes), _boxes(sum(counts), box_classes, dim)
    for dtype in (np.float32, np.int32):
        check(
            real,
            "BoxWithNMSLimit",
            [scores, boxes, np.array(counts, dtype=dtype)],
            arguments,
            outputs=6,
            **BOXES,
        )


def test_limiting_by_default(real: RealCaffe2) -> None:
    scores, boxes = _scores(30, 4), _boxes(30, 4)
    for outputs in (3, 4, 6):
        check(real, "BoxWithNMSLimit", [scores, boxes], outputs=outputs, **BOXES)
    check(real, "BoxWithNMSLimit", [scores[..., None, None], boxes[..., None, None]], outputs=6, **BOXES)


@pytest.mark.parametrize("seed", range(3))
def test_limiting_many(real: RealCaffe2, seed: int) -> None:
    scores, boxes = _scores(1000, 21, seed), _boxes(1000, 20, seed=seed)
    check(real, "BoxWithNMSLimit", [scores, boxes], LIMIT, outputs=6, **BOXES)


@pytest.mark.parametrize("change", [{}, {"soft_nms_enabled": 1}])
def test_limiting_equal_scores(real: RealCaffe2, change: dict[str, Any]) -> None:
    # Up to 16 of a class: beyond that Caffe2's sort does not say which of equal scores comes first.
    scores, boxes = _scores(15, 4, decimals=1), _boxes(15, 3)
    check(
        real,
        "BoxWithNMSLimit",
        [scores, boxes],
        LIMIT | change | {"detections_per_im": 0},
        outputs=6,
        **BOXES,
    )


@pytest.mark.parametrize("change", [{}, {"legacy_plus_one": 1}, {"soft_nms_enabled": 1}])
def test_limiting_boxes_without_area(real: RealCaffe2, change: dict[str, Any]) -> None:
    scores, boxes = _scores(40, 4), _boxes(40, 3)
    boxes = boxes.reshape(40, 3, 4)
    boxes[::3, :, 2] = boxes[::3, :, 0]
    boxes[::5, :, 2:] = boxes[::5, :, :2]
    check(real, "BoxWithNMSLimit", [scores, boxes.reshape(40, 12)], LIMIT | change, outputs=6, **BOXES)


@pytest.mark.parametrize("change", [{}, {"legacy_plus_one": 1}])
def test_limiting_boxes_inside_out(real: RealCaffe2, change: dict[str, Any]) -> None:
    scores, boxes = _scores(40, 4), _boxes(40, 3)
    boxes = boxes.reshape(40, 3, 4)
    boxes[::3] = boxes[::3][..., [2, 1, 0, 3]]
    check(real, "BoxWithNMSLimit", [scores, boxes.reshape(40, 12)], LIMIT | change, outputs=6, **BOXES)


def test_limiting_rotated_boxes_without_area(real: RealCaffe2) -> None:
    scores, boxes = _scores(40, 4), _boxes(40, 3, dim=5)
    boxes = boxes.reshape(40, 3, 5)
    boxes[::3, :, 2] = 0
    check(
        real, "BoxWithNMSLimit", [scores, boxes.reshape(40, 15)], LIMIT | {"rotated": 1}, outputs=6, **BOXES
    )


@pytest.mark.parametrize("angle", [0.0, 90.0, -180.0, 33.0])
def test_limiting_rotated_boxes_that_touch(real: RealCaffe2, angle: float) -> None:
    # The same box again, boxes with a common side, with a common corner, one inside of the other.
    offsets = np.array([[0, 0], [0, 0], [20, 0], [20, 20], [2, 1]])
    sizes = np.array([[20, 20], [20, 20], [20, 20], [20, 20], [10, 10]])
    angles = np.full((5, 1), angle)
    boxes = np.concatenate([offsets + 100, sizes, angles], axis=1).astype(np.float32)
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4], [0.5, 0.5]], dtype=np.float32)
    for threshold in (0.0, 0.2, 0.3, 0.9):
        check(
            real,
            "BoxWithNMSLimit",
            [scores, boxes],
            LIMIT | {"rotated": 1, "nms": threshold},
            outputs=6,
            **BOXES,
        )


def test_limiting_what_is_refused(real: RealCaffe2) -> None:
    scores, boxes = _scores(10, 4), _boxes(10, 3)
    check_refused(real, "BoxWithNMSLimit", [scores, boxes[:, :8]], LIMIT, outputs=6, match="boxes")
    check_refused(real, "BoxWithNMSLimit", [scores[0], boxes], LIMIT, outputs=6, match="two dimensions")
    splits = np.array([4, 5], dtype=np.float32)
    check_refused(real, "BoxWithNMSLimit", [scores, boxes, splits], LIMIT, outputs=6, match="batch_splits")
    arguments = LIMIT | {"soft_nms_method": "cubic"}
    check_refused(real, "BoxWithNMSLimit", [scores, boxes], arguments, outputs=6, match="soft_nms_method")
