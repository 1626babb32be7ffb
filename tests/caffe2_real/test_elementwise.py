"""The element-by-element operators against the real Caffe2."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .client import RealCaffe2
from .compare import check, check_refused


def _random(*shape: int, seed: int = 0, low: float = -3.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, 3.0, shape).astype(np.float32)


@pytest.mark.parametrize(
    "shapes", [((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (3, 1)), ((3, 1), (2, 3, 4)), ((0, 3), (3,))]
)
@pytest.mark.parametrize("type_", ["Add", "Sub", "Mul", "Div", "EQ", "LT", "LE", "GT", "GE"])
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int64])
def test_two_operands(
    real: RealCaffe2, type_: str, shapes: tuple[tuple[int, ...], tuple[int, ...]], dtype: type
) -> None:
    first, second = _random(*shapes[0]) * 5, _random(*shapes[1], seed=1) * 5
    if dtype is not np.float32:
        second = np.where(np.abs(second) < 1, 2, second)
    check(real, type_, [first.astype(dtype), second.astype(dtype)])


@pytest.mark.parametrize("arguments", [{"broadcast": 1}, {"broadcast": 1, "axis": 1}])
@pytest.mark.parametrize("type_", ["Add", "Sub", "Mul", "Div"])
def test_broadcast_of_old_nets(real: RealCaffe2, type_: str, arguments: dict[str, Any]) -> None:
    second = _random(3, low=0.5, seed=1) if "axis" in arguments else _random(4, low=0.5, seed=1)
    check(real, type_, [_random(2, 3, 4), second], arguments)


def test_operands_that_do_not_broadcast(real: RealCaffe2) -> None:
    check_refused(real, "Add", [_random(2, 3), _random(2, 4)], match="do not broadcast")
    check_refused(real, "Add", [_random(3), _random(3).astype(np.int32)], match="two types")


@pytest.mark.parametrize(
    ("type_", "arguments"),
    [
        ("Relu", {}),
        ("Sigmoid", {}),
        ("Tanh", {}),
        ("Exp", {}),
        ("Abs", {}),
        ("Negative", {}),
        ("Floor", {}),
        ("Ceil", {}),
        ("Clip", {"min": 0.0, "max": 6.0}),
        ("Clip", {"min": -1.0}),
        ("Clip", {}),
        ("LeakyRelu", {"alpha": 0.2}),
        ("LeakyRelu", {}),
        ("Elu", {"alpha": 0.7}),
        ("Elu", {}),
        ("Pow", {"exponent": 2.0}),
        ("Pow", {"exponent": 0.5}),
    ],
)
@pytest.mark.parametrize("shape", [(2, 3, 4), (0, 3), (1,)])
def test_one_operand(real: RealCaffe2, type_: str, arguments: dict[str, Any], shape: tuple[int, ...]) -> None:
    low = 0.0 if type_ == "Pow" else -3.0
    check(real, type_, [_random(*shape, low=low)], arguments)


@pytest.mark.parametrize("type_", ["Log", "Sqrt", "Reciprocal"])
def test_one_positive_operand(real: RealCaffe2, type_: str) -> None:
    check(real, type_, [_random(4, 5, low=0.1)])


def test_power_of_a_tensor(real: RealCaffe2) -> None:
    check(real, "Pow", [_random(2, 3, low=0.1), _random(2, 3, seed=1)])


def test_not(real: RealCaffe2) -> None:
    check(real, "Not", [np.array([True, False, True])])


@pytest.mark.parametrize("type_", ["Sum", "Mean", "Max", "Min"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_many_operands(real: RealCaffe2, type_: str, count: int) -> None:
    check(real, type_, [_random(2, 3, seed=seed) for seed in range(count)])


@pytest.mark.parametrize("slopes", [1, 3])
def test_learned_slope(real: RealCaffe2, slopes: int) -> None:
    check(real, "PRelu", [_random(2, 3, 4, 5), _random(slopes, seed=1)])
