"""aten ops that reduce or order along axes, and those that create tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from detc.ir import Dim, SymExpr, Value
from detc.ir.node import LITERAL_LIMIT
from detc.passes.core.base import NoMatch

from .builder import OnnxBuilder
from .rules import RuleTable, axis_of

TABLE = RuleTable()


def _axes(x: Value, dim: Any) -> list[int]:
    """The axes that `dim` means: all where it is None or empty."""
    if dim is None or dim in ((), []):
        return list(range(x.rank))
    return [axis_of(d, x.rank) for d in ([dim] if isinstance(dim, int) else dim)]


def reduce(b: OnnxBuilder, op_type: str, x: Value, dim: Any, keepdim: bool) -> Value:
    """A reduction over axes. A tensor of rank 0 is its own result."""
    if not x.rank:
        return x
    keep = {} if keepdim else {"keepdims": 0}
    return b.call(f"onnx.{op_type}", x, b.ints(_axes(x, dim)), **keep)


def _reduction(op_type: str, *names: str) -> None:
    @TABLE.rule(*names)
    def apply(
        b: OnnxBuilder, self: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None
    ) -> Value:
        return reduce(b, op_type, b.cast(self, b.result.dtype), dim, keepdim)


_reduction("ReduceMean", "aten.mean", "aten.mean.dim")
_reduction("ReduceSum", "aten.sum", "aten.sum.dim_IntList")
_reduction("ReduceMax", "aten.max", "aten.amax")
_reduction("ReduceMin", "aten.min", "aten.amin")
_reduction("ReduceProd", "aten.prod", "aten.prod.dim_int")
_reduction("ReduceLogSumExp", "aten.logsumexp")


@TABLE.rule("aten.any", "aten.any.dim", "aten.any.dims")
def any_(b: OnnxBuilder, self: Value, dim: Any = None, keepdim: bool = False) -> Value:
    flags = b.cast(b.cast(self, torch.bool), torch.int32)
    return b.cast(reduce(b, "ReduceMax", flags, dim, keepdim), torch.bool)


@TABLE.rule("aten.all", "aten.all.dim", "aten.all.dims")
def all_(b: OnnxBuilder, self: Value, dim: Any = None, keepdim: bool = False) -> Value:
    flags = b.cast(b.cast(self, torch.bool), torch.int32)
    return b.cast(reduce(b, "ReduceMin", flags, dim, keepdim), torch.bool)


@TABLE.rule("aten.linalg_vector_norm")
def vector_norm(b: OnnxBuilder, self: Value, ord: float, dim: Any, keepdim: bool, dtype: Any) -> Value:
    names = {2: "ReduceL2", 1: "ReduceL1"}
    if ord not in names:
        raise NoMatch(f"the vector norm of order {ord}")
    return reduce(b, names[int(ord)], b.cast(self, b.result.dtype), dim, keepdim)


@TABLE.rule("aten.var.correction")
def variance(b: OnnxBuilder, self: Value, dim: Any, correction: Any, keepdim: bool) -> Value:
    axes = _axes(self, dim)
    sizes = [self.shape[axis] for axis in axes]
    if not all(isinstance(s, int) for s in sizes):
        raise NoMatch("the variance over a size that is not known")
    count = 1
    for size in sizes:
        count *= size if isinstance(size, int) else 1
    centred = b.onnx.Sub(self, reduce(b, "ReduceMean", self, dim, True))
    total = reduce(b, "ReduceSum", b.onnx.Mul(centred, centred), dim, keepdim)
    divisor = count - (1 if correction is None else correction)
    return b.onnx.Div(total, b.scalar(divisor, self.dtype))


def _arg(name: str, op_type: str) -> None:
    @TABLE.rule(f"aten.{name}")
    def apply(b: OnnxBuilder, self: Value, dim: int | None, keepdim: bool) -> Value:
        value = self
        if dim is None:
            value = b.onnx.Reshape(self, b.ints([-1]))
            keepdim = False
        keep = {} if keepdim else {"keepdims": 0}
        return b.call(f"onnx.{op_type}", value, axis=0 if dim is None else axis_of(dim, self.rank), **keep)


_arg("argmax", "ArgMax")
_arg("argmin", "ArgMin")


def _best(name: str, reduction: str, position: str) -> None:
    @TABLE.rule(f"aten.{name}.dim")
    def apply(b: OnnxBuilder, self: Value, dim: int, keepdim: bool) -> list[Value]:
        if not self.rank:
            return [self, b.scalar(0, torch.int64)]
        keep = {} if keepdim else {"keepdims": 0}
        values, indices = b.lowered.results
        # Only what is used is computed; a result that is not stands in for the other's node.
        best = reduce(b, reduction, self, dim, keepdim) if values.is_used else None
        where = (
            b.call(f"onnx.{position}", self, axis=axis_of(dim, self.rank), **keep)
            if indices.is_used
            else None
        )
        if best is None:
            best = b.constant(torch.empty((0,) * values.rank, dtype=values.dtype))
        if where is None:
            where = b.constant(torch.empty((0,) * indices.rank, dtype=indices.dtype))
        return [best, where]


_best("max", "ReduceMax", "ArgMax")
_best("min", "ReduceMin", "ArgMin")


# Softmax


@TABLE.rule("aten.softmax.int", "aten._softmax")
def softmax(b: OnnxBuilder, self: Value, dim: int, **_: Any) -> Value:
    return b.onnx.Softmax(b.cast(self, b.result.dtype), axis=axis_of(dim, self.rank))


@TABLE.rule("aten.log_softmax.int", "aten._log_softmax")
def log_softmax(b: OnnxBuilder, self: Value, dim: int, **_: Any) -> Value:
    return b.onnx.LogSoftmax(b.cast(self, b.result.dtype), axis=axis_of(dim, self.rank))


# Order


@TABLE.rule("aten.cumsum")
def cumsum(b: OnnxBuilder, self: Value, dim: int, dtype: Any) -> Value:
    value = b.cast(self, b.result.dtype)
    if not self.rank:
        return value
    return b.onnx.CumSum(value, b.scalar(axis_of(dim, self.rank), torch.int64))


def top(
    b: OnnxBuilder, x: Value, count: Dim, axis: int, largest: bool, is_sorted: bool = True
) -> list[Value]:
    """The best elements along an axis and where they stand; equal ones in the order of their positions."""
    flags = {} if largest else {"largest": 0}
    if not is_sorted:
        flags["sorted"] = 0
    return list(b.onnx.TopK(x, b.size(count), axis=axis, **flags))


@TABLE.rule("aten.topk")
def topk(b: OnnxBuilder, self: Value, k: Any, dim: int, largest: bool, sorted: bool) -> list[Value]:
    return top(b, self, k, axis_of(dim, self.rank), largest, sorted)


@TABLE.rule("aten.sort", "aten.sort.stable")
def sort(b: OnnxBuilder, self: Value, dim: int, descending: bool, stable: Any = None) -> list[Value]:
    axis = axis_of(dim, self.rank)
    return top(b, self, self.shape[axis], axis, descending)


@TABLE.rule("aten.argsort", "aten.argsort.stable")
def argsort(b: OnnxBuilder, self: Value, dim: int, descending: bool, stable: Any = None) -> Value:
    axis = axis_of(dim, self.rank)
    return top(b, self, self.shape[axis], axis, descending)[1]


@TABLE.rule("aten.einsum")
def einsum(b: OnnxBuilder, equation: str, tensors: Sequence[Value], path: Any) -> Value:
    return b.onnx.Einsum(tensors, equation=equation.replace(" ", ""))


# Creation


@TABLE.rule("aten.arange", "aten.arange.start", "aten.arange.start_step")
def arange(b: OnnxBuilder, end: Any, start: Any = 0, step: Any = 1, **_: Any) -> Value:
    dtype = b.result.dtype
    if not any(isinstance(bound, SymExpr) for bound in (start, end, step)):
        return b.constant(torch.arange(start, end, step, dtype=dtype))
    # Sizes are whole numbers: counting in them is exact, whatever the result's element type is.
    whole = all(isinstance(bound, int | SymExpr) for bound in (start, end, step))
    counted = torch.int64 if whole else dtype
    bounds = [b.number(bound, counted) for bound in (start, end, step)]
    return b.cast(b.onnx.Range(*bounds), dtype)


def filled(b: OnnxBuilder, value: Any, like: Value | None = None) -> Value:
    """A tensor of the lowered node's type with one number everywhere."""
    shape, dtype = b.result.shape, b.result.dtype
    if isinstance(value, Value | SymExpr):
        return b.expand(b.cast(value, dtype) if isinstance(value, Value) else b.number(value, dtype), shape)
    static = [d for d in shape if isinstance(d, int)]
    if len(static) == len(shape):
        full = torch.full(static, value, dtype=dtype)
        if full.numel() <= LITERAL_LIMIT:
            return b.constant(full)
    number = bool(value) if dtype is torch.bool else float(value) if dtype.is_floating_point else int(value)
    return b.onnx.ConstantOfShape(b.shape(shape, like), value=(dtype, number))


def _filling(value: float, *names: str) -> None:
    @TABLE.rule(*names)
    def fill(b: OnnxBuilder, self: Value | None = None, **_: Any) -> Value:
        return filled(b, value, self)


_filling(0, "aten.zeros", "aten.zeros_like", "aten.new_zeros", "aten.empty.memory_format", "aten.new_empty")
_filling(1, "aten.ones", "aten.ones_like", "aten.new_ones")


@TABLE.rule("aten.full", "aten.full_like", "aten.new_full")
def full(b: OnnxBuilder, fill_value: Any, self: Value | None = None, **_: Any) -> Value:
    return filled(b, fill_value, self)


@TABLE.rule("aten.scalar_tensor")
def scalar_tensor(b: OnnxBuilder, s: Any, **_: Any) -> Value:
    return b.number(s, b.result.dtype)


@TABLE.rule("aten.fill.Scalar", "aten.fill.Tensor")
def fill(b: OnnxBuilder, self: Value, value: Any) -> Value:
    return filled(b, value, self)


@TABLE.rule("aten.triu", "aten.tril")
def triangle(b: OnnxBuilder, self: Value, diagonal: int) -> Value:
    upper = int(b.lowered.op.name == "aten.triu")
    return b.onnx.Trilu(self, b.scalar(diagonal, torch.int64), upper=upper)


@TABLE.rule("aten.one_hot")
def one_hot(b: OnnxBuilder, self: Value, num_classes: int) -> Value:
    if num_classes < 0:
        raise NoMatch("one_hot with a number of classes that depends on the data")
    depth = b.scalar(num_classes, torch.int64)
    return b.onnx.OneHot(self, depth, b.ints([0, 1]))
