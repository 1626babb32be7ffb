"""Result types of torch's commonest operators, without running torch's own shape propagation for them.

That propagation takes milliseconds a call, with symbolic sizes tens of them, and a lowering makes hundreds of nodes.
Each rule here gives what it gives, or None wherever it would have to decide anything about sizes or types that is not
plain; then torch is asked. A test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch

from .dims import Dim, SymExpr
from .node import Attribute
from .ops import OperandType
from .symbolic_numbers import example
from .types import TensorType, Type

Attributes: TypeAlias = Mapping[str, Any]
_Rule: TypeAlias = Callable[..., "list[TensorType] | None"]
"""Of the attributes and each operand's type."""

_rules: dict[str, _Rule] = {}


def quick_types(
    name: str, operands: Sequence[OperandType], attributes: Mapping[str, Attribute]
) -> list[Type] | None:
    """The result types of the operator called `name` in the IR, None where torch has to say."""
    rule = _rules.get(name)
    if rule is None or not all(_is_plain(operand) for operand in operands):
        return None
    try:
        found = rule(attributes, *operands)
    except (KeyError, IndexError, TypeError, ValueError):
        # Not as the rule expects it: torch says what is wrong.
        return None
    return None if found is None else list(found)


def _is_plain(operand: OperandType) -> bool:
    parts = operand if isinstance(operand, tuple) else (operand,)
    return all(part is None or isinstance(part, TensorType) for part in parts)


def rule(*names: str) -> Callable[[_Rule], _Rule]:
    """Register the rule of these operators: of aten's, where a name does not say whose it is."""

    def register(rule: _Rule) -> _Rule:
        full = (name if name.startswith("torchvision.") else f"aten.{name}" for name in names)
        _rules.update(dict.fromkeys(full, rule))
        return rule

    return register


# Elements


@rule(*("relu", "sigmoid", "tanh", "exp", "log", "sqrt", "rsqrt", "sin", "cos", "reciprocal"))
@rule(*("floor", "ceil", "round", "abs", "neg", "silu", "gelu", "leaky_relu", "hardswish", "hardsigmoid"))
@rule(*("softmax.int", "_softmax", "log_softmax.int", "erf", "elu", "relu6", "hardtanh", "mish", "softplus"))
def _floating(attributes: Attributes, x: TensorType) -> list[TensorType] | None:
    return [x] if x.dtype.is_floating_point and attributes.get("dtype") is None else None


@rule("isfinite", "isnan", "logical_not")
def _predicate(_: Attributes, x: TensorType) -> list[TensorType]:
    return [TensorType(torch.bool, x.shape)]


@rule("clamp", "clamp_min", "clamp_max")
def _clamp(attributes: Attributes, x: TensorType) -> list[TensorType] | None:
    bounds = [attributes.get(name) for name in ("min", "max")]
    whole = all(bound is None or type(bound) is int for bound in bounds)
    real = all(bound is None or type(bound) in (int, float) for bound in bounds)
    return [x] if (whole if not x.dtype.is_floating_point else real) and x.dtype != torch.bool else None


@rule(
    "add.Tensor",
    "sub.Tensor",
    "mul.Tensor",
    "minimum",
    "maximum",
    "remainder.Tensor",
    "div.Tensor_mode",
    "floor_divide",
)
def _arithmetic(
    attributes: Attributes, first: TensorType, second: TensorType | None = None
) -> list[TensorType] | None:
    if second is None:
        return _arithmetic_with_number(attributes, first)
    if torch.bool in (first.dtype, second.dtype) or type(attributes.get("alpha", 1)) is not int:
        return None
    return _pointwise(_promoted(first, second), first, second)


@rule("div.Tensor")
def _division(
    attributes: Attributes, first: TensorType, second: TensorType | None = None
) -> list[TensorType] | None:
    found = _arithmetic(attributes, first, second)
    return found if found and found[0].dtype.is_floating_point else None


@rule(
    "bitwise_and.Tensor", "bitwise_or.Tensor", "logical_and", "logical_or", "__and__.Tensor", "__or__.Tensor"
)
def _logic(_: Attributes, first: TensorType, second: TensorType) -> list[TensorType] | None:
    return _pointwise(torch.bool, first, second) if first.dtype == second.dtype == torch.bool else None


@rule(*(f"{name}.Tensor" for name in ("eq", "ne", "lt", "le", "gt", "ge")))
def _comparison(_: Attributes, first: TensorType, second: TensorType) -> list[TensorType] | None:
    return _pointwise(torch.bool, first, second)


@rule(*(f"{name}.Scalar" for name in ("eq", "ne", "lt", "le", "gt", "ge")))
def _comparison_with_number(attributes: Attributes, x: TensorType) -> list[TensorType] | None:
    number = attributes["other"]
    return [TensorType(torch.bool, x.shape)] if isinstance(number, int | float | SymExpr) else None


@rule("add.Scalar", "sub.Scalar", "rsub.Scalar", "mul.Scalar", "div.Scalar")
@rule("floor_divide.Scalar", "remainder.Scalar")
def _arithmetic_with_number(attributes: Attributes, x: TensorType) -> list[TensorType] | None:
    number = attributes["other"]
    is_whole = type(number) is int or isinstance(number, SymExpr)
    if not (is_whole or type(number) is float) or type(attributes.get("alpha", 1)) is not int:
        return None
    # A number leaves a tensor its type, unless the number alone is real.
    return [x] if x.dtype.is_floating_point or (is_whole and x.dtype != torch.bool) else None


@rule("div.Scalar")
def _division_by_number(attributes: Attributes, x: TensorType) -> list[TensorType] | None:
    return _arithmetic_with_number(attributes, x) if x.dtype.is_floating_point else None


@rule("where.self")
def _where(
    _: Attributes, condition: TensorType, first: TensorType, second: TensorType
) -> list[TensorType] | None:
    if condition.dtype != torch.bool or first.dtype != second.dtype:
        return None
    return _pointwise(first.dtype, condition, first, second)


@rule("where.ScalarOther")
def _where_number(attributes: Attributes, condition: TensorType, x: TensorType) -> list[TensorType] | None:
    if condition.dtype != torch.bool or not x.dtype.is_floating_point or x.rank == 0:
        return None
    return _pointwise(x.dtype, condition, x) if type(attributes["other"]) in (int, float) else None


@rule("fill.Scalar", "fill.Tensor")
def _fill(_: Attributes, x: TensorType, *__: TensorType) -> list[TensorType]:
    return [x]


@rule("masked_fill.Scalar")
def _masked_fill(attributes: Attributes, x: TensorType, mask: TensorType) -> list[TensorType] | None:
    fits = mask.dtype == torch.bool and x.dtype.is_floating_point and x.rank > 0
    return _pointwise(x.dtype, x, mask) if fits and type(attributes["value"]) in (int, float) else None


@rule("_to_copy", "ones_like", "zeros_like", "full_like")
def _like(attributes: Attributes, x: TensorType) -> list[TensorType] | None:
    ignored = ("dtype", "fill_value")
    if any(value not in (None, False) for name, value in attributes.items() if name not in ignored):
        return None
    dtype = attributes.get("dtype")
    return [TensorType(dtype if isinstance(dtype, torch.dtype) else x.dtype, x.shape)]


def _promoted(first: TensorType, second: TensorType) -> torch.dtype:
    # What torch promotes to depends on whether a tensor has any dimensions, not on how large they are.
    examples = [torch.empty((1,) if t.rank else (), dtype=t.dtype) for t in (first, second)]
    return torch.result_type(*examples)


def _pointwise(dtype: torch.dtype, *types: TensorType) -> list[TensorType] | None:
    rank = max(t.rank for t in types)
    shape: list[Dim] = []
    for place in range(rank):
        dims = [t.shape[place - rank + t.rank] for t in types if place - rank + t.rank >= 0]
        sizes = [dim for dim in dims if not (isinstance(dim, int) and dim == 1)]
        if any(size != sizes[0] for size in sizes):
            return None
        shape.append(sizes[0] if sizes else 1)
    return [TensorType(dtype, tuple(shape))]


# Places


@rule("unsqueeze")
def _unsqueeze(attributes: Attributes, x: TensorType) -> list[TensorType]:
    axis = axis_of(attributes["dim"], x.rank + 1)
    return [TensorType(x.dtype, (*x.shape[:axis], 1, *x.shape[axis:]))]


@rule("squeeze.dim")
def _squeeze(attributes: Attributes, x: TensorType) -> list[TensorType] | None:
    axis = axis_of(attributes["dim"], x.rank)
    return [without(x, axis)] if x.shape[axis] == 1 else None


@rule("permute")
def _permute(attributes: Attributes, x: TensorType) -> list[TensorType] | None:
    order = [axis_of(axis, x.rank) for axis in _row(attributes["dims"])]
    return [TensorType(x.dtype, tuple(x.shape[i] for i in order))] if len(set(order)) == x.rank else None


@rule("transpose.int")
def _transpose(attributes: Attributes, x: TensorType) -> list[TensorType]:
    first, second = (axis_of(attributes[name], x.rank) for name in ("dim0", "dim1"))
    shape = list(x.shape)
    shape[first], shape[second] = shape[second], shape[first]
    return [TensorType(x.dtype, tuple(shape))]


@rule("expand")
def _expand(attributes: Attributes, x: TensorType) -> list[TensorType] | None:
    sizes = _row(attributes["size"])
    new = len(sizes) - x.rank
    shape = list(sizes_of(sizes[:new]))
    for size, own in zip(sizes[new:], x.shape, strict=True):
        if isinstance(size, int) and size == -1:
            shape.append(own)
        elif own in (size, 1):
            shape += sizes_of([size])
        else:
            return None
    return [TensorType(x.dtype, tuple(shape))]


@rule("select.int")
def _select(attributes: Attributes, x: TensorType) -> list[TensorType] | None:
    axis, index = axis_of(attributes["dim"], x.rank), attributes["index"]
    size = x.shape[axis]
    if type(index) is not int or not isinstance(size, int) or not -size <= index < size:
        return None
    return [without(x, axis)]


@rule("slice.Tensor")
def _slice(attributes: Attributes, x: TensorType) -> list[TensorType] | None:
    axis = axis_of(attributes.get("dim", 0), x.rank)
    start, end, step = (attributes.get(name) for name in ("start", "end", "step"))
    size = x.shape[axis]
    if isinstance(size, int) and all(type(bound) is int or bound is None for bound in (start, end, step)):
        left: Dim = len(range(size)[slice(start, end, step)])
    elif step in (None, 1):
        first, last = _place(start, size, 0), _place(end, size, size)
        if example(last) < example(first):
            return None
        left = last - first
    else:
        return None
    return [TensorType(x.dtype, (*x.shape[:axis], left, *x.shape[axis + 1 :]))]


def _place(bound: Dim | None, size: Dim, default: Dim) -> Dim:
    """Where a slice begins or ends, of a dimension that is as large as sizes are in general."""
    if bound is None:
        return default
    if isinstance(bound, int) and bound < 0:
        bound = bound + size
    return size if example(bound) > example(size) else bound


@rule("cat")
def _cat(attributes: Attributes, parts: tuple[TensorType, ...]) -> list[TensorType] | None:
    first = parts[0]
    axis = axis_of(attributes.get("dim", 0), first.rank)
    if any(part.dtype != first.dtype or without(part, axis) != without(first, axis) for part in parts):
        return None
    total: Dim = 0
    for part in parts:
        total = total + part.shape[axis]
    return [TensorType(first.dtype, (*first.shape[:axis], total, *first.shape[axis + 1 :]))]


@rule("stack")
def _stack(attributes: Attributes, parts: tuple[TensorType, ...]) -> list[TensorType] | None:
    first = parts[0]
    axis = axis_of(attributes.get("dim", 0), first.rank + 1)
    if any(part != first for part in parts):
        return None
    return [TensorType(first.dtype, (*first.shape[:axis], len(parts), *first.shape[axis:]))]


@rule("index_select")
def _index_select(attributes: Attributes, x: TensorType, index: TensorType) -> list[TensorType] | None:
    axis = axis_of(attributes["dim"], x.rank)
    if index.rank != 1 or index.dtype not in (torch.int32, torch.int64):
        return None
    return [TensorType(x.dtype, (*x.shape[:axis], index.shape[0], *x.shape[axis + 1 :]))]


@rule("arange")
def _arange(attributes: Attributes) -> list[TensorType]:
    return [TensorType(attributes.get("dtype") or torch.int64, sizes_of([attributes["end"]]))]


@rule("full")
def _full(attributes: Attributes) -> list[TensorType] | None:
    dtype = attributes.get("dtype")
    if not isinstance(dtype, torch.dtype):
        return None
    return [TensorType(dtype, sizes_of(_row(attributes["size"])))]


# Along dimensions


@rule("amax", "amin")
def _extremes(attributes: Attributes, x: TensorType) -> list[TensorType] | None:
    return _reduced(x, x.dtype, attributes) if _row(attributes.get("dim", ())) else None


@rule("all.dim", "any.dim")
def _quantifiers(attributes: Attributes, x: TensorType) -> list[TensorType] | None:
    return _reduced(x, torch.bool, attributes) if x.dtype == torch.bool else None


@rule("prod.dim_int")
def _prod(attributes: Attributes, x: TensorType) -> list[TensorType] | None:
    plain = (x.dtype.is_floating_point or x.dtype == torch.int64) and attributes.get("dtype") is None
    return _reduced(x, x.dtype, attributes) if plain else None


@rule("sum.dim_IntList", "mean.dim")
def _sums(attributes: Attributes, x: TensorType) -> list[TensorType] | None:
    plain = x.dtype.is_floating_point and attributes.get("dtype") is None
    return _reduced(x, x.dtype, attributes) if plain and _row(attributes["dim"]) else None


@rule("cumsum")
def _cumsum(attributes: Attributes, x: TensorType) -> list[TensorType] | None:
    plain = x.dtype.is_floating_point or x.dtype == torch.int64
    return [x] if plain and attributes.get("dtype") is None else None


@rule("sort", "sort.stable")
def _sort(_: Attributes, x: TensorType) -> list[TensorType]:
    return [x, TensorType(torch.int64, x.shape)]


def _reduced(x: TensorType, dtype: torch.dtype, attributes: Attributes) -> list[TensorType]:
    axes = {axis_of(axis, x.rank) for axis in _row(attributes["dim"])}
    kept = [1 if i in axes else dim for i, dim in enumerate(x.shape)]
    if not attributes.get("keepdim", False):
        kept = [dim for i, dim in enumerate(x.shape) if i not in axes]
    return [TensorType(dtype, tuple(kept))]


# Pieces


def axis_of(axis: Attribute, rank: int) -> int:
    if type(axis) is not int or not -rank <= axis < rank:
        raise ValueError(axis)
    return axis % rank


def _number(value: Attribute) -> int | None:
    if value is not None and type(value) is not int:
        raise ValueError(value)
    return value


def _row(value: Attribute) -> Sequence[Any]:
    return value if isinstance(value, tuple) else (value,)


def sizes_of(values: Attribute | Sequence[Any]) -> tuple[Dim, ...]:
    found = tuple(values) if isinstance(values, list | tuple) else (values,)
    for value in found:
        if not isinstance(value, SymExpr) and (type(value) is not int or value < 0):
            raise ValueError(value)
    return found


def without(x: TensorType, axis: int) -> TensorType:
    return TensorType(x.dtype, (*x.shape[:axis], *x.shape[axis + 1 :]))
