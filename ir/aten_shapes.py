"""Result types of torch's commonest operators, without running torch's own shape propagation for them.

That propagation takes milliseconds a call, with symbolic sizes tens of them, and a lowering makes hundreds of nodes.
Each rule here gives what it gives, or None wherever it would have to decide anything about sizes or types that is not
plain; then torch is asked. A test compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch

from .dims import Dim, SymExpr
from .node import Attribute
from .ops import Fresh, OperandType
from .types import TensorType, Type

_Attributes: TypeAlias = Mapping[str, Attribute]
_Rule: TypeAlias = Callable[..., "list[TensorType] | None"]
"""Of the attributes and each operand's type."""
_FOUND = "u0"
"""What torch calls a size that only the data knows."""

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
    return all(isinstance(t, TensorType) for t in (operand if isinstance(operand, tuple) else (operand,)))


def _rule(*names: str) -> Callable[[_Rule], _Rule]:
    def register(rule: _Rule) -> _Rule:
        _rules.update(dict.fromkeys((f"aten.{name}" for name in names), rule))
        return rule

    return register


# Elements


@_rule(*("relu", "sigmoid", "tanh", "exp", "log", "sqrt", "rsqrt", "sin", "cos", "reciprocal"))
@_rule(*("floor", "ceil", "round", "abs", "neg", "silu", "gelu", "leaky_relu", "hardswish", "hardsigmoid"))
@_rule(*("softmax.int", "_softmax"))
def _floating(attributes: _Attributes, x: TensorType) -> list[TensorType] | None:
    return [x] if x.dtype.is_floating_point and attributes.get("dtype") is None else None


@_rule("isfinite", "isnan", "logical_not")
def _predicate(_: _Attributes, x: TensorType) -> list[TensorType]:
    return [TensorType(torch.bool, x.shape)]


@_rule("clamp", "clamp_min", "clamp_max")
def _clamp(attributes: _Attributes, x: TensorType) -> list[TensorType] | None:
    bounds = [attributes.get(name) for name in ("min", "max")]
    whole = all(bound is None or type(bound) is int for bound in bounds)
    real = all(bound is None or type(bound) in (int, float) for bound in bounds)
    return [x] if (whole if not x.dtype.is_floating_point else real) and x.dtype != torch.bool else None


@_rule("add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor", "minimum", "maximum")
def _arithmetic(attributes: _Attributes, first: TensorType, second: TensorType) -> list[TensorType] | None:
    if torch.bool in (first.dtype, second.dtype) or type(attributes.get("alpha", 1)) is not int:
        return None
    return _pointwise(_promoted(first, second), first, second)


@_rule("div.Tensor")
def _division(attributes: _Attributes, first: TensorType, second: TensorType) -> list[TensorType] | None:
    found = _arithmetic(attributes, first, second)
    return found if found and found[0].dtype.is_floating_point else None


@_rule("bitwise_and.Tensor", "bitwise_or.Tensor", "logical_and", "logical_or")
def _logic(_: _Attributes, first: TensorType, second: TensorType) -> list[TensorType] | None:
    return _pointwise(torch.bool, first, second) if first.dtype == second.dtype == torch.bool else None


@_rule(*(f"{name}.Tensor" for name in ("eq", "ne", "lt", "le", "gt", "ge")))
def _comparison(_: _Attributes, first: TensorType, second: TensorType) -> list[TensorType] | None:
    return _pointwise(torch.bool, first, second)


@_rule(*(f"{name}.Scalar" for name in ("eq", "ne", "lt", "le", "gt", "ge")))
def _comparison_with_number(attributes: _Attributes, x: TensorType) -> list[TensorType] | None:
    return [TensorType(torch.bool, x.shape)] if type(attributes["other"]) in (int, float) else None


@_rule("add.Scalar", "sub.Scalar", "rsub.Scalar", "mul.Scalar", "div.Scalar")
@_rule("floor_divide.Scalar", "remainder.Scalar")
def _arithmetic_with_number(attributes: _Attributes, x: TensorType) -> list[TensorType] | None:
    number = attributes["other"]
    if type(number) not in (int, float) or type(attributes.get("alpha", 1)) is not int:
        return None
    # A number leaves a tensor its type, unless the number alone is real.
    return [x] if x.dtype.is_floating_point or (type(number) is int and x.dtype != torch.bool) else None


@_rule("div.Scalar")
def _division_by_number(attributes: _Attributes, x: TensorType) -> list[TensorType] | None:
    return _arithmetic_with_number(attributes, x) if x.dtype.is_floating_point else None


@_rule("where.self")
def _where(
    _: _Attributes, condition: TensorType, first: TensorType, second: TensorType
) -> list[TensorType] | None:
    if condition.dtype != torch.bool or first.dtype != second.dtype:
        return None
    return _pointwise(first.dtype, condition, first, second)


@_rule("where.ScalarOther")
def _where_number(attributes: _Attributes, condition: TensorType, x: TensorType) -> list[TensorType] | None:
    if condition.dtype != torch.bool or not x.dtype.is_floating_point or x.rank == 0:
        return None
    return _pointwise(x.dtype, condition, x) if type(attributes["other"]) in (int, float) else None


@_rule("_to_copy", "ones_like", "zeros_like", "full_like")
def _like(attributes: _Attributes, x: TensorType) -> list[TensorType] | None:
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


@_rule("unsqueeze")
def _unsqueeze(attributes: _Attributes, x: TensorType) -> list[TensorType]:
    axis = _axis(attributes["dim"], x.rank + 1)
    return [TensorType(x.dtype, (*x.shape[:axis], 1, *x.shape[axis:]))]


@_rule("squeeze.dim")
def _squeeze(attributes: _Attributes, x: TensorType) -> list[TensorType] | None:
    axis = _axis(attributes["dim"], x.rank)
    return [_without(x, axis)] if x.shape[axis] == 1 else None


@_rule("permute")
def _permute(attributes: _Attributes, x: TensorType) -> list[TensorType] | None:
    order = [_axis(axis, x.rank) for axis in _row(attributes["dims"])]
    return [TensorType(x.dtype, tuple(x.shape[i] for i in order))] if len(set(order)) == x.rank else None


@_rule("transpose.int")
def _transpose(attributes: _Attributes, x: TensorType) -> list[TensorType]:
    first, second = (_axis(attributes[name], x.rank) for name in ("dim0", "dim1"))
    shape = list(x.shape)
    shape[first], shape[second] = shape[second], shape[first]
    return [TensorType(x.dtype, tuple(shape))]


@_rule("reshape", "view")
def _reshape(attributes: _Attributes, x: TensorType) -> list[TensorType] | None:
    shape = _sizes(attributes["shape" if "shape" in attributes else "size"])
    return [TensorType(x.dtype, shape)] if math.prod(shape) == math.prod(x.shape) else None


@_rule("expand")
def _expand(attributes: _Attributes, x: TensorType) -> list[TensorType] | None:
    sizes = _row(attributes["size"])
    new = len(sizes) - x.rank
    shape = list(_sizes(sizes[:new]))
    for size, own in zip(sizes[new:], x.shape, strict=True):
        if isinstance(size, int) and size == -1:
            shape.append(own)
        elif own in (size, 1):
            shape += _sizes([size])
        else:
            return None
    return [TensorType(x.dtype, tuple(shape))]


@_rule("select.int")
def _select(attributes: _Attributes, x: TensorType) -> list[TensorType] | None:
    axis, index = _axis(attributes["dim"], x.rank), attributes["index"]
    size = x.shape[axis]
    if type(index) is not int or not isinstance(size, int) or not -size <= index < size:
        return None
    return [_without(x, axis)]


@_rule("slice.Tensor")
def _slice(attributes: _Attributes, x: TensorType) -> list[TensorType] | None:
    axis = _axis(attributes.get("dim", 0), x.rank)
    start, end, step = (_number(attributes.get(name)) for name in ("start", "end", "step"))
    size = x.shape[axis]
    if isinstance(size, SymExpr):
        everything = start in (None, 0) and (end is None or end >= 2**62) and step in (None, 1)
        return [x] if everything else None
    left = len(range(size)[slice(start, end, step)])
    return [TensorType(x.dtype, (*x.shape[:axis], left, *x.shape[axis + 1 :]))]


@_rule("cat")
def _cat(attributes: _Attributes, parts: tuple[TensorType, ...]) -> list[TensorType] | None:
    first = parts[0]
    axis = _axis(attributes.get("dim", 0), first.rank)
    if any(part.dtype != first.dtype or _without(part, axis) != _without(first, axis) for part in parts):
        return None
    total: Dim = 0
    for part in parts:
        total = total + part.shape[axis]
    return [TensorType(first.dtype, (*first.shape[:axis], total, *first.shape[axis + 1 :]))]


@_rule("stack")
def _stack(attributes: _Attributes, parts: tuple[TensorType, ...]) -> list[TensorType] | None:
    first = parts[0]
    axis = _axis(attributes.get("dim", 0), first.rank + 1)
    if any(part != first for part in parts):
        return None
    return [TensorType(first.dtype, (*first.shape[:axis], len(parts), *first.shape[axis:]))]


@_rule("index_select")
def _index_select(attributes: _Attributes, x: TensorType, index: TensorType) -> list[TensorType] | None:
    axis = _axis(attributes["dim"], x.rank)
    if index.rank != 1 or index.dtype not in (torch.int32, torch.int64):
        return None
    return [TensorType(x.dtype, (*x.shape[:axis], index.shape[0], *x.shape[axis + 1 :]))]


@_rule("arange")
def _arange(attributes: _Attributes) -> list[TensorType] | None:
    dtype = attributes.get("dtype")
    if not isinstance(dtype, torch.dtype):
        return None
    return [TensorType(dtype, _sizes([attributes["end"]]))]


@_rule("nonzero")
def _nonzero(_: _Attributes, x: TensorType) -> list[TensorType]:
    return [TensorType(torch.int64, (Fresh(_FOUND), x.rank))]


@_rule("index_copy", "index_fill.int_Scalar")
def _written_into(
    attributes: _Attributes, x: TensorType, index: TensorType, *source: TensorType
) -> list[TensorType] | None:
    _axis(attributes["dim"], x.rank)
    fits = index.rank == 1 and index.dtype == torch.int64 and x.rank > 0
    if source and (source[0].dtype != x.dtype or source[0].rank != x.rank):
        return None
    return [x] if fits and (source or type(attributes["value"]) is int) else None


@_rule("gather")
def _gather(attributes: _Attributes, x: TensorType, index: TensorType) -> list[TensorType] | None:
    _axis(attributes["dim"], x.rank)
    return [TensorType(x.dtype, index.shape)] if index.dtype == torch.int64 and index.rank == x.rank else None


@_rule("full")
def _full(attributes: _Attributes) -> list[TensorType] | None:
    dtype = attributes.get("dtype")
    if not isinstance(dtype, torch.dtype):
        return None
    return [TensorType(dtype, _sizes(_row(attributes["size"])))]


# Along dimensions


@_rule("amax", "amin")
def _extremes(attributes: _Attributes, x: TensorType) -> list[TensorType] | None:
    return _reduced(x, x.dtype, attributes) if _row(attributes.get("dim", ())) else None


@_rule("all.dim", "any.dim")
def _quantifiers(attributes: _Attributes, x: TensorType) -> list[TensorType] | None:
    return _reduced(x, torch.bool, attributes) if x.dtype == torch.bool else None


@_rule("sum.dim_IntList", "mean.dim")
def _sums(attributes: _Attributes, x: TensorType) -> list[TensorType] | None:
    plain = x.dtype.is_floating_point and attributes.get("dtype") is None
    return _reduced(x, x.dtype, attributes) if plain and _row(attributes["dim"]) else None


@_rule("cumsum")
def _cumsum(attributes: _Attributes, x: TensorType) -> list[TensorType] | None:
    plain = x.dtype.is_floating_point or x.dtype == torch.int64
    return [x] if plain and attributes.get("dtype") is None else None


@_rule("sort", "sort.stable")
def _sort(_: _Attributes, x: TensorType) -> list[TensorType]:
    return [x, TensorType(torch.int64, x.shape)]


def _reduced(x: TensorType, dtype: torch.dtype, attributes: _Attributes) -> list[TensorType]:
    axes = {_axis(axis, x.rank) for axis in _row(attributes["dim"])}
    kept = [1 if i in axes else dim for i, dim in enumerate(x.shape)]
    if not attributes.get("keepdim", False):
        kept = [dim for i, dim in enumerate(x.shape) if i not in axes]
    return [TensorType(dtype, tuple(kept))]


# torchvision's


def _nms(_: _Attributes, boxes: TensorType, scores: TensorType) -> list[TensorType] | None:
    fits = boxes.rank == 2 and boxes.shape[1] == 4 and scores.shape == boxes.shape[:1]
    return [TensorType(torch.int64, (Fresh(_FOUND),))] if fits and boxes.dtype == scores.dtype else None


_rules["torchvision.nms"] = _nms


# Pieces


def _axis(axis: Attribute, rank: int) -> int:
    if type(axis) is not int or not -rank <= axis < rank:
        raise ValueError(axis)
    return axis % rank


def _number(value: Attribute) -> int | None:
    if value is not None and type(value) is not int:
        raise ValueError(value)
    return value


def _row(value: Attribute) -> Sequence[Any]:
    return value if isinstance(value, tuple) else (value,)


def _sizes(values: Attribute | Sequence[Any]) -> tuple[Dim, ...]:
    found = tuple(values) if isinstance(values, list | tuple) else (values,)
    for value in found:
        if not isinstance(value, SymExpr) and (type(value) is not int or value < 0):
            raise ValueError(value)
    return found


def _without(x: TensorType, axis: int) -> TensorType:
    return TensorType(x.dtype, (*x.shape[:axis], *x.shape[axis + 1 :]))
