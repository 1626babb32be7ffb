"""The fills of init nets against the real Caffe2."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .client import RealCaffe2
from .compare import check, check_refused


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        ("GivenTensorFill", [1.5, -2.0, 3.25, 1e-30, 7.0, 8.0]),
        ("GivenTensorDoubleFill", [1.5, -2.0, 3.25, 0.5, 7.0, 8.0]),
        ("GivenTensorBoolFill", [1, 0, 1, 1, 0, 0]),
        ("GivenTensorInt16Fill", [1, -2, 3, 4, 5, 32767]),
        ("GivenTensorIntFill", [1, -2, 3, 4, 5, 2147483647]),
        ("GivenTensorInt64Fill", [1, -2, 3, 4, 5, 1 << 60]),
    ],
)
def test_given_values(real: RealCaffe2, type_: str, values: list[Any]) -> None:
    check(real, type_, [], {"values": values, "shape": [2, 3]}, rtol=0, atol=0)
    check(real, type_, [], {"values": values[:1], "shape": []}, rtol=0, atol=0)
    check(real, type_, [], {"values": [], "shape": [0, 3]}, rtol=0, atol=0)
    check_refused(real, type_, [], {"values": values, "shape": [7]}, match="6 values")


def test_given_bytes(real: RealCaffe2) -> None:
    arguments = {"values": [bytes(range(6))], "shape": [6]}
    check(real, "GivenTensorByteStringToUInt8Fill", [], arguments, rtol=0, atol=0)


def test_a_large_weight(real: RealCaffe2) -> None:
    values = np.random.default_rng(0).normal(size=(100, 30)).astype(np.float32)
    (result,) = check(real, "GivenTensorFill", [], {"values": values, "shape": [100, 30]}, rtol=0, atol=0)
    np.testing.assert_array_equal(result, values)


@pytest.mark.parametrize(
    "arguments",
    [
        {"value": 2.5},
        {"value": 3},
        {"value": 3, "dtype": 2},
        {"value": 1, "dtype": 5},
        {"value": 3, "dtype": 10},
        {"value": 2.5, "dtype": 1},
        {},
    ],
)
@pytest.mark.parametrize("shape", [[2, 3], [0], []])
def test_constants(real: RealCaffe2, arguments: dict[str, Any], shape: list[int]) -> None:
    check(real, "ConstantFill", [], {**arguments, "shape": shape}, rtol=0, atol=0)


def test_constants_like_an_operand(real: RealCaffe2) -> None:
    operand = np.array([2, 3], dtype=np.int64)
    check(real, "ConstantFill", [np.zeros((2, 5), np.float32)], {"value": 1.0})
    check(real, "ConstantFill", [np.zeros(3, np.float32)], {"value": 1, "dtype": 2})
    check(real, "ConstantFill", [np.zeros(0, np.float32)], {"value": 7, "dtype": 10})
    check(real, "ConstantFill", [operand], {"value": 1.0, "input_as_shape": 1})
    check(real, "ConstantFill", [operand], {"value": 1.0, "input_as_shape": 1, "extra_shape": [4]})
    check_refused(real, "ConstantFill", [operand], {"value": 1.0, "shape": [1]}, match="both a shape")
