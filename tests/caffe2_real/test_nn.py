"""The layers' operators against the real Caffe2."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detc.backends.caffe2.proto import NetDef

from .client import RealCaffe2, RealCaffe2Error
from .compare import check, check_refused, operator

SUMS = {"rtol": 1e-4, "atol": 1e-4}
"""Sums of a hundred products, added up in another order."""


def _random(*shape: int, seed: int = 0, low: float = -1.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, 1.0, shape).astype(np.float32)


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize(
    ("weight", "arguments"),
    [
        (
            (6, 4, 3, 3),
            {"kernels": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1], "dilations": [1, 1], "group": 1},
        ),
        ((6, 4, 7, 7), {"kernels": [7, 7], "strides": [2, 2], "pads": [3, 3, 3, 3]}),
        ((6, 4, 1, 1), {"kernels": [1, 1], "strides": [2, 2]}),
        ((6, 2, 3, 3), {"kernels": [3, 3], "pads": [1, 1, 1, 1], "group": 2}),
        ((4, 1, 3, 3), {"kernels": [3, 3], "group": 4}),
        ((6, 4, 3, 3), {"kernels": [3, 3], "pads": [2, 2, 2, 2], "dilations": [2, 2]}),
        ((6, 4, 3, 2), {"kernels": [3, 2], "strides": [2, 1], "pads": [0, 1, 2, 0]}),
        ((6, 4, 3, 3), {"kernel": 3, "stride": 2, "pad": 1}),
        ((6, 4, 3, 2), {"kernel_h": 3, "kernel_w": 2, "pad_t": 1, "pad_l": 0, "pad_b": 0, "pad_r": 1}),
    ],
)
def test_conv(real: RealCaffe2, weight: tuple[int, ...], arguments: dict[str, Any], rows: int) -> None:
    data, kernel, bias = _random(rows, 4, 11, 12), _random(*weight, seed=1), _random(weight[0], seed=2)
    check(real, "Conv", [data, kernel, bias], arguments, **SUMS)
    check(real, "Conv", [data, kernel], arguments, **SUMS)


def test_conv_with_channels_last(real: RealCaffe2) -> None:
    inputs = [_random(2, 8, 9, 4), _random(6, 3, 3, 4, seed=1), _random(6, seed=2)]
    check(real, "Conv", inputs, {"kernels": [3, 3], "pads": [1, 1, 1, 1], "order": "NHWC"}, **SUMS)


def test_convs_that_are_refused(real: RealCaffe2) -> None:
    data = _random(1, 4, 8, 8)
    check_refused(real, "Conv", [data, _random(6, 3, 3, 3)], {"kernels": [3, 3]}, match="weight")
    check_refused(real, "Conv", [data, _random(6, 4, 3, 3)], {"kernels": [5, 5]}, match="kernels")
    check_refused(real, "Conv", [data, _random(6, 4, 3, 3), _random(5)], {"kernels": [3, 3]}, match="bias")


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize(
    ("weight", "arguments"),
    [
        (
            (4, 6, 2, 2),
            {"kernels": [2, 2], "strides": [2, 2], "pads": [0, 0, 0, 0], "group": 1, "dilations": [1, 1]},
        ),
        ((4, 6, 4, 4), {"kernels": [4, 4], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ((4, 6, 3, 3), {"kernels": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "adjs": [1, 1]}),
        ((4, 6, 3, 3), {"kernels": [3, 3], "strides": [2, 2], "pads": [0, 1, 2, 0]}),
        ((4, 3, 2, 2), {"kernels": [2, 2], "strides": [2, 2], "group": 2}),
        # Bilinear resizing: by 2, and by 3 in one direction.
        ((4, 1, 4, 4), {"kernels": [4, 4], "strides": [2, 2], "pads": [3, 3, 3, 3], "group": 4}),
        ((4, 1, 1, 5), {"kernels": [1, 5], "strides": [1, 3], "pads": [0, 4, 0, 4], "group": 4}),
        ((4, 6, 3, 3), {"kernel": 3, "stride": 2, "pad": 1, "adj": 1}),
    ],
)
def test_conv_transpose(
    real: RealCaffe2, weight: tuple[int, ...], arguments: dict[str, Any], rows: int
) -> None:
    bias = _random(weight[1] * arguments.get("group", 1), seed=2)
    data, kernel = _random(rows, 4, 7, 8), _random(*weight, seed=1)
    check(real, "ConvTranspose", [data, kernel, bias], arguments, **SUMS)
    check(real, "ConvTranspose", [data, kernel], arguments, **SUMS)


@pytest.mark.parametrize(
    ("data", "weight", "arguments"),
    [
        ((3, 8), (5, 8), {}),
        ((3, 2, 2, 2), (5, 8), {}),
        ((0, 8), (5, 8), {}),
        ((3, 2, 8), (5, 8), {"axis": 2}),
        ((3, 8), (5, 2, 4), {}),
        ((3, 8), (5, 2, 4), {"axis": 1, "axis_w": 1}),
    ],
)
def test_fc(
    real: RealCaffe2, data: tuple[int, ...], weight: tuple[int, ...], arguments: dict[str, Any]
) -> None:
    check(
        real, "FC", [_random(*data), _random(*weight, seed=1), _random(weight[0], seed=2)], arguments, **SUMS
    )


def test_fc_that_does_not_fit(real: RealCaffe2) -> None:
    check_refused(real, "FC", [_random(3, 8), _random(5, 7), _random(5)], match="do not fit")


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("arguments", [{}, {"epsilon": 1e-3}, {"order": "NHWC"}])
def test_spatial_bn(real: RealCaffe2, arguments: dict[str, Any], rows: int) -> None:
    shape = (rows, 6, 7, 4) if "order" in arguments else (rows, 4, 6, 7)
    statistics = [_random(4, seed=seed) for seed in (1, 2, 3)] + [_random(4, seed=4, low=0.1)]
    check(
        real, "SpatialBN", [_random(*shape), *statistics], {"is_test": 1, **arguments}, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize(
    "arguments",
    [{"group": 4}, {"group": 2, "epsilon": 1e-2}, {"group": 8, "eps": 0.5}, {"group": 2, "order": "NHWC"}],
)
def test_group_norm(real: RealCaffe2, arguments: dict[str, Any], rows: int) -> None:
    shape = (rows, 5, 6, 8) if "order" in arguments else (rows, 8, 5, 6)
    inputs = [_random(*shape), _random(8, seed=1), _random(8, seed=2)]
    check(real, "GroupNorm", inputs, arguments, rtol=1e-4, atol=1e-5)


def test_group_norm_of_32_groups(real: RealCaffe2) -> None:
    check(
        real,
        "GroupNorm",
        [_random(2, 32, 3, 3), _random(32, seed=1), _random(32, seed=2)],
        rtol=1e-4,
        atol=1e-5,
    )


POOLS: list[dict[str, Any]] = [
    {"kernels": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"kernels": [1, 1], "strides": [2, 2], "pads": [0, 0, 0, 0]},
    {"kernels": [2, 3], "strides": [2, 1]},
    {"kernels": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 2]},
    {"kernels": [3, 3], "pads": [2, 2, 2, 2]},
    {"global_pooling": 1},
    {"kernel": 3, "stride": 2, "pad": 1},
    {"kernels": [3, 3], "strides": [2, 2], "order": "NHWC"},
]


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("arguments", POOLS)
@pytest.mark.parametrize("type_", ["MaxPool", "AveragePool"])
def test_pools(real: RealCaffe2, type_: str, arguments: dict[str, Any], rows: int) -> None:
    check(real, type_, [_random(rows, 4, 11, 12)], arguments)


@pytest.mark.parametrize("arguments", POOLS)
def test_average_pool_that_counts_the_padding(real: RealCaffe2, arguments: dict[str, Any]) -> None:
    check(real, "AveragePool", [_random(2, 4, 11, 12)], {**arguments, "count_include_pad": 1})


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize(
    "arguments",
    [
        {"height_scale": 2.0, "width_scale": 2.0, "order": "NCHW"},
        {"height_scale": 3.0, "width_scale": 1.5},
        {"height_scale": 0.5, "width_scale": 0.7},
        {"width_scale": 2.0},
        {},
    ],
)
@pytest.mark.parametrize("type_", ["ResizeNearest", "UpsampleBilinear"])
def test_resizing(real: RealCaffe2, type_: str, arguments: dict[str, Any], rows: int) -> None:
    if type_ == "UpsampleBilinear":
        arguments = {name: scale for name, scale in arguments.items() if name != "order"}
    check(real, type_, [_random(rows, 4, 11, 13)], arguments)


@pytest.mark.parametrize("size", [1, 3, 7, 50])
@pytest.mark.parametrize("scale", [1.1, 1.7, 2.5, 3.0, 7.3])
def test_which_cells_resizing_takes(real: RealCaffe2, size: int, scale: float) -> None:
    data = np.arange(size * size, dtype=np.float32).reshape(1, 1, size, size)
    check(real, "ResizeNearest", [data], {"height_scale": scale, "width_scale": scale}, rtol=0, atol=0)


@pytest.mark.parametrize("type_", ["ResizeNearest", "UpsampleBilinear"])
def test_resizing_by_a_tensor(real: RealCaffe2, type_: str) -> None:
    check(real, type_, [_random(2, 3, 4, 5), np.array([2.0, 3.0], dtype=np.float32)])
    check_refused(real, type_, [_random(2, 3, 4, 5), np.ones(3, dtype=np.float32)], match="scales")


def test_resizing_with_channels_last(real: RealCaffe2) -> None:
    arguments = {"height_scale": 2.0, "width_scale": 2.0, "order": "NHWC"}
    check(real, "ResizeNearest", [_random(2, 4, 5, 3)], arguments)


@pytest.mark.parametrize("arguments", [{}, {"axis": 1}, {"axis": 2}, {"axis": -1}, {"axis": 0}])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_softmax(real: RealCaffe2, arguments: dict[str, Any], rows: int) -> None:
    check(real, "Softmax", [_random(rows, 4, 5) * 10], arguments)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_padding(real: RealCaffe2, mode: str) -> None:
    arguments = {"pads": [1, 2, 3, 0], "mode": mode, "value": 0.5}
    check(real, "PadImage", [_random(2, 3, 5, 6)], arguments)


def test_deformable_convolution_is_for_gpus_only(real: RealCaffe2) -> None:
    """Why models with it are refused: the operator is known, and not there."""
    inputs = [_random(1, 4, 8, 8), _random(1, 18, 8, 8), _random(6, 4, 3, 3), _random(6)]
    net = NetDef(name="one", op=[operator("DeformConv", inputs, 1, {"kernel": 3, "pad": 1})])
    with pytest.raises(
        RealCaffe2Error, match="Cannot create operator of type 'DeformConv' on the device 'CPU'"
    ):
        real.run(net, {f"in{i}": value for i, value in enumerate(inputs)})
