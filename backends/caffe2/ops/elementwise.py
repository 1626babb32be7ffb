"""The operators that work element by element.

Two operands broadcast as NumPy's do. In nets of Caffe2's first years the argument `broadcast` = 1 says so
instead, and `axis` where the second operand's first dimension lies in the first's. Source: Caffe2's
`elementwise_ops` and the operators of the same names, of PyTorch 1.9.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError


def _aligned(first: Tensor, second: Tensor, broadcast: bool, axis: int) -> Tensor:
    """The second operand, ready to broadcast against the first."""
    if first.dtype != second.dtype:
        raise InputError(f"operands of two types, {first.dtype} and {second.dtype}")
    if broadcast and axis >= 0:
        trailing = first.dim() - axis - second.dim()
        if trailing < 0:
            raise InputError(f"{list(second.shape)} does not fit {list(first.shape)} from axis {axis} on")
        second = second.reshape(*second.shape, *[1] * trailing)
    try:
        np.broadcast_shapes(tuple(first.shape), tuple(second.shape))
    except ValueError as error:
        raise InputError(f"operands {list(first.shape)} and {list(second.shape)} do not broadcast") from error
    return second


def add(first: Tensor, second: Tensor, *, broadcast: bool = False, axis: int = -1) -> Tensor:
    """Sum."""
    return first + _aligned(first, second, broadcast, axis)


def sub(first: Tensor, second: Tensor, *, broadcast: bool = False, axis: int = -1) -> Tensor:
    """Difference."""
    return first - _aligned(first, second, broadcast, axis)


def mul(first: Tensor, second: Tensor, *, broadcast: bool = False, axis: int = -1) -> Tensor:
    """Product."""
    return first * _aligned(first, second, broadcast, axis)


def div(first: Tensor, second: Tensor, *, broadcast: bool = False, axis: int = -1) -> Tensor:
    """Quotient; of integers the part before the point."""
    second = _aligned(first, second, broadcast, axis)
    return first / second if first.is_floating_point() else torch.div(first, second, rounding_mode="trunc")


def pow(
    first: Tensor,
    second: Tensor | None = None,
    *,
    exponent: float = 0.0,
    broadcast: bool = False,
    axis: int = -1,
) -> Tensor:
    """The first operand to the power of the second, or of `exponent` where there is no second."""
    return first**exponent if second is None else first ** _aligned(first, second, broadcast, axis)


def equal(first: Tensor, second: Tensor, *, broadcast: bool = False, axis: int = -1) -> Tensor:
    """bool: first == second."""
    return first == _aligned(first, second, broadcast, axis)


def less(first: Tensor, second: Tensor, *, broadcast: bool = False, axis: int = -1) -> Tensor:
    """bool: first < second."""
    return first < _aligned(first, second, broadcast, axis)


def less_equal(first: Tensor, second: Tensor, *, broadcast: bool = False, axis: int = -1) -> Tensor:
    """bool: first <= second."""
    return first <= _aligned(first, second, broadcast, axis)


def greater(first: Tensor, second: Tensor, *, broadcast: bool = False, axis: int = -1) -> Tensor:
    """bool: first > second."""
    return first > _aligned(first, second, broadcast, axis)


def greater_equal(first: Tensor, second: Tensor, *, broadcast: bool = False, axis: int = -1) -> Tensor:
    """bool: first >= second."""
    return first >= _aligned(first, second, broadcast, axis)


def _folded(inputs: Sequence[Tensor], combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    if not inputs or any(part.shape != inputs[0].shape for part in inputs):
        raise InputError(f"operands {[list(part.shape) for part in inputs]}, where one shape is expected")
    result = inputs[0]
    for part in inputs[1:]:
        result = combine(result, part)
    return result


def sum_all(inputs: Sequence[Tensor]) -> Tensor:
    """Sum of tensors of one shape."""
    return _folded(inputs, torch.add)


def mean_all(inputs: Sequence[Tensor]) -> Tensor:
    """Mean of tensors of one shape."""
    return _folded(inputs, torch.add) / len(inputs)


def max_all(inputs: Sequence[Tensor]) -> Tensor:
    """Largest of tensors of one shape, element by element."""
    return _folded(inputs, torch.maximum)


def min_all(inputs: Sequence[Tensor]) -> Tensor:
    """Smallest of tensors of one shape, element by element."""
    return _folded(inputs, torch.minimum)


def relu(data: Tensor) -> Tensor:
    """max(x, 0)."""
    return data.relu()


def sigmoid(data: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return data.sigmoid()


def tanh(data: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return data.tanh()


def exp(data: Tensor) -> Tensor:
    """Exponential."""
    return data.exp()


def log(data: Tensor) -> Tensor:
    """Natural logarithm."""
    return data.log()


def sqrt(data: Tensor) -> Tensor:
    """Square root."""
    return data.sqrt()


def absolute(data: Tensor) -> Tensor:
    """|x|."""
    return data.abs()


def negative(data: Tensor) -> Tensor:
    """-x."""
    return -data


def reciprocal(data: Tensor) -> Tensor:
    """1 / x."""
    return data.reciprocal()


def floor(data: Tensor) -> Tensor:
    """Largest whole number that is not above."""
    return data.floor()


def ceil(data: Tensor) -> Tensor:
    """Smallest whole number that is not below."""
    return data.ceil()


def logical_not(data: Tensor) -> Tensor:
    """bool: not x."""
    return data.logical_not()


def clip(
    data: Tensor, *, min: float = torch.finfo(torch.float32).min, max: float = torch.finfo(torch.float32).max
) -> Tensor:
    """x, but at least `min` and at most `max`."""
    return data.clamp(min, max)


def leaky_relu(data: Tensor, *, alpha: float = 0.01) -> Tensor:
    """x, times `alpha` where it is negative."""
    return F.leaky_relu(data, alpha)


def elu(data: Tensor, *, alpha: float = 1.0) -> Tensor:
    """x, or alpha * (exp(x) - 1) where it is negative."""
    return F.elu(data, alpha)


def prelu(data: Tensor, slope: Tensor) -> Tensor:
    """x, times a learned slope where it is negative: f32[1], or f32[C] for f32[N, C, ...].

    Errors:
        InputError: another number of slopes.
    """
    if slope.numel() not in (1, data.shape[1]):
        raise InputError(f"PRelu: {slope.numel()} slopes for data {list(data.shape)}")
    return F.prelu(data, slope.reshape(-1))
