"""Normalizations in aten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from detc.ir import Dim, Value
from detc.passes.core.base import NoMatch

from .builder import OnnxBuilder
from .rules import RuleTable, require_unused

TABLE = RuleTable()


def _channel_constant(b: OnnxBuilder, given: Value | None, x: Value, count: Dim, fill: float) -> Value:
    if given is not None:
        return given
    if not isinstance(count, int):
        raise NoMatch("the number of channels is not known")
    return b.constant(torch.full((count,), fill, dtype=x.dtype))


@TABLE.rule("aten.batch_norm", "aten._native_batch_norm_legit_no_training")
def batch_norm(
    b: OnnxBuilder,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value | None,
    running_var: Value | None,
    eps: float,
    training: bool = False,
    **_: Any,
) -> Value | list[Value]:
    if training or running_mean is None or running_var is None:
        raise NoMatch("batch normalization in training mode")
    channels = input.shape[1]
    scale = _channel_constant(b, weight, input, channels, 1.0)
    shift = _channel_constant(b, bias, input, channels, 0.0)
    made = b.onnx.BatchNormalization(input, scale, shift, running_mean, running_var, epsilon=eps)
    # Without training, the native op's two statistics are empty.
    return [made] + [b.constant(torch.empty(0)) for _ in b.lowered.results[1:]]


def _normalized(
    b: OnnxBuilder,
    x: Value,
    shape: Sequence[Dim],
    weight: Value | None,
    bias: Value | None,
    eps: float,
    outputs: int,
) -> Any:
    if weight is None:
        if not all(isinstance(d, int) for d in shape):
            raise NoMatch("layer normalization without weights over a size that is not known")
        weight = b.constant(torch.ones([d for d in shape if isinstance(d, int)], dtype=x.dtype))
    return b.onnx.LayerNormalization(x, weight, bias, axis=-len(shape), epsilon=eps, outputs=outputs)


@TABLE.rule("aten.layer_norm")
def layer_norm(
    b: OnnxBuilder,
    input: Value,
    normalized_shape: Any,
    weight: Value | None,
    bias: Value | None,
    eps: float,
    **_: Any,
) -> Value:
    made: Value = _normalized(b, input, normalized_shape, weight, bias, eps, 1)
    return made


@TABLE.rule("aten.native_layer_norm")
def native_layer_norm(
    b: OnnxBuilder, input: Value, normalized_shape: Any, weight: Value | None, bias: Value | None, eps: float
) -> tuple[Value, ...]:
    made: tuple[Value, ...] = _normalized(b, input, normalized_shape, weight, bias, eps, 3)
    return made


def per_channel(b: OnnxBuilder, value: Value, rank: int) -> Value:
    """A vector over axis 1, as it broadcasts against a tensor of that rank."""
    return b.reshape(value, (*value.shape, *[1] * (rank - 2)))


@TABLE.rule("aten.group_norm")
def group_norm(
    b: OnnxBuilder,
    input: Value,
    num_groups: int,
    weight: Value | None,
    bias: Value | None,
    eps: float,
    **_: Any,
) -> Value:
    batch, channels, *rest = input.shape
    if not isinstance(channels, int):
        raise NoMatch("the number of channels is not known")
    # Each group is a channel of an instance normalization. (ONNX has groups with weights per channel from 21 on.)
    elements: Dim = channels // num_groups
    for dim in rest:
        elements = elements * dim
    grouped = b.reshape(input, (batch, num_groups, elements))
    ones, zeros = torch.ones(num_groups, dtype=input.dtype), torch.zeros(num_groups, dtype=input.dtype)
    normal = b.onnx.InstanceNormalization(grouped, b.constant(ones), b.constant(zeros), epsilon=eps)
    normal.type = grouped.type
    result = b.onnx.Reshape(normal, b.shape(input.shape, input))
    if weight is not None:
        result = b.onnx.Mul(result, per_channel(b, weight, input.rank))
    if bias is not None:
        result = b.onnx.Add(result, per_channel(b, bias, input.rank))
    return result


@TABLE.rule("aten.native_group_norm")
def native_group_norm(
    b: OnnxBuilder, input: Value, weight: Value | None, bias: Value | None, group: int, eps: float, **_: Any
) -> list[Value]:
    for index in (1, 2):
        require_unused(b, index, "the statistics of a group normalization")
    empty = b.constant(torch.empty(0, 0, dtype=input.dtype))
    return [group_norm(b, input, group, weight, bias, eps), empty, empty]


@TABLE.rule("aten.instance_norm")
def instance_norm(
    b: OnnxBuilder,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value | None,
    running_var: Value | None,
    use_input_stats: bool,
    eps: float,
    **_: Any,
) -> Value | list[Value]:
    if not use_input_stats:
        return batch_norm(b, input, weight, bias, running_mean, running_var, eps)
    channels = input.shape[1]
    scale = _channel_constant(b, weight, input, channels, 1.0)
    shift = _channel_constant(b, bias, input, channels, 0.0)
    return b.onnx.InstanceNormalization(input, scale, shift, epsilon=eps)
