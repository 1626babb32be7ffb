"""Layers of networks in aten: convolution, normalization, pooling, linear maps, attention, resizing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from detc.ir import Dim, Value
from detc.passes.base import NoMatch

from .builder import OnnxBuilder
from .pointwise import select
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
        kernel = weight.shape[2:]
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilations, kernel, strict=True)]  # type: ignore[operator]
        pads = [t // 2 for t in total] + [t - t // 2 for t in total]
    else:
        pads = list(spread(padding, axes)) * 2
    attributes: dict[str, Any] = window(strides=spread(stride, axes), pads=pads, dilations=dilations)
    if groups != 1:
        attributes["group"] = groups
    if transposed:
        attributes |= window(output_padding=spread(output_padding, axes))
        y: Value = b.onnx.ConvTranspose(x, weight, bias, **attributes)
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
    made: Value = b.onnx.DeformConv(
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
    return made


# Normalization


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
    made: Value = b.onnx.BatchNormalization(input, scale, shift, running_mean, running_var, epsilon=eps)
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
    made: Value = b.onnx.InstanceNormalization(input, scale, shift, epsilon=eps)
    return made


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
    y: Value = b.call(f"onnx.{op_type}", _batched(b, x, axes + 2), kernel_shape=sizes, **attributes, **more)
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
    made: Value = b.onnx.Mul(mean, b.scalar(factor, self.dtype))
    return made


def _adaptive(b: OnnxBuilder, x: Value, output_size: Any, op_type: str) -> Value:
    axes = len(output_size)
    sizes = x.shape[-axes:]
    batched = x.rank == axes + 2
    value = _batched(b, x, axes + 2)
    if all(o == 1 for o in output_size):
        y: Value = b.call(f"onnx.Global{op_type}", value)
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
    made: Value = b.onnx.RoiAlign(
        input,
        b.onnx.Slice(rois, b.ints([1]), b.ints([5]), b.ints([1])),
        b.onnx.Cast(column, to=torch.int64),
        spatial_scale=float(spatial_scale),
        output_height=pooled_height,
        output_width=pooled_width,
        sampling_ratio=max(sampling_ratio, 0),
        coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
    )
    return made


# Linear maps


def _untransposed(value: Value) -> Value | None:
    """The matrix of which the value is the transpose, if it is one."""
    node = value.producer
    if node is not None and node.op.name == "onnx.Transpose" and node.attributes.get("perm") == (1, 0):
        return node.operand(0)
    return None


def _gemm(b: OnnxBuilder, left: Value, right: Value, bias: Value | None, **attributes: Any) -> Value:
    plain = _untransposed(right)
    if plain is not None:
        right = plain
        attributes["transB"] = 1
    made: Value = b.onnx.Gemm(left, right, bias, **attributes)
    return made


@TABLE.rule("aten.linear")
def linear(b: OnnxBuilder, input: Value, weight: Value, bias: Value | None) -> Value:
    if input.rank == 2 and weight.rank == 2:
        made: Value = b.onnx.Gemm(input, weight, bias, transB=1)
        return made
    product: Value = b.onnx.MatMul(input, b.transpose(weight, [1, 0]) if weight.rank == 2 else weight)
    return product if bias is None else b.onnx.Add(product, bias)


@TABLE.rule("aten.addmm")
def addmm(b: OnnxBuilder, self: Value, mat1: Value, mat2: Value, beta: Any, alpha: Any) -> Value:
    scales = {name: float(v) for name, v in (("alpha", alpha), ("beta", beta)) if v != 1}
    return _gemm(b, mat1, mat2, self, **scales)


@TABLE.rule("aten.mm")
def mm(b: OnnxBuilder, self: Value, mat2: Value) -> Value:
    if _untransposed(mat2) is not None:
        return _gemm(b, self, mat2, None)
    made: Value = b.onnx.MatMul(self, mat2)
    return made


@TABLE.rule("aten.baddbmm")
def baddbmm(b: OnnxBuilder, self: Value, batch1: Value, batch2: Value, beta: Any, alpha: Any) -> Value:
    product: Value = b.onnx.MatMul(batch1, batch2)
    if alpha != 1:
        product = b.onnx.Mul(product, b.number(alpha, product.dtype))
    if beta != 1:
        self = b.onnx.Mul(self, b.number(beta, self.dtype))
    made: Value = b.onnx.Add(product, self)
    return made


def _attend(
    b: OnnxBuilder, query: Value, key: Value, value: Value, mask: Value | None, scale: float | None
) -> Value:
    if scale is None:
        if not isinstance(query.shape[-1], int):
            raise NoMatch("attention over a size that is not known")
        scale = query.shape[-1] ** -0.5
    swapped = [*range(key.rank - 2), key.rank - 1, key.rank - 2]
    scores = b.onnx.MatMul(b.onnx.Mul(query, b.scalar(scale, query.dtype)), b.transpose(key, swapped))
    if mask is not None and mask.dtype is torch.bool:
        scores = select(b, mask, scores, b.scalar(-math.inf, query.dtype))
    elif mask is not None:
        scores = b.onnx.Add(scores, mask)
    made: Value = b.onnx.MatMul(b.onnx.Softmax(scores, axis=-1), value)
    return made


@TABLE.rule("aten.scaled_dot_product_attention")
def attention(
    b: OnnxBuilder,
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool = False,
) -> Value:
    if dropout_p or is_causal or enable_gqa:
        raise NoMatch("attention with dropout, a causal mask or grouped queries")
    return _attend(b, query, key, value, attn_mask, scale)


@TABLE.rule("aten._scaled_dot_product_flash_attention_for_cpu")
def flash_attention(
    b: OnnxBuilder,
    query: Value,
    key: Value,
    value: Value,
    dropout_p: float,
    is_causal: bool,
    attn_mask: Value | None,
    scale: float | None,
) -> list[Value]:
    require_unused(b, 1, "the statistics of an attention")
    if dropout_p or is_causal:
        raise NoMatch("attention with dropout or a causal mask")
    statistics = b.constant(torch.empty((0,) * b.lowered.results[1].rank, dtype=b.lowered.results[1].dtype))
    return [_attend(b, query, key, value, attn_mask, scale), statistics]


# Resizing


def _resize(
    b: OnnxBuilder,
    x: Value,
    factors: Sequence[float | None] | None,
    output_size: Sequence[Dim] | None,
    **how: Any,
) -> Value:
    """Resize the axes after the first two, by factors where torch is told factors, to sizes elsewhere."""
    if factors is None or None in factors:
        target = tuple(output_size) if output_size is not None else b.result.shape[2:]
        factors = _whole_factors(x, target)
        if factors is None:
            sizes = b.shape((*x.shape[:2], *target), x)
            resized: Value = b.onnx.Resize(x, None, None, sizes, **how)
            return resized
    scales = b.constant(torch.tensor([1.0, 1.0, *factors], dtype=torch.float32))  # type: ignore[list-item]
    made: Value = b.onnx.Resize(x, None, scales, **how)
    return made


def _whole_factors(x: Value, target: Sequence[Dim]) -> list[float] | None:
    """The factors by which `x` grows to the target, if they are whole numbers whatever the sizes are."""
    factors = []
    for size, wanted in zip(x.shape[2:], target, strict=True):
        factor = next((k for k in range(1, 65) if size * k == wanted), None)
        if factor is None:
            return None
        factors.append(float(factor))
    return factors


def _given(scale_factors: Any, scales_h: Any, scales_w: Any) -> list[float | None] | None:
    if scale_factors is not None:
        return list(scale_factors)
    return None if scales_h is None and scales_w is None else [scales_h, scales_w]


def _interpolation(name: str, **how: Any) -> None:
    @TABLE.rule(f"aten.{name}", f"aten.{name}.vec")
    def upsample(
        b: OnnxBuilder,
        output_size: Any,
        self: Value | None = None,
        input: Value | None = None,
        align_corners: bool = False,
        scale_factors: Any = None,
        scales_h: float | None = None,
        scales_w: float | None = None,
    ) -> Value:
        x = self if input is None else input
        assert x is not None
        # torch's pixels have their centres at a half, also where one pixel is left: half_pixel, not
        # pytorch_half_pixel, which describes an older torch.
        mode = {"coordinate_transformation_mode": "align_corners" if align_corners else "half_pixel"}
        return _resize(b, x, _given(scale_factors, scales_h, scales_w), output_size, **{**mode, **how})


_interpolation(
    "upsample_nearest2d", coordinate_transformation_mode="asymmetric", nearest_mode="floor", mode="nearest"
)
_interpolation("_upsample_nearest_exact2d", nearest_mode="round_prefer_ceil", mode="nearest")
_interpolation("upsample_bilinear2d", mode="linear")
_interpolation("upsample_bicubic2d", mode="cubic", cubic_coeff_a=-0.75)
_interpolation("_upsample_bilinear2d_aa", mode="linear", antialias=1)
_interpolation("_upsample_bicubic2d_aa", mode="cubic", antialias=1, cubic_coeff_a=-0.5)


@TABLE.rule("aten.pixel_shuffle")
def pixel_shuffle(b: OnnxBuilder, self: Value, upscale_factor: int) -> Value:
    made: Value = b.onnx.DepthToSpace(self, blocksize=upscale_factor, mode="CRD")
    return made


@TABLE.rule("aten.grid_sampler", "aten.grid_sampler_2d")
def grid_sampler(
    b: OnnxBuilder, input: Value, grid: Value, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Value:
    made: Value = b.onnx.GridSample(
        input,
        grid,
        mode=("linear", "nearest", "cubic")[interpolation_mode],
        padding_mode=("zeros", "border", "reflection")[padding_mode],
        align_corners=int(align_corners),
    )
    return made
