"""The operators that make tensors out of their arguments: the whole of an init net.

Values may come as a tensor, which is how a loader of a large net passes them without a detour over Python's
numbers.
Source: Caffe2's `filler_op` and `given_tensor_fill_op`, of PyTorch 1.9.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from ..errors import InputError
from .shape import tensor_type

Values = Sequence[float] | Tensor
_MAX_ELEMENTS: Final = 1 << 29
"""A net can ask for any shape in a few bytes; more than this is no network's weight."""

_MAX_RANK: Final = 32


def _filled(values: Values, shape: Sequence[int], dtype: torch.dtype, name: str) -> Tensor:
    count = _count(shape, name)
    if len(values) != count:
        raise InputError(f"{name}: {len(values)} values for the shape {list(shape)}")
    data = values if isinstance(values, Tensor) else torch.tensor(values, dtype=dtype)
    return data.to(dtype).reshape(list(shape))


def _count(shape: Sequence[int], name: str) -> int:
    count = 1
    for size in shape:
        if size < 0:
            raise InputError(f"{name}: the shape {list(shape)}")
        count *= size
    if count > _MAX_ELEMENTS or len(shape) > _MAX_RANK or max(shape, default=0) >= 1 << 62:
        raise InputError(f"{name}: the shape {list(shape)} is too large")
    return count


def given_tensor_fill(*, values: Values = (), shape: Sequence[int] = (), dtype: int | str = 1) -> Tensor:
    """f32[shape] of `values`, in row-major order; of another type if `dtype` says so.

    Errors:
        InputError: another number of values than the shape has, a type that tensors cannot have here.
    """
    return _filled(values, shape, tensor_type(dtype), "GivenTensorFill")


def given_tensor_double_fill(*, values: Values = (), shape: Sequence[int] = ()) -> Tensor:
    """f64[shape] of `values`."""
    return _filled(values, shape, torch.float64, "GivenTensorDoubleFill")


def given_tensor_bool_fill(*, values: Values = (), shape: Sequence[int] = ()) -> Tensor:
    """bool[shape] of `values`."""
    return _filled(values, shape, torch.bool, "GivenTensorBoolFill")


def given_tensor_int16_fill(*, values: Values = (), shape: Sequence[int] = ()) -> Tensor:
    """i16[shape] of `values`."""
    return _filled(values, shape, torch.int16, "GivenTensorInt16Fill")


def given_tensor_int_fill(*, values: Values = (), shape: Sequence[int] = ()) -> Tensor:
    """i32[shape] of `values`."""
    return _filled(values, shape, torch.int32, "GivenTensorIntFill")


def given_tensor_int64_fill(*, values: Values = (), shape: Sequence[int] = ()) -> Tensor:
    """i64[shape] of `values`."""
    return _filled(values, shape, torch.int64, "GivenTensorInt64Fill")


def given_tensor_byte_string_to_uint8_fill(
    *, values: Sequence[bytes] = (), shape: Sequence[int] = ()
) -> Tensor:
    """u8[shape] of the bytes of the one string in `values`."""
    if len(values) != 1:
        raise InputError(f"GivenTensorByteStringToUInt8Fill: {len(values)} strings, where one is expected")
    return _filled(list(values[0]), shape, torch.uint8, "GivenTensorByteStringToUInt8Fill")


def constant_fill(
    like: Tensor | None = None,
    *,
    value: int | float = 0.0,
    dtype: int | str | None = None,
    shape: Sequence[int] = (),
    extra_shape: Sequence[int] = (),
    input_as_shape: bool = False,
) -> Tensor:
    """A tensor full of `value`, of `shape`, of the operand's shape, or of the shape that it, i64[d], holds.

    `extra_shape` follows the operand's. Without `dtype` the type is i64 if `value` is whole (`int`), else
    f32.

    Errors:
        InputError: shapes given twice, a type that tensors cannot have here.
    """
    if like is not None:
        if len(shape):
            raise InputError("ConstantFill: both a shape and an operand")
        own = like.tolist() if input_as_shape else like.shape
        if input_as_shape and (like.dim() != 1 or like.dtype != torch.int64):
            raise InputError(
                f"ConstantFill: the shape is {like.dtype} {list(like.shape)}, i64[d] is expected"
            )
        shape = [*own, *extra_shape]
    elif input_as_shape or len(extra_shape):
        raise InputError("ConstantFill: an operand is missing")
    if dtype is None:
        dtype = "INT64" if isinstance(value, int) else "FLOAT"
    _count(shape, "ConstantFill")
    return torch.full(list(shape), value, dtype=tensor_type(dtype))
