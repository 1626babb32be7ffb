"""The bridge to torch's symbolic integers: sizes of the IR that torch, or a model's code, computes with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from . import torch_parts
from .dims import Dim, SymExpr
from .errors import IRError
from .node import Attribute
from .symbolic_numbers import whole
from .types import DTYPE_NAMES, TensorType


def size(dim: Dim) -> Any:
    """The dimension as an int or a torch.SymInt."""
    return torch_parts.sym_int(whole(dim)) if isinstance(dim, SymExpr) else dim


def sizes_in(attribute: Attribute) -> Any:
    """The attribute with every symbolic size in it as a torch.SymInt."""
    if isinstance(attribute, tuple):
        return [sizes_in(a) for a in attribute]
    return size(attribute) if isinstance(attribute, SymExpr) else attribute


def dim_of(size: Any) -> Dim:
    """An int or torch.SymInt as a dimension."""
    return torch_parts.node_of(size).dim if isinstance(size, torch.SymInt) else int(size)


def power_of(number: torch.SymFloat) -> tuple[tuple[Dim, Dim], float]:
    """A real number computed from sizes as a fraction of two, and the exponent that it has.

    Errors:
        IRError: it is no power of a fraction.
    """
    power: tuple[tuple[Dim, Dim], float] | None = torch_parts.node_of(number).power
    if power is None:
        raise IRError(f"a number that the IR cannot express: {number}")
    return power


def type_of(tensor: torch.Tensor) -> TensorType:
    """A tensor's type; its sizes may be symbolic."""
    if tensor.dtype not in DTYPE_NAMES:
        raise IRError(f"tensors of {tensor.dtype} have no IR type")
    return TensorType(tensor.dtype, tuple(map(dim_of, tensor.shape)))


def meta(type: TensorType) -> torch.Tensor:
    """A tensor of that type which has strides and no data."""
    with torch.inference_mode(False):
        return torch.empty(tuple(map(size, type.shape)), dtype=type.dtype, device="meta")


def on_meta(overload: torch_parts.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What an operator gives for tensors without data, by torch's own shape propagation."""
    positional, keywords = list(args), dict(kwargs)
    for position, argument in enumerate(torch_parts.schema(overload).arguments):
        if argument.name == "device":
            if position < len(positional):
                positional[position] = "meta"
            else:
                keywords["device"] = "meta"
    # Without the dispatcher in Python some operators run in C++, which asks for the sizes as numbers.
    with torch.inference_mode(False), torch.no_grad(), torch_parts.enable_python_dispatcher():
        return overload(*positional, **keywords)
