"""The operators that move data about against the real Caffe2."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .client import RealCaffe2
from .compare import check, check_refused


def _random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    "arguments", [{}, {"axis": 0}, {"axis": -1}, {"axis": 0, "add_axis": 1}, {"order": "NHWC"}]
)
def test_concat(real: RealCaffe2, arguments: dict[str, Any]) -> None:
    check(real, "Concat", [_random(2, 3, 4, 5), _random(2, 3, 4, 5, seed=1)], arguments, outputs=2)


def test_concat_of_unlike_sizes(real: RealCaffe2) -> None:
    check(real, "Concat", [_random(3, 5), _random(0, 5), _random(1, 5)], {"axis": 0}, outputs=2)
    check(real, "Concat", [_random(3, 5)], {"axis": 0}, outputs=2)
    check_refused(real, "Concat", [_random(3, 5), _random(3, 4)], {"axis": 0}, outputs=2, match="do not fit")


@pytest.mark.parametrize(
    ("arguments", "outputs"),
    [({}, 2), ({"axis": 0}, 3), ({"axis": -1, "split": [1, 0, 4]}, 3), ({"order": "NHWC"}, 5)],
)
def test_split(real: RealCaffe2, arguments: dict[str, Any], outputs: int) -> None:
    check(real, "Split", [_random(3, 4, 2, 5)], arguments, outputs=outputs)


def test_split_by_a_tensor(real: RealCaffe2) -> None:
    check(real, "Split", [_random(6, 2), np.array([1, 5], dtype=np.int32)], {"axis": 0}, outputs=2)
    check_refused(real, "Split", [_random(5, 2)], {"axis": 0}, outputs=2, match="Split")


@pytest.mark.parametrize(
    ("starts", "ends"),
    [
        ([2], [-1]),
        ([0, 1], [-1, 3]),
        ([-3], [-1]),
        ([0, 0, 1], [-1, -1, 2]),
        ([1], [9]),
        ([2], [2]),
        ([0], [-1]),
    ],
)
def test_slice(real: RealCaffe2, starts: list[int], ends: list[int]) -> None:
    check(real, "Slice", [_random(4, 5, 6)], {"starts": starts, "ends": ends})
    given = [np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64)]
    check(real, "Slice", [_random(4, 5, 6), *given])


def test_slices_that_are_refused(real: RealCaffe2) -> None:
    check_refused(real, "Slice", [_random(4, 5)], {"starts": [1, 1], "ends": [2, 2]}, match="more than one")
    check_refused(real, "Slice", [_random(4, 5)], {"starts": [3], "ends": [1]}, match="Slice: from")


@pytest.mark.parametrize("arguments", [{}, {"axes": [0, 2, 1]}, {"axes": [2, 0, 1]}])
@pytest.mark.parametrize("rows", [0, 2])
def test_transpose(real: RealCaffe2, arguments: dict[str, Any], rows: int) -> None:
    check(real, "Transpose", [_random(rows, 3, 4)], arguments)


@pytest.mark.parametrize("shape", [[-1, 4], [0, -1], [6, 4], [24], [2, 3, 4, 1]])
def test_reshape(real: RealCaffe2, shape: list[int]) -> None:
    check(real, "Reshape", [_random(2, 3, 4)], {"shape": shape}, outputs=2)
    check(real, "Reshape", [_random(2, 3, 4), np.array(shape, dtype=np.int64)], outputs=2)


def test_reshape_of_nothing(real: RealCaffe2) -> None:
    check(real, "Reshape", [_random(0, 3, 4)], {"shape": [-1, 4]}, outputs=2)
    check_refused(real, "Reshape", [_random(2, 3)], {"shape": [4, 2]}, outputs=2, match="Reshape")


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_flatten(real: RealCaffe2, axis: int) -> None:
    check(real, "Flatten", [_random(2, 3, 4)], {"axis": axis})
    check(real, "Flatten", [_random(0, 3, 4)], {"axis": axis})


def test_single_dimensions(real: RealCaffe2) -> None:
    check(real, "Squeeze", [_random(2, 1, 3, 1)], {"dims": [1, 3]})
    check(real, "ExpandDims", [_random(2, 3)], {"dims": [0, 2]})
    check_refused(real, "Squeeze", [_random(2, 3)], {"dims": [1]}, match="Squeeze")


@pytest.mark.parametrize("arguments", [{}, {"axes": [1]}, {"axes": [2, 0]}])
def test_shape(real: RealCaffe2, arguments: dict[str, Any]) -> None:
    check(real, "Shape", [_random(2, 0, 4)], arguments)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int64, np.uint8, np.bool_, np.float64])
@pytest.mark.parametrize("to", [1, 2, 5, 6, 10, 13, "float", "INT64"])
def test_cast(real: RealCaffe2, dtype: type, to: int | str) -> None:
    check(real, "Cast", [np.array([0, 1, 2, 77]).astype(dtype)], {"to": to})


@pytest.mark.parametrize("type_", ["Copy", "Alias", "StopGradient", "EnsureCPUOutput", "CopyFromCPUInput"])
def test_copies(real: RealCaffe2, type_: str) -> None:
    check(real, type_, [_random(2, 3)])


def test_placeholders(real: RealCaffe2) -> None:
    check(real, "AliasWithName", [_random(2, 3)], {"name": "data", "is_backward": 0})
    check(real, "Dropout", [_random(2, 3)], {"is_test": 1, "ratio": 0.3})


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("indices", [[1, 0, 1], [[0, 1], [1, 1]], []])
def test_gather(real: RealCaffe2, axis: int, indices: list[Any]) -> None:
    check(real, "Gather", [_random(2, 3, 4), np.array(indices, dtype=np.int32)], {"axis": axis})


def test_gather_out_of_range(real: RealCaffe2) -> None:
    check_refused(real, "Gather", [_random(2, 3), np.array([2], dtype=np.int64)], match="outside")


@pytest.mark.parametrize("shape", [[2, 3, 4], [3, 1], [2, 1, 1, 4], [-1, 4]])
def test_expand(real: RealCaffe2, shape: list[int]) -> None:
    check(real, "Expand", [_random(3, 1), np.array(shape, dtype=np.int64)])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_tile(real: RealCaffe2, axis: int) -> None:
    check(real, "Tile", [_random(2, 3)], {"tiles": 3, "axis": axis})


def test_products(real: RealCaffe2) -> None:
    check(real, "MatMul", [_random(3, 4), _random(4, 5, seed=1)])
    check(real, "MatMul", [_random(4, 3), _random(5, 4, seed=1)], {"trans_a": 1, "trans_b": 1})
    check(real, "BatchMatMul", [_random(2, 3, 4), _random(2, 4, 5, seed=1)])
    check(real, "BatchMatMul", [_random(2, 3, 4), _random(2, 5, 4, seed=1)], {"trans_b": 1})


@pytest.mark.parametrize("type_", ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"])
@pytest.mark.parametrize(
    "arguments", [{"axes": [2, 3], "keepdims": 0}, {"axes": [1]}, {}, {"keepdims": 0}, {"axes": [0, 2]}]
)
def test_reductions(real: RealCaffe2, type_: str, arguments: dict[str, Any]) -> None:
    check(real, type_, [_random(2, 3, 4, 5)], arguments)


def test_mean_of_no_rows(real: RealCaffe2) -> None:
    check(real, "ReduceMean", [_random(0, 3, 4, 5)], {"axes": [2, 3], "keepdims": 0})


@pytest.mark.parametrize("arguments", [{}, {"axis": 1}, {"axis": 0, "keepdims": 0}])
def test_arg_max(real: RealCaffe2, arguments: dict[str, Any]) -> None:
    check(real, "ArgMax", [np.round(_random(4, 5))], arguments)
