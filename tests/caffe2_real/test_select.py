"""TopK and Scatter against the real ones."""

from __future__ import annotations

import numpy as np
import pytest

from .client import RealCaffe2
from .compare import check, check_refused


def _data(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("k", [1, 4, 9])
def test_top_k(real: RealCaffe2, rows: int, k: int) -> None:
    check(real, "TopK", [_data(rows, 9)], {"k": k}, outputs=2)


def test_top_k_along_another_axis(real: RealCaffe2) -> None:
    check(real, "TopK", [_data(3, 9, 2)], {"k": 2, "axis": 1}, outputs=2)


def test_top_k_of_equal_elements(real: RealCaffe2) -> None:
    values, _ = check(real, "TopK", [np.zeros((2, 5), np.float32)], {"k": 5}, outputs=2)
    assert not values.any()


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_scatter(real: RealCaffe2, rows: int, dtype: type) -> None:
    order = [np.random.default_rng(row).permutation(9)[:4] for row in range(rows)]
    indices = np.array(order, dtype).reshape(rows, 4)
    check(real, "Scatter", [_data(rows, 9), indices, _data(rows, 4, seed=1)], {"axis": 1}, rtol=0, atol=0)


def test_scatter_that_is_refused(real: RealCaffe2) -> None:
    wrong = np.array([[9], [0]], np.int64)
    check_refused(real, "Scatter", [_data(2, 9), wrong, _data(2, 1)], {"axis": 1}, match="outside")


@pytest.mark.parametrize("rows", [0, 3])
@pytest.mark.parametrize("outside", [0.0, 0.7, 5.0])
def test_samples_at_points(real: RealCaffe2, rows: int, outside: float) -> None:
    """How PointRend is lowered: rois without area, with one sample each, at the map's border and beyond it."""
    points = np.random.default_rng(0).uniform(-outside, 6 + outside, size=(rows, 2)).astype(np.float32)
    rois = np.concatenate([np.zeros((rows, 1), np.float32), points, points], axis=1)
    arguments = {
        "order": "NCHW",
        "spatial_scale": 1.0,
        "pooled_h": 1,
        "pooled_w": 1,
        "sampling_ratio": 1,
        "aligned": 1,
    }
    check(real, "RoIAlign", [_data(1, 4, 6, 6), rois], arguments)


@pytest.mark.parametrize("rows", [0, 2])
def test_a_border_of_zeros(real: RealCaffe2, rows: int) -> None:
    check(real, "PadImage", [_data(rows, 4, 5, 6)], {"pads": [1, 1, 1, 1], "mode": "constant", "value": 0.0})
