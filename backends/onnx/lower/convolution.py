"""Convolutions and poolings of aten and torchvision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from detc.ir import Value
from detc.passes.core.base import NoMatch

from .builder import OnnxBuilder
from .rules import RuleTable, require_unused

TABLE = RuleTable()


def spread(values: int | Sequence[int], count: int) -> tuple[int, ...]:
    """One value per spatial axis: torch lets one stand for all."""
    items = (values,) if isinstance(values, int) else tuple(values)
    return items * count if len(items) == 1 else items


def window(**attributes: Sequence[int]) -> dict[str, Sequence[int]]:
    """The attributes of a sliding window without those that have their default: strides and dilations 1, pads 0."""
    defaults = {"strides": 1, "dilations": 1, "pads": 0, "output_padding": 0}
    return {name: tuple(v) for name, v in attributes.items() if any(x != defaults.get(name) for x in v)}


# Convolution


def _convolve(
    b: OnnxBuilder,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    transposed: bool = False,
    output_padding: Any = 0,
) -> Value:
    axes = weight.rank - 2
    batched = x.rank == weight.rank
    if not batched:
        x = b.unsqueeze(x, [0])
    dilations = spread(dilation, axes)
    if isinstance(padding, str):
        kernel = [k for k in weight.shape[2:] if isinstance(k, int)]
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilations, kernel, strict=True)]
        pads = [t // 2 for t in total] + [t - t // 2 for t in total]
    else:
        pads = list(spread(padding, axes)) * 2
    attributes: dict[str, Any] = window(strides=spread(stride, axes), pads=pads, dilations=dilations)
    if groups != 1:
        attributes["group"] = groups
    if transposed:
        attributes |= window(output_padding=spread(output_padding, axes))
        y = b.onnx.ConvTranspose(x, weight, bias, **attributes)
    else:
        y = b.onnx.Conv(x, weight, bias, **attributes)
    return y if batched else b.onnx.Squeeze(y, b.ints([0]))


@TABLE.rule(
    "aten.conv1d",
    "aten.conv2d",
    "aten.conv3d",
    "aten.conv1d.padding",
    "aten.conv2d.padding",
    "aten.conv3d.padding",
)
def conv(
    b: OnnxBuilder,
    input: Value,
    weight: Value,
    bias: Value | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Value:
    return _convolve(b, input, weight, bias, stride, padding, dilation, groups)


@TABLE.rule("aten.conv_transpose1d", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input")
def conv_transpose(
    b: OnnxBuilder,
    input: Value,
    weight: Value,
    bias: Value | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Value:
    return _convolve(b, input, weight, bias, stride, padding, dilation, groups, True, output_padding)


@TABLE.rule("aten.convolution")
def convolution(
    b: OnnxBuilder,
    input: Value,
    weight: Value,
    bias: Value | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Value:
    return _convolve(b, input, weight, bias, stride, padding, dilation, groups, transposed, output_padding)


@TABLE.rule("torchvision.deform_conv2d")
def deform_conv2d(
    b: OnnxBuilder,
    input: Value,
    weight: Value,
    offset: Value,
    mask: Value,
    bias: Value,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> Value:
    return b.onnx.DeformConv(
        input,
        weight,
        offset,
        bias,
        mask if use_mask else None,
        **window(
            strides=(stride_h, stride_w),
            pads=(pad_h, pad_w, pad_h, pad_w),
            dilations=(dilation_h, dilation_w),
        ),
        group=groups,
        offset_group=offset_groups,
    )


# Pooling


def _batched(b: OnnxBuilder, x: Value, rank: int) -> Value:
    return b.unsqueeze(x, [0]) if x.rank == rank - 1 else x


def _pool(
    b: OnnxBuilder,
    op_type: str,
    x: Value,
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    axes: int,
    **more: Any,
) -> Value:
    sizes = spread(kernel, axes)
    strides = spread(stride, axes) if stride not in ((), [], None) else sizes
    attributes: dict[str, Any] = window(
        strides=strides, pads=spread(padding, axes) * 2, dilations=spread(dilation, axes)
    )
    if ceil_mode:
        attributes["ceil_mode"] = 1
    batched = x.rank == axes + 2
    y = b.call(f"onnx.{op_type}", _batched(b, x, axes + 2), kernel_shape=sizes, **attributes, **more)
    return y if batched else b.onnx.Squeeze(y, b.ints([0]))


@TABLE.rule("aten.max_pool1d", "aten.max_pool2d")
def max_pool(
    b: OnnxBuilder, self: Value, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Value:
    axes = 1 if b.lowered.op.name == "aten.max_pool1d" else 2
    return _pool(b, "MaxPool", self, kernel_size, stride, padding, dilation, ceil_mode, axes)


@TABLE.rule("aten.max_pool2d_with_indices")
def max_pool2d_with_indices(
    b: OnnxBuilder, self: Value, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> list[Value]:
    require_unused(b, 1, "the indices of a max pooling, which torch counts within a plane,")
    pooled = _pool(b, "MaxPool", self, kernel_size, stride, padding, dilation, ceil_mode, 2)
    return [pooled, b.constant(torch.empty((0,) * self.rank, dtype=torch.int64))]


@TABLE.rule("aten.avg_pool1d", "aten.avg_pool2d")
def avg_pool(
    b: OnnxBuilder,
    self: Value,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None = None,
) -> Value:
    axes = 1 if b.lowered.op.name == "aten.avg_pool1d" else 2
    include = bool(count_include_pad or divisor_override) and any(spread(padding, axes))
    if divisor_override and ceil_mode:
        raise NoMatch("avg_pool with ceil_mode and divisor_override")
    more = {"count_include_pad": 1} if include else {}
    mean = _pool(b, "AveragePool", self, kernel_size, stride, padding, 1, ceil_mode, axes, **more)
    if not divisor_override:
        return mean
    factor = math.prod(spread(kernel_size, axes)) / divisor_override
    return b.onnx.Mul(mean, b.scalar(factor, self.dtype))


def _adaptive(b: OnnxBuilder, x: Value, output_size: Any, op_type: str) -> Value:
    axes = len(output_size)
    sizes = x.shape[-axes:]
    batched = x.rank == axes + 2
    value = _batched(b, x, axes + 2)
    if all(o == 1 for o in output_size):
        y = b.call(f"onnx.Global{op_type}", value)
    elif tuple(output_size) == tuple(sizes):
        return x
    else:
        kernel = []
        for size, wanted in zip(sizes, output_size, strict=True):
            if not isinstance(size, int) or not isinstance(wanted, int) or size % wanted:
                raise NoMatch(
                    f"adaptive pooling of {size} to {wanted}: only to 1, or to a divisor of a known size"
                )
            kernel.append(size // wanted)
        y = b.call(f"onnx.{op_type}", value, kernel_shape=kernel, strides=kernel)
    return y if batched else b.onnx.Squeeze(y, b.ints([0]))


@TABLE.rule("aten.adaptive_avg_pool1d", "aten.adaptive_avg_pool2d", "aten._adaptive_avg_pool2d")
def adaptive_avg_pool(b: OnnxBuilder, self: Value, output_size: Any) -> Value:
    return _adaptive(b, self, output_size, "AveragePool")


@TABLE.rule("aten.adaptive_max_pool2d")
def adaptive_max_pool2d(b: OnnxBuilder, self: Value, output_size: Any) -> list[Value]:
    require_unused(b, 1, "the indices of a max pooling")
    empty = b.constant(torch.empty((0,) * self.rank, dtype=torch.int64))
    return [_adaptive(b, self, output_size, "MaxPool"), empty]


@TABLE.rule("torchvision.roi_align")
def roi_align(
    b: OnnxBuilder,
    input: Value,
    rois: Value,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Value:
    column = b.onnx.Gather(rois, b.scalar(0, torch.int64), axis=1)
    return b.onnx.RoiAlign(
        input,
        b.onnx.Slice(rois, b.ints([1]), b.ints([5]), b.ints([1])),
        b.onnx.Cast(column, to=torch.int64),
        spatial_scale=float(spatial_scale),
        output_height=pooled_height,
        output_width=pooled_width,
        sampling_ratio=max(sampling_ratio, 0),
        coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
    )
