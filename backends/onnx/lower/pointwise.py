"""Pointwise aten ops: arithmetic, comparison, logic, activations, element types."""

from __future__ import annotations

import math
from typing import Any

import torch

from detc.ir import Constant, SymExpr, Value
from detc.passes.core.base import NoMatch

from .builder import OnnxBuilder
from .rules import RuleTable

TABLE = RuleTable()

_COMPARABLE = {torch.float32, torch.float64, torch.int32, torch.int64}
"""Element types that onnxruntime orders."""
_SELECTABLE = {torch.float32, torch.float64, torch.int32, torch.int64, torch.uint8}
"""Element types that onnxruntime's Where takes."""


def operand(b: OnnxBuilder, argument: Any, dtype: torch.dtype) -> Value:
    """A tensor or number argument as a value of an element type."""
    return b.cast(argument, dtype) if isinstance(argument, Value) else b.number(argument, dtype)


def common_dtype(*arguments: Any) -> torch.dtype:
    """The element type in which torch computes on these arguments: tensors, tensors of rank 0, then numbers."""

    def example(argument: Any) -> Any:
        if isinstance(argument, Value):
            return torch.empty((1,) * argument.rank, dtype=argument.dtype)
        return 1 if isinstance(argument, SymExpr) else argument

    dtype = torch.result_type(example(arguments[0]), example(arguments[0]))
    for argument in arguments[1:]:
        dtype = torch.result_type(example(arguments[0]), example(argument))
    return dtype


def is_number(argument: Any, value: float) -> bool:
    """Whether the argument is that number, plain or as a literal."""
    if isinstance(argument, Constant) and argument.is_literal and argument.data.numel() == 1:
        return bool(argument.data.item() == value)
    return isinstance(argument, int | float) and argument == value


# Arithmetic


def _binary(b: OnnxBuilder, op_type: str, left: Any, right: Any) -> Value:
    dtype = b.result.dtype
    return b.call(f"onnx.{op_type}", operand(b, left, dtype), operand(b, right, dtype))


@TABLE.rule("aten.add.Tensor", "aten.add.Scalar")
def add(b: OnnxBuilder, self: Any, other: Any, alpha: Any) -> Value:
    if b.result.dtype is torch.bool:
        return _binary(b, "Or", self, other)
    return _binary(b, "Add", self, _scaled(b, other, alpha))


@TABLE.rule("aten.sub.Tensor", "aten.sub.Scalar")
def sub(b: OnnxBuilder, self: Any, other: Any, alpha: Any) -> Value:
    return _binary(b, "Sub", self, _scaled(b, other, alpha))


@TABLE.rule("aten.rsub.Tensor", "aten.rsub.Scalar")
def rsub(b: OnnxBuilder, self: Any, other: Any, alpha: Any) -> Value:
    return _binary(b, "Sub", other, _scaled(b, self, alpha))


def _scaled(b: OnnxBuilder, argument: Any, alpha: Any) -> Any:
    if alpha == 1:
        return argument
    return argument * alpha if not isinstance(argument, Value) else _binary(b, "Mul", argument, alpha)


@TABLE.rule("aten.mul.Tensor", "aten.mul.Scalar")
def mul(b: OnnxBuilder, self: Any, other: Any) -> Value:
    return _binary(b, "And" if b.result.dtype is torch.bool else "Mul", self, other)


@TABLE.rule("aten.div.Tensor", "aten.div.Scalar", "aten.true_divide.Tensor")
def div(b: OnnxBuilder, self: Any, other: Any) -> Value:
    return _binary(b, "Div", self, other)


@TABLE.rule("aten.div.Tensor_mode", "aten.div.Scalar_mode")
def div_mode(b: OnnxBuilder, self: Any, other: Any, rounding_mode: str | None) -> Value:
    dtype = b.result.dtype
    if rounding_mode is None:
        return _binary(b, "Div", self, other)
    left, right = operand(b, self, dtype), operand(b, other, dtype)
    if dtype.is_floating_point:
        quotient = b.onnx.Div(left, right)
        if rounding_mode == "floor":
            return b.onnx.Floor(quotient)
        return b.onnx.Mul(b.onnx.Sign(quotient), b.onnx.Floor(b.onnx.Abs(quotient)))
    if rounding_mode == "floor":
        # ONNX divides integers towards zero; without the remainder the division is exact.
        left = b.onnx.Sub(left, b.onnx.Mod(left, right))
    return b.onnx.Div(left, right)


@TABLE.rule("aten.floor_divide", "aten.floor_divide.Scalar")
def floor_divide(b: OnnxBuilder, self: Any, other: Any) -> Value:
    return div_mode(b, self, other, "floor")


@TABLE.rule("aten.remainder.Tensor", "aten.remainder.Scalar")
def remainder(b: OnnxBuilder, self: Any, other: Any) -> Value:
    dtype = b.result.dtype
    left, right = operand(b, self, dtype), operand(b, other, dtype)
    if not dtype.is_floating_point:
        return b.onnx.Mod(left, right)
    whole = b.onnx.Floor(b.onnx.Div(left, right))
    return b.onnx.Sub(left, b.onnx.Mul(whole, right))


@TABLE.rule("aten.fmod.Tensor", "aten.fmod.Scalar")
def fmod(b: OnnxBuilder, self: Any, other: Any) -> Value:
    dtype = b.result.dtype
    return b.onnx.Mod(operand(b, self, dtype), operand(b, other, dtype), fmod=1)


@TABLE.rule("aten.pow.Tensor_Scalar", "aten.pow.Tensor_Tensor", "aten.pow.Scalar")
def power(b: OnnxBuilder, self: Any, exponent: Any) -> Value:
    if is_number(exponent, 2):
        return _binary(b, "Mul", self, self)
    if is_number(exponent, 0.5):
        return b.onnx.Sqrt(operand(b, self, b.result.dtype))
    return _binary(b, "Pow", self, exponent)


@TABLE.rule("aten.square")
def square(b: OnnxBuilder, self: Value) -> Value:
    return _binary(b, "Mul", self, self)


def _extremum(b: OnnxBuilder, op_type: str, left: Any, right: Any) -> Value:
    dtype = b.result.dtype
    if dtype is torch.bool:
        return _binary(b, "And" if op_type == "Min" else "Or", left, right)
    return b.call(f"onnx.{op_type}", [operand(b, left, dtype), operand(b, right, dtype)])


@TABLE.rule("aten.maximum", "aten.max.other")
def maximum(b: OnnxBuilder, self: Value, other: Any) -> Value:
    return _extremum(b, "Max", self, other)


@TABLE.rule("aten.minimum", "aten.min.other")
def minimum(b: OnnxBuilder, self: Value, other: Any) -> Value:
    return _extremum(b, "Min", self, other)


@TABLE.rule("aten.clamp", "aten.clamp.Tensor", "aten.hardtanh", "aten.clamp_min", "aten.clamp_max")
def clamp(
    b: OnnxBuilder, self: Value, min: Any = None, max: Any = None, min_val: Any = None, max_val: Any = None
) -> Value:
    low, high = min if min_val is None else min_val, max if max_val is None else max_val
    dtype = b.result.dtype
    if isinstance(low, Value) or isinstance(high, Value):
        value = operand(b, self, dtype)
        if low is not None:
            value = b.onnx.Max([value, operand(b, low, dtype)])
        return value if high is None else b.onnx.Min([value, operand(b, high, dtype)])
    bounds = [None if bound is None else b.number(bound, dtype) for bound in (low, high)]
    if bounds == [None, None]:
        return self
    return b.onnx.Clip(b.cast(self, dtype), *bounds)


@TABLE.rule("aten.addcmul")
def addcmul(b: OnnxBuilder, self: Value, tensor1: Value, tensor2: Value, value: Any) -> Value:
    return _binary(b, "Add", self, _scaled(b, _binary(b, "Mul", tensor1, tensor2), value))


# Comparison and logic


def _compare(b: OnnxBuilder, op_type: str, left: Any, right: Any) -> Value:
    dtype = common_dtype(left, right)
    if dtype not in _COMPARABLE and not (dtype is torch.bool and op_type == "Equal"):
        dtype = torch.int32 if not dtype.is_floating_point else dtype
    return b.call(f"onnx.{op_type}", operand(b, left, dtype), operand(b, right, dtype))


def _comparison(name: str, op_type: str, negate: bool = False) -> None:
    @TABLE.rule(f"aten.{name}.Tensor", f"aten.{name}.Scalar")
    def compare(b: OnnxBuilder, self: Any, other: Any) -> Value:
        found = _compare(b, op_type, self, other)
        return b.onnx.Not(found) if negate else found


for _name, _type in {
    "eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual",
}.items():  # fmt: skip
    _comparison(_name, _type)
_comparison("ne", "Equal", negate=True)


def _logic(name: str, op_type: str, *bitwise: str) -> None:
    @TABLE.rule(f"aten.logical_{name}")
    def logical(b: OnnxBuilder, self: Value, other: Value) -> Value:
        return b.call(f"onnx.{op_type}", b.cast(self, torch.bool), b.cast(other, torch.bool))

    @TABLE.rule(*bitwise)
    def bits(b: OnnxBuilder, self: Any, other: Any) -> Value:
        return _binary(b, op_type if b.result.dtype is torch.bool else f"Bitwise{op_type}", self, other)


_logic("and", "And", "aten.bitwise_and.Tensor", "aten.bitwise_and.Scalar", "aten.__and__.Tensor")
_logic("or", "Or", "aten.bitwise_or.Tensor", "aten.bitwise_or.Scalar", "aten.__or__.Tensor")
_logic("xor", "Xor", "aten.bitwise_xor.Tensor", "aten.bitwise_xor.Scalar", "aten.__xor__.Tensor")


@TABLE.rule("aten.logical_not")
def logical_not(b: OnnxBuilder, self: Value) -> Value:
    return b.onnx.Not(b.cast(self, torch.bool))


@TABLE.rule("aten.bitwise_not")
def bitwise_not(b: OnnxBuilder, self: Value) -> Value:
    return b.onnx.Not(self) if self.dtype is torch.bool else b.onnx.BitwiseNot(self)


@TABLE.rule("aten.isfinite")
def isfinite(b: OnnxBuilder, self: Value) -> Value:
    # x - x is zero for every finite x, and not a number for the others.
    return b.onnx.Equal(b.onnx.Sub(self, self), b.scalar(0, self.dtype))


def select(b: OnnxBuilder, condition: Value, left: Value, right: Value) -> Value:
    """`left` where the condition holds, `right` elsewhere; both of one element type."""
    dtype = left.dtype
    if dtype in _SELECTABLE or dtype.is_floating_point:
        return b.onnx.Where(condition, left, right)
    wide = torch.uint8 if dtype is torch.bool else torch.int32
    return b.cast(b.onnx.Where(condition, b.cast(left, wide), b.cast(right, wide)), dtype)


@TABLE.rule("aten.where.self", "aten.where.ScalarSelf", "aten.where.ScalarOther", "aten.where.Scalar")
def where(b: OnnxBuilder, condition: Value, self: Any, other: Any) -> Value:
    dtype = b.result.dtype
    return select(b, b.cast(condition, torch.bool), operand(b, self, dtype), operand(b, other, dtype))


@TABLE.rule("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def masked_fill(b: OnnxBuilder, self: Value, mask: Value, value: Any) -> Value:
    return select(b, mask, operand(b, value, self.dtype), self)


# Functions of one tensor


def _function(name: str, op_type: str) -> None:
    """A function of real numbers: integers are converted first."""

    @TABLE.rule(f"aten.{name}")
    def apply(b: OnnxBuilder, self: Value) -> Value:
        return b.call(f"onnx.{op_type}", b.cast(self, b.result.dtype))


for _name, _type in {
    "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "erf": "Erf", "sin": "Sin",
    "cos": "Cos", "tan": "Tan", "atan": "Atan", "asin": "Asin", "acos": "Acos", "reciprocal": "Reciprocal",
}.items():  # fmt: skip
    _function(_name, _type)


@TABLE.rule("aten.atan2")
def atan2(b: OnnxBuilder, self: Value, other: Value) -> Value:
    """Atan of the quotient, and half a turn where the second is negative. Of zero and zero it is zero."""
    y, x = self, other
    zero, half_turn = b.scalar(0.0, y.dtype), b.scalar(math.pi, y.dtype)
    angle = b.onnx.Where(b.onnx.Equal(y, zero), zero, b.onnx.Atan(b.onnx.Div(y, x)))
    turn = b.onnx.Where(b.onnx.Less(y, zero), b.scalar(-math.pi, y.dtype), half_turn)
    return b.onnx.Add(angle, b.onnx.Where(b.onnx.Less(x, zero), turn, zero))


def _rounding(name: str, op_type: str) -> None:
    @TABLE.rule(f"aten.{name}")
    def apply(b: OnnxBuilder, self: Value) -> Value:
        return b.call(f"onnx.{op_type}", self) if self.dtype.is_floating_point else self


for _name, _type in {"floor": "Floor", "ceil": "Ceil", "round": "Round"}.items():
    _rounding(_name, _type)


@TABLE.rule("aten.trunc")
def trunc(b: OnnxBuilder, self: Value) -> Value:
    if not self.dtype.is_floating_point:
        return self
    return b.onnx.Mul(b.onnx.Sign(self), b.onnx.Floor(b.onnx.Abs(self)))


@TABLE.rule("aten.rsqrt")
def rsqrt(b: OnnxBuilder, self: Value) -> Value:
    return b.onnx.Reciprocal(b.onnx.Sqrt(b.cast(self, b.result.dtype)))


@TABLE.rule("aten.log2")
def log2(b: OnnxBuilder, self: Value) -> Value:
    dtype = b.result.dtype
    return b.onnx.Div(b.onnx.Log(b.cast(self, dtype)), b.scalar(0.6931471805599453, dtype))


@TABLE.rule("aten.relu")
def relu(b: OnnxBuilder, self: Value) -> Value:
    if self.dtype.is_floating_point:
        return b.onnx.Relu(self)
    return b.onnx.Max([self, b.scalar(0, self.dtype)])


@TABLE.rule("aten.relu6")
def relu6(b: OnnxBuilder, self: Value) -> Value:
    return clamp(b, self, 0, 6)


@TABLE.rule("aten.leaky_relu")
def leaky_relu(b: OnnxBuilder, self: Value, negative_slope: float) -> Value:
    return b.onnx.LeakyRelu(self, alpha=float(negative_slope))


@TABLE.rule("aten.prelu", "aten._prelu_kernel")
def prelu(b: OnnxBuilder, self: Value, weight: Value) -> Value:
    if weight.rank == 1 and self.rank > 2 and weight.shape[0] != 1:
        weight = b.reshape(weight, (*weight.shape, *[1] * (self.rank - 2)))
    return b.onnx.PRelu(self, weight)


@TABLE.rule("aten.elu")
def elu(b: OnnxBuilder, self: Value, alpha: float, scale: float, input_scale: float) -> Value:
    if scale != 1 or input_scale != 1:
        raise NoMatch("elu with a scale has no counterpart in ONNX")
    return b.onnx.Elu(self, alpha=float(alpha))


@TABLE.rule("aten.softplus")
def softplus(b: OnnxBuilder, self: Value, beta: float, threshold: float) -> Value:
    if beta != 1:
        raise NoMatch("softplus with another beta than 1 has no counterpart in ONNX")
    return b.onnx.Softplus(self)


@TABLE.rule("aten.silu")
def silu(b: OnnxBuilder, self: Value) -> Value:
    return b.onnx.Mul(self, b.onnx.Sigmoid(self))


@TABLE.rule("aten.gelu")
def gelu(b: OnnxBuilder, self: Value, approximate: str) -> Value:
    return b.onnx.Gelu(self) if approximate == "none" else b.onnx.Gelu(self, approximate=approximate)


@TABLE.rule("aten.hardsigmoid")
def hardsigmoid(b: OnnxBuilder, self: Value) -> Value:
    return b.onnx.HardSigmoid(self, alpha=1 / 6, beta=0.5)


@TABLE.rule("aten.glu")
def glu(b: OnnxBuilder, self: Value, dim: int) -> Value:
    value, gate = b.onnx.Split(self, axis=dim, num_outputs=2)
    return b.onnx.Mul(value, b.onnx.Sigmoid(gate))


# Element types


@TABLE.rule(
    "aten.to.dtype",
    "aten.to.dtype_layout",
    "aten.to.device",
    "aten._to_copy",
    "aten.type_as",
    "aten.to.other",
)
def to(b: OnnxBuilder, self: Value, **_: Any) -> Value:
    return b.cast(self, b.result.dtype)


@TABLE.rule(
    "aten.lift_fresh_copy", "aten.clone", "aten.contiguous", "aten.alias", "aten.detach", "aten.lift_fresh"
)
def identity(b: OnnxBuilder, self: Value, **_: Any) -> Value:
    return self


@TABLE.rule("aten.dropout", "aten.feature_dropout")
def dropout(b: OnnxBuilder, input: Value, p: float, train: bool) -> Value:
    if train:
        raise NoMatch("dropout in training mode is random")
    return input
