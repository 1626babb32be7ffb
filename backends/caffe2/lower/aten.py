"""What the Caffe2 backend takes of aten: direct, lowered, unsupported, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from detc.ir import Builder, Dim, IRError, Node, Value
from detc.passes.core.base import NoMatch
from detc.passes.rewrite.conversion import LoweringRule
from detc.passes.rewrite.lowering_rules import RuleTable, refuse

from ..infer import product
from .builder import Caffe2Builder, whole

TABLE = RuleTable()


def _direct(type_: str) -> LoweringRule:
    def lower(builder: Builder, node: Node) -> Any:
        return builder.call(f"caffe2.{type_}", *node.operands)

    return lower


DIRECT: dict[str, str] = {
    "aten.relu": "Relu",
    "aten.sigmoid": "Sigmoid",
    "aten.tanh": "Tanh",
    "aten.exp": "Exp",
    "aten.log": "Log",
    "aten.sqrt": "Sqrt",
    "aten.abs": "Abs",
    "aten.neg": "Negative",
    "aten.reciprocal": "Reciprocal",
    "aten.floor": "Floor",
    "aten.ceil": "Ceil",
    "aten.logical_not": "Not",
}
"""aten op -> the Caffe2 operator that has its operands and means the same."""

UNSUPPORTED: dict[str, str] = {
    "torchvision.deform_conv2d": "Caffe2 has its DeformConv for GPUs only, and no other operators for it",
}
"""Op -> why there is no rule."""


def pair(values: int | Sequence[int]) -> tuple[int, ...]:
    """One number per spatial axis: torch lets one stand for both."""
    items = (values,) if isinstance(values, int) else tuple(values)
    return items * 2 if len(items) == 1 else items


def _window(kernel: Sequence[Dim], stride: Any, padding: Any, dilation: Any) -> dict[str, Any]:
    if len(kernel) != 2:
        raise NoMatch("only two spatial dimensions are supported")
    return {
        "kernels": tuple(whole(size, "the kernel's size") for size in kernel),
        "strides": pair(stride),
        "pads": pair(padding) * 2,
        "dilations": pair(dilation),
    }


@TABLE.rule("aten.conv2d")
def conv(
    b: Caffe2Builder,
    input: Value,
    weight: Value,
    bias: Value | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Value:
    if input.rank != 4:
        raise NoMatch("a convolution of a single image without batch")
    window = _window(weight.shape[2:], stride, padding, dilation)
    return b.caffe2.Conv(input, weight, bias, **window, group=groups)


@TABLE.rule("aten.conv_transpose2d.input")
def conv_transpose(
    b: Caffe2Builder,
    input: Value,
    weight: Value,
    bias: Value | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Value:
    if input.rank != 4 or set(pair(dilation)) != {1}:
        raise NoMatch("a transposed convolution with dilation, or without batch")
    window = _window(weight.shape[2:], stride, padding, dilation)
    adjs = pair(output_padding)
    extra = {"adjs": adjs} if any(adjs) else {}
    return b.caffe2.ConvTranspose(input, weight, bias, **window, **extra, group=groups)


@TABLE.rule("aten.max_pool2d")
def max_pool(
    b: Caffe2Builder,
    self: Value,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
) -> Value:
    if ceil_mode or self.rank != 4 or set(pair(dilation)) != {1}:
        raise NoMatch("max pooling with ceil_mode or dilation, or without batch")
    window = _window(pair(kernel_size), stride or kernel_size, padding, dilation)
    window.pop("dilations")
    return b.caffe2.MaxPool(self, **window)


@TABLE.rule("aten.avg_pool2d")
def avg_pool(
    b: Caffe2Builder,
    self: Value,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Value:
    if ceil_mode or divisor_override is not None or self.rank != 4:
        raise NoMatch("average pooling with ceil_mode or divisor_override, or without batch")
    window = _window(pair(kernel_size), stride or kernel_size, padding, 1)
    window.pop("dilations")
    return b.caffe2.AveragePool(self, **window, count_include_pad=count_include_pad)


@TABLE.rule("aten.adaptive_avg_pool2d")
def adaptive_avg_pool(b: Caffe2Builder, self: Value, output_size: Any) -> Value:
    if pair(output_size) != (1, 1) or self.rank != 4:
        raise NoMatch("adaptive pooling to more than one cell")
    return b.caffe2.AveragePool(self, global_pooling=True)


# Linear layers and normalization


@TABLE.rule("aten.linear")
def linear(b: Caffe2Builder, input: Value, weight: Value, bias: Value | None) -> Value:
    if weight.rank != 2:
        raise NoMatch("a linear layer whose weight is no matrix")
    if bias is None:
        bias = b.constant(torch.zeros(whole(weight.shape[0], "the number of outputs")))
    axis = input.rank - 1
    producer = input.producer
    # FC flattens by itself.
    if producer is not None and producer.op.name == "caffe2.Flatten" and producer.attributes["axis"] == axis:
        input = producer.operand(0)
    return b.caffe2.FC(input, weight, bias, **({} if axis == 1 else {"axis": axis}))


@TABLE.rule("aten.batch_norm")
def batch_norm(
    b: Caffe2Builder,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value | None,
    running_var: Value | None,
    training: bool,
    eps: float,
    **_: Any,
) -> Value:
    if training or running_mean is None or running_var is None:
        raise NoMatch("a batch normalization by the batch's own statistics")
    channels = whole(input.shape[1], "the number of channels")
    scale = weight if weight is not None else b.constant(torch.ones(channels))
    shift = bias if bias is not None else b.constant(torch.zeros(channels))
    return b.caffe2.SpatialBN(
        input, scale, shift, running_mean, running_var, epsilon=float(eps), is_test=True
    )


@TABLE.rule("aten.group_norm")
def group_norm(
    b: Caffe2Builder,
    input: Value,
    num_groups: int,
    weight: Value | None,
    bias: Value | None,
    eps: float,
    **_: Any,
) -> Value:
    channels = whole(input.shape[1], "the number of channels")
    gamma = weight if weight is not None else b.constant(torch.ones(channels))
    beta = bias if bias is not None else b.constant(torch.zeros(channels))
    return b.caffe2.GroupNorm(input, gamma, beta, group=num_groups, epsilon=float(eps))


@TABLE.rule("aten.native_group_norm")
def native_group_norm(
    b: Caffe2Builder, input: Value, weight: Value | None, bias: Value | None, group: int, eps: float, **_: Any
) -> list[Value]:
    for index in (1, 2):
        b.unused(index, "the statistics of a group normalization have no counterpart in Caffe2")
    empty = b.constant(torch.empty(0, 0, dtype=input.dtype))
    return [group_norm(b, input, group, weight, bias, eps), empty, empty]


@TABLE.rule("aten.softmax.int")
def softmax(b: Caffe2Builder, self: Value, dim: int, dtype: torch.dtype | None) -> Value:
    if dim % self.rank != self.rank - 1 or dtype not in (None, self.dtype):
        raise NoMatch("a softmax over another dimension than the last, or to another type")
    return b.caffe2.Softmax(self, axis=self.rank - 1)


# Element by element


def _binary(type_: str) -> Any:
    def lower(b: Caffe2Builder, self: Value, other: Any, alpha: Any = 1) -> Value:
        if alpha != 1 or b.result.dtype != self.dtype:
            raise NoMatch("operands of different types, or a factor alpha")
        right = b.number(other, self.dtype)
        if right.dtype != self.dtype:
            raise NoMatch("operands of different types")
        return b.call(f"caffe2.{type_}", self, right)

    return lower


for _aten, _caffe2 in (("add", "Add"), ("sub", "Sub"), ("mul", "Mul"), ("div", "Div")):
    TABLE.rule(f"aten.{_aten}.Tensor", f"aten.{_aten}.Scalar")(_binary(_caffe2))


@TABLE.rule("aten.leaky_relu")
def leaky_relu(b: Caffe2Builder, self: Value, negative_slope: float) -> Value:
    return b.caffe2.LeakyRelu(self, alpha=float(negative_slope))


@TABLE.rule("aten.elu")
def elu(b: Caffe2Builder, self: Value, alpha: float, scale: float, input_scale: float) -> Value:
    if scale != 1 or input_scale != 1:
        raise NoMatch("an elu with scales")
    return b.caffe2.Elu(self, alpha=float(alpha))


@TABLE.rule("aten.clamp")
def clamp(b: Caffe2Builder, self: Value, min: Any, max: Any) -> Value:
    bounds = {name: float(bound) for name, bound in (("min", min), ("max", max)) if bound is not None}
    return b.caffe2.Clip(self, **bounds)


@TABLE.rule("aten._to_copy", "aten.to.dtype")
def to_copy(b: Caffe2Builder, self: Value, dtype: torch.dtype | None, **_: Any) -> Value:
    return self if dtype is None else b.cast(self, dtype)


@TABLE.rule("aten.clone", "aten.contiguous", "aten.detach", "aten.alias")
def same(b: Caffe2Builder, self: Value, **_: Any) -> Value:
    return self


# Shapes


@TABLE.rule("aten.reshape", "aten.view")
def reshape(b: Caffe2Builder, self: Value, **given: Any) -> Value:
    wanted = list(b.result.shape)
    if wanted == list(self.shape):
        return self
    if wanted == [self.shape[0], product(self.shape[1:])]:
        return b.caffe2.Flatten(self, axis=1)
    entries = [
        size if isinstance(size, int) else 0 if i < self.rank and self.shape[i] == size else -1
        for i, size in enumerate(wanted)
    ]
    if entries.count(-1) > 1:
        raise NoMatch("a reshape to several sizes that are known only at run time")
    reshaped = b.caffe2.Reshape(self, shape=entries)
    return reshaped[0]


@TABLE.rule("aten.flatten.using_ints")
def flatten(b: Caffe2Builder, self: Value, **given: Any) -> Value:
    return reshape(b, self)


@TABLE.rule("aten.unsqueeze")
def unsqueeze(b: Caffe2Builder, self: Value, dim: int) -> Value:
    return b.caffe2.ExpandDims(self, dims=(dim % (self.rank + 1),))


@TABLE.rule("aten.squeeze.dim")
def squeeze(b: Caffe2Builder, self: Value, dim: int) -> Value:
    if self.shape[dim] != 1:
        raise NoMatch("a squeeze of a dimension that is not known to be 1")
    return b.caffe2.Squeeze(self, dims=(dim % self.rank,))


@TABLE.rule("aten.permute")
def permute(b: Caffe2Builder, self: Value, dims: Sequence[int]) -> Value:
    return b.caffe2.Transpose(self, axes=tuple(dim % self.rank for dim in dims))


@TABLE.rule("aten.cat")
def cat(b: Caffe2Builder, tensors: Sequence[Value], dim: int) -> Value:
    return b.concat(list(tensors), dim % tensors[0].rank)


@TABLE.rule("aten.mean.dim")
def mean(
    b: Caffe2Builder, self: Value, dim: Sequence[int] | None, keepdim: bool, dtype: torch.dtype | None
) -> Value:
    if dtype not in (None, self.dtype):
        raise NoMatch("a mean in another type")
    axes = tuple(d % self.rank for d in dim or range(self.rank))
    return b.caffe2.ReduceMean(self, axes=axes, keepdims=keepdim)


for _name, _type in DIRECT.items():
    if _name in TABLE:
        raise IRError(f"{_name} has a rule already")
    TABLE[_name] = _direct(_type)
for _name, _why in UNSUPPORTED.items():
    TABLE[_name] = refuse(_why)
