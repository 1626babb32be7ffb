"""SequenceMask, LengthsToSegmentIds and ResizeNearestGradient against the real ones."""

from __future__ import annotations

import numpy as np
import pytest

from .client import RealCaffe2
from .compare import check, check_refused

RNG = np.random.default_rng(3)


def data(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("lengths", [[0, 4, 2], [5, 5, 5], [9, 1, 0]])
def test_sequence_mask(real: RealCaffe2, lengths: list[int]) -> None:
    arguments = {"mode": "sequence", "axis": 1, "fill_val": 0.0}
    check(real, "SequenceMask", [data(3, 5), np.array(lengths, np.int32)], arguments)


@pytest.mark.parametrize("images", [1, 2])
def test_sequence_mask_of_the_rows_of_images(real: RealCaffe2, images: int) -> None:
    lengths = np.repeat(np.array([[3], [4]], np.int32)[:images], 3, axis=1)
    arguments = {"mode": "sequence", "axis": 2, "repeat_from_axis": 3, "fill_val": 0.0}
    check(real, "SequenceMask", [data(images, 3, 4, 5), lengths], arguments)


def test_sequence_mask_wants_a_length_for_each_row(real: RealCaffe2) -> None:
    arguments = {"mode": "sequence", "axis": 1, "fill_val": 0.0}
    inputs = [data(3, 5), np.array([1, 2], np.int32)]
    check_refused(real, "SequenceMask", inputs, arguments, match="2\\] for 3 rows")


@pytest.mark.parametrize("lengths", [[], [0], [2, 0, 3], [0, 0]])
def test_lengths_to_segment_ids(real: RealCaffe2, lengths: list[int]) -> None:
    check(real, "LengthsToSegmentIds", [np.array(lengths, np.int32)])


@pytest.mark.parametrize("size", [(8, 6), (5, 4), (1, 1), (3, 6)])
def test_resize_nearest_gradient_pads(real: RealCaffe2, size: tuple[int, int]) -> None:
    arguments = {"order": "NCHW", "height_scale": 1.0, "width_scale": 1.0}
    check(real, "ResizeNearestGradient", [data(1, 3, *size), data(1, 2, 8, 6)], arguments)


@pytest.mark.parametrize(("height", "width"), [(2.0, 2.0), (1.5, 0.5), (0.3, 3.0)])
def test_resize_nearest_gradient(real: RealCaffe2, height: float, width: float) -> None:
    arguments = {"order": "NCHW", "height_scale": height, "width_scale": width}
    shape = int(6 * height), int(8 * width)
    check(real, "ResizeNearestGradient", [data(2, 3, *shape), data(2, 3, 6, 8)], arguments)


def test_resize_nearest_gradient_with_scales_as_operand(real: RealCaffe2) -> None:
    scales = np.array([2.0, 1.0], np.float32)
    check(real, "ResizeNearestGradient", [data(1, 3, 8, 5), data(1, 3, 4, 5), scales], {"order": "NCHW"})
