"""The operators on regions of interest against the real Caffe2."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .client import RealCaffe2
from .compare import check, check_refused

POOLING: dict[str, Any] = {
    "order": "NCHW",
    "spatial_scale": 0.25,
    "pooled_h": 7,
    "pooled_w": 7,
    "sampling_ratio": 0,
    "aligned": 1,
}
SAMPLES = {"rtol": 1e-4, "atol": 1e-4}


def _features(images: int = 2, channels: int = 5, height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(images, channels, height, width)).astype(np.float32)


def _rois(count: int, images: int = 2, rotated: bool = False) -> np.ndarray:
    """Rois on a map of 120 x 80 pixels, reaching beyond it."""
    random = np.random.default_rng(1)
    image = random.integers(0, images, size=(count, 1))
    corner, side = random.uniform(-20, 110, size=(count, 2)), random.uniform(0.5, 90, size=(count, 2))
    if rotated:
        angle = random.uniform(-180, 180, size=(count, 1))
        return np.concatenate([image, corner, side, angle], axis=1).astype(np.float32)
    return np.concatenate([image, corner, corner + side], axis=1).astype(np.float32)


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("count", [0, 1, 40])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"aligned": 0},
        {"sampling_ratio": 2},
        {"sampling_ratio": 2, "aligned": 0},
        {"sampling_ratio": -1},
        {"pooled_h": 14, "pooled_w": 3},
        {"spatial_scale": 0.3},
        {"spatial_scale": 1.0 / 32},
    ],
)
def test_pooling(real: RealCaffe2, change: dict[str, Any], count: int, rotated: bool) -> None:
    type_ = "RoIAlignRotated" if rotated else "RoIAlign"
    check(real, type_, [_features(), _rois(count, rotated=rotated)], POOLING | change, **SAMPLES)


@pytest.mark.parametrize("type_", ["RoIAlign", "RoIAlignRotated"])
def test_pooling_with_channels_last(real: RealCaffe2, type_: str) -> None:
    features = np.ascontiguousarray(_features().transpose(0, 2, 3, 1))
    rois = _rois(20, rotated=type_ == "RoIAlignRotated")
    check(real, type_, [features, rois], POOLING | {"order": "NHWC"}, **SAMPLES)
    check(real, type_, [features, rois[:0]], POOLING | {"order": "NHWC"}, **SAMPLES)


@pytest.mark.parametrize("type_", ["RoIAlign", "RoIAlignRotated"])
def test_pooling_of_one_image(real: RealCaffe2, type_: str) -> None:
    rois = _rois(10, images=1, rotated=type_ == "RoIAlignRotated")[:, 1:]
    check(real, type_, [_features(1), rois], POOLING, **SAMPLES)


@pytest.mark.parametrize("type_", ["RoIAlign", "RoIAlignRotated"])
def test_pooling_by_default(real: RealCaffe2, type_: str) -> None:
    rois = _rois(10, rotated=type_ == "RoIAlignRotated")
    check(real, type_, [_features(), rois], **SAMPLES)


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("rotated", [False, True])
def test_rois_without_area(real: RealCaffe2, ratio: int, aligned: int, rotated: bool) -> None:
    if rotated:
        rois = [[0, 30, 30, 0, 20, 10], [0, 30, 30, 20, 0, 10], [1, 5, 5, 0, 0, 0], [1, 30, 30, 20, 20, 45]]
    else:
        rois = [[0, 30, 30, 30, 50], [0, 30, 30, 50, 30], [1, 5, 5, 5, 5], [1, 10, 10, 30, 30]]
    arguments = POOLING | {"sampling_ratio": ratio, "aligned": aligned}
    type_ = "RoIAlignRotated" if rotated else "RoIAlign"
    check(real, type_, [_features(), np.array(rois, np.float32)], arguments, **SAMPLES)


@pytest.mark.parametrize("ratio", [0, 3])
@pytest.mark.parametrize("angle", [None, 0.0, 90.0, -135.0])
def test_rois_at_the_border(real: RealCaffe2, ratio: int, angle: float | None) -> None:
    corners = [[0, 0, 120, 80], [-40, -40, -10, -10], [100, 60, 300, 200], [-4, -4, 4, 4], [118, 78, 122, 82]]
    rois = np.array([[0, *corner] for corner in corners], dtype=np.float32)
    arguments = POOLING | {"sampling_ratio": ratio}
    if angle is None:
        check(real, "RoIAlign", [_features(), rois], arguments, **SAMPLES)
        return
    center, side = (rois[:, 1:3] + rois[:, 3:]) / 2, rois[:, 3:] - rois[:, 1:3]
    angles = np.full((len(rois), 1), angle, dtype=np.float32)
    rois = np.concatenate([rois[:, :1], center, side, angles], axis=1)
    check(real, "RoIAlignRotated", [_features(), rois], arguments, **SAMPLES)


def test_pooling_that_is_refused(real: RealCaffe2) -> None:
    features, inside_out = _features(), np.array([[0, 30, 30, 20, 50]], dtype=np.float32)
    check_refused(real, "RoIAlign", [features, inside_out], POOLING, match="negative size")
    check_refused(real, "RoIAlign", [features, _rois(3)[:, 2:]], POOLING, match="rois")
    check_refused(real, "RoIAlign", [features[0], _rois(3)], POOLING, match="four dimensions")
    check_refused(real, "RoIAlignRotated", [features, _rois(3)[:, 1:]], POOLING, match="rois")


@pytest.mark.parametrize("shape", [(5, 3, 2, 2), (1, 3, 1, 1), (5, 4)])
def test_permutation(real: RealCaffe2, shape: tuple[int, ...]) -> None:
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    order = np.random.default_rng(1).permutation(shape[0]).astype(np.int32)
    check(real, "BatchPermutation", [data, order], rtol=0, atol=0)


def test_permutation_of_nothing(real: RealCaffe2) -> None:
    check(
        real, "BatchPermutation", [np.zeros((0, 3, 2, 2), np.float32), np.zeros(0, np.int32)], rtol=0, atol=0
    )


def test_permutation_that_is_refused(real: RealCaffe2) -> None:
    data = np.zeros((3, 2), np.float32)
    check_refused(real, "BatchPermutation", [data, np.zeros(2, np.int32)], match="indices")


def _heatmaps(count: int, keypoints: int, side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, keypoints, side, side)).astype(np.float32) * 3


@pytest.mark.parametrize("count", [0, 1, 12])
@pytest.mark.parametrize("side", [2, 3, 14])
@pytest.mark.parametrize("softmax", [0, 1])
def test_keypoints(real: RealCaffe2, count: int, side: int, softmax: int) -> None:
    arguments = {"should_output_softmax": softmax}
    boxes = _rois(count)[:, 1:]
    check(real, "HeatmapMaxKeypoint", [_heatmaps(count, 5, side), boxes], arguments, rtol=1e-3, atol=1e-3)


def test_keypoints_of_smooth_heatmaps(real: RealCaffe2) -> None:
    y, x = np.mgrid[:20, :20]
    centers = np.random.default_rng(0).uniform(0, 19, size=(6, 4, 2, 1, 1))
    heatmaps = 8 - ((x - centers[:, :, 0]) ** 2 + 1.5 * (y - centers[:, :, 1]) ** 2) / 12
    inputs = [heatmaps.astype(np.float32), _rois(6)[:, 1:]]
    check(real, "HeatmapMaxKeypoint", inputs, {"should_output_softmax": 1}, rtol=1e-4, atol=1e-3)


def test_keypoints_of_ties(real: RealCaffe2) -> None:
    # Plateaus, ridges and constant maps, on which the refinement has nothing to solve; boxes without area.
    heatmaps = np.round(_heatmaps(30, 4, 6) / 3)
    heatmaps[0] = 0
    heatmaps[1, :, :, 2:4] = 5
    heatmaps[2, :, 0, 0] = heatmaps[2, :, 5, 5] = 9
    boxes = _rois(30)[:, 1:]
    boxes[:5, 2:] = boxes[:5, :2]
    inputs = [heatmaps.astype(np.float32), boxes]
    check(real, "HeatmapMaxKeypoint", inputs, {"should_output_softmax": 1}, rtol=1e-4, atol=1e-3)


def test_keypoints_that_are_refused(real: RealCaffe2) -> None:
    boxes = _rois(3)[:, 1:]
    check_refused(real, "HeatmapMaxKeypoint", [_heatmaps(3, 2, 1), boxes], match="heatmaps")
    check_refused(real, "HeatmapMaxKeypoint", [_heatmaps(3, 2, 4)[..., :3], boxes], match="heatmaps")
    check_refused(real, "HeatmapMaxKeypoint", [_heatmaps(3, 2, 4), boxes[:2]], match="boxes")
