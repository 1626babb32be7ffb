"""The operators of a network's layers: convolution, normalization, pooling, resizing.

Tensors are f32[N, C, H, W], or channels last where `order` is NHWC. Paddings are (top, left, bottom, right).
Source: Caffe2's operators of the same names, of PyTorch 1.9.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .boxes import as_float32

Order = Literal["NCHW", "NHWC"]


def _checked(values: Sequence[int], size: int, default: int, name: str) -> list[int]:
    values = list(values) or [default] * size
    if len(values) != size:
        raise InputError(
            f"{name}: {values}, where {size} numbers are expected: only two dimensions are supported"
        )
    return values


def _channels_first(data: Tensor, order: str) -> Tensor:
    if order not in ("NCHW", "NHWC"):
        raise InputError(f"order {order!r} is neither NCHW nor NHWC")
    if data.dim() != 4:
        raise InputError(f"a tensor {list(data.shape)}, where four dimensions are expected")
    return data if order == "NCHW" else data.permute(0, 3, 1, 2)


def _as_given(data: Tensor, order: str) -> Tensor:
    return data if order == "NCHW" else data.permute(0, 2, 3, 1).contiguous()


def _padded(data: Tensor, pads: Sequence[int], value: float = 0.0) -> tuple[Tensor, list[int]]:
    """The data, padded here if the two ends differ, and the symmetric padding that is left to the kernel."""
    top, left, bottom, right = pads
    if top == bottom and left == right:
        return data, [top, left]
    return F.pad(data, (left, right, top, bottom), value=value), [0, 0]


def conv(
    data: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    kernels: Sequence[int] = (),
    strides: Sequence[int] = (),
    pads: Sequence[int] = (),
    dilations: Sequence[int] = (),
    group: int = 1,
    order: Order = "NCHW",
) -> Tensor:
    """Convolution: weight f32[M, C / group, kH, kW] (channels last if NHWC), bias f32[M].

    Errors:
        InputError: shapes that do not fit each other or `kernels`.
    """
    data, weight = _channels_first(data, order), _channels_first(weight, order)
    if kernels and list(weight.shape[2:]) != list(kernels):
        raise InputError(f"Conv: weight {list(weight.shape)} for kernels {list(kernels)}")
    if data.shape[1] != weight.shape[1] * group or weight.shape[0] % group:
        raise InputError(f"Conv: weight {list(weight.shape)} for data {list(data.shape)} in {group} groups")
    if bias is not None and list(bias.shape) != [len(weight)]:
        raise InputError(f"Conv: bias {list(bias.shape)} for weight {list(weight.shape)}")
    strides, dilations = _checked(strides, 2, 1, "strides"), _checked(dilations, 2, 1, "dilations")
    data, padding = _padded(data, _checked(pads, 4, 0, "pads"))
    for size, pad, kernel, dilation in zip(data.shape[2:], padding, weight.shape[2:], dilations, strict=True):
        if size + 2 * pad < dilation * (kernel - 1) + 1:
            raise InputError(
                f"Conv: data {list(data.shape)} is smaller than the kernel {list(weight.shape[2:])}"
            )
    return _as_given(F.conv2d(data, weight, bias, strides, padding, dilations, group), order)


def conv_transpose(
    data: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    kernels: Sequence[int] = (),
    strides: Sequence[int] = (),
    pads: Sequence[int] = (),
    adjs: Sequence[int] = (),
    dilations: Sequence[int] = (),
    group: int = 1,
    order: Order = "NCHW",
) -> Tensor:
    """Transposed convolution: weight f32[C, M / group, kH, kW] (channels last if NHWC), bias f32[M].

    `adjs` are added to the far ends of the result's height and width. Caffe2 knows no `dilations` here:
    exporters write ones.

    Errors:
        InputError: shapes that do not fit each other or `kernels`; dilations.
    """
    data, weight = _channels_first(data, order), _channels_first(weight, order)
    if any(dilation != 1 for dilation in dilations):
        raise InputError(f"ConvTranspose: dilations {list(dilations)}, which Caffe2 does not have")
    if kernels and list(weight.shape[2:]) != list(kernels):
        raise InputError(f"ConvTranspose: weight {list(weight.shape)} for kernels {list(kernels)}")
    if data.shape[1] != len(weight) or len(weight) % group:
        raise InputError(f"ConvTranspose: weight {list(weight.shape)} for data {list(data.shape)}")
    strides, adjs = _checked(strides, 2, 1, "strides"), _checked(adjs, 2, 0, "adjs")
    top, left, bottom, right = _checked(pads, 4, 0, "pads")
    # Padding takes away from the result: what is the same at both ends by the kernel, the rest by cutting.
    both = [min(top, bottom), min(left, right)]
    result = F.conv_transpose2d(data, weight, bias, strides, both, adjs, group)
    height, width = result.shape[2:]
    result = result[
        :, :, top - both[0] : height - (bottom - both[0]), left - both[1] : width - (right - both[1])
    ]
    return _as_given(result, order)


def fc(data: Tensor, weight: Tensor, bias: Tensor, *, axis: int = 1, axis_w: int = 1) -> Tensor:
    """Fully connected layer: data[..., K] times the transpose of weight f32[M, K], plus bias f32[M].

    The dimensions from `axis` on are one, of size K, and so are the weight's from `axis_w` on; those before
    stay.

    Errors:
        InputError: sizes that do not fit each other.
    """
    axis, axis_w = _axis(axis, data), _axis(axis_w, weight)
    matrix = weight.reshape(_product(weight.shape[:axis_w]), _product(weight.shape[axis_w:]))
    rows, inner = _product(data.shape[:axis]), _product(data.shape[axis:])
    if inner != matrix.shape[1] or list(bias.shape) != [len(matrix)]:
        raise InputError(
            f"FC: data {list(data.shape)}, weight {list(weight.shape)} and bias {list(bias.shape)} do not fit"
        )
    return F.linear(data.reshape(rows, inner), matrix, bias).reshape(*data.shape[:axis], len(matrix))


def _axis(axis: int, data: Tensor) -> int:
    """A dimension number, counted from the end if negative."""
    found = axis + data.dim() if axis < 0 else axis
    if not 0 <= found <= data.dim():
        raise InputError(f"axis {axis} of a tensor {list(data.shape)}")
    return found


def _product(sizes: Sequence[int]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result


def spatial_bn(
    data: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    epsilon: float = 1e-5,
    order: Order = "NCHW",
    is_test: bool = False,
    momentum: float = 0.9,
) -> Tensor:
    """Batch normalization by stored statistics, f32[C] each, over the channels of f32[N, C, ...].

    Errors:
        InputError: `is_test` is off, which asks for training; sizes that do not fit.
    """
    if not is_test:
        raise InputError("SpatialBN: only inference is supported (is_test = 1)")
    channel = 1 if order == "NCHW" else data.dim() - 1
    if any(part.numel() != data.shape[channel] for part in (scale, bias, mean, var)):
        raise InputError(f"SpatialBN: statistics of {scale.numel()} channels for data {list(data.shape)}")
    factor = scale * (var + epsilon).rsqrt()
    shape = [-1 if dim == channel else 1 for dim in range(data.dim())]
    return torch.addcmul((bias - factor * mean).reshape(shape), data, factor.reshape(shape))


def group_norm(
    data: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    group: int = 32,
    epsilon: float = 1e-5,
    order: Order = "NCHW",
    is_test: bool = True,
) -> Tensor:
    """Normalization over each of `group` groups of channels, then gamma and beta, f32[C] each.

    Errors:
        InputError: `is_test` is off, which asks for training; sizes that do not fit.
    """
    if not is_test:
        raise InputError("GroupNorm: only inference is supported (is_test = 1)")
    first = data if order == "NCHW" else data.movedim(-1, 1)
    channels = first.shape[1]
    if group < 1 or channels % group or gamma.numel() != channels or beta.numel() != channels:
        raise InputError(f"GroupNorm: {gamma.numel()} factors and {group} groups for data {list(data.shape)}")
    result = F.group_norm(first, group, gamma.reshape(-1), beta.reshape(-1), epsilon)
    return result if order == "NCHW" else result.movedim(1, -1).contiguous()


def _pool(
    pool: Callable[[Tensor, list[int], list[int], list[int], list[int]], Tensor],
    data: Tensor,
    *,
    kernels: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    global_pooling: bool,
    order: str,
) -> Tensor:
    data = _channels_first(data, order)
    kernels = list(data.shape[2:]) if global_pooling else _checked(kernels, 2, 0, "kernels")
    pads = _checked(pads, 4, 0, "pads")
    dilations = _checked(dilations, 2, 1, "dilations")
    if any(kernel < 1 for kernel in kernels) or any(dilation < 1 for dilation in dilations):
        raise InputError(f"pooling with kernels {kernels} and dilations {dilations}")
    reach = [dilation * (kernel - 1) + 1 for kernel, dilation in zip(kernels, dilations, strict=True)]
    if any(pad >= size for pad, size in zip(pads, reach * 2, strict=True)):
        raise InputError(f"pooling with padding {pads}, which reaches beyond the kernel {kernels}")
    return _as_given(pool(data, kernels, _checked(strides, 2, 1, "strides"), pads, dilations), order)


def max_pool(
    data: Tensor,
    *,
    kernels: Sequence[int] = (),
    strides: Sequence[int] = (),
    pads: Sequence[int] = (),
    dilations: Sequence[int] = (),
    global_pooling: bool = False,
    order: Order = "NCHW",
) -> Tensor:
    """The largest value of each window; padding never wins. Sizes are rounded down.

    Errors:
        InputError: numbers that are not of two dimensions, padding as large as the kernel.
    """

    def pool(
        data: Tensor, kernels: list[int], strides: list[int], pads: list[int], dilations: list[int]
    ) -> Tensor:
        top, left, bottom, right = pads
        if kernels == [1, 1]:
            # The subsampling that makes an FPN's last level: no need for a kernel.
            return data[:, :, :: strides[0], :: strides[1]].contiguous()
        if (top, left) == (bottom, right) and 2 * top <= kernels[0] and 2 * left <= kernels[1]:
            return F.max_pool2d(data, kernels, strides, [top, left], dilations)
        data = F.pad(data, (left, right, top, bottom), value=float("-inf"))
        return F.max_pool2d(data, kernels, strides, 0, dilations)

    return _pool(
        pool,
        data,
        kernels=kernels,
        strides=strides,
        pads=pads,
        dilations=dilations,
        global_pooling=global_pooling,
        order=order,
    )


def average_pool(
    data: Tensor,
    *,
    kernels: Sequence[int] = (),
    strides: Sequence[int] = (),
    pads: Sequence[int] = (),
    global_pooling: bool = False,
    count_include_pad: bool = False,
    order: Order = "NCHW",
) -> Tensor:
    """The mean of each window, of what is inside of the map or, if `count_include_pad`, of the padding too.

    Errors:
        InputError: numbers that are not of two dimensions, padding as large as the kernel.
    """

    def pool(
        data: Tensor, kernels: list[int], strides: list[int], pads: list[int], dilations: list[int]
    ) -> Tensor:
        top, left, bottom, right = pads
        if (top, left) == (bottom, right) and 2 * top <= kernels[0] and 2 * left <= kernels[1]:
            return F.avg_pool2d(data, kernels, strides, [top, left], False, count_include_pad)
        around = (left, right, top, bottom)
        sums = F.avg_pool2d(F.pad(data, around), kernels, strides, divisor_override=1)
        inside = torch.ones_like(data[:1, :1])
        counts = F.avg_pool2d(
            F.pad(inside, around, value=float(count_include_pad)), kernels, strides, divisor_override=1
        )
        return sums / counts

    return _pool(
        pool,
        data,
        kernels=kernels,
        strides=strides,
        pads=pads,
        dilations=(),
        global_pooling=global_pooling,
        order=order,
    )


def _scales(scales: Tensor | None, height_scale: float, width_scale: float, name: str) -> tuple[float, float]:
    if scales is not None:
        if list(scales.shape) != [2]:
            raise InputError(
                f"{name}: scales {list(scales.shape)}, where the height's and the width's are expected"
            )
        height_scale, width_scale = (float(scale) for scale in scales)
    if height_scale <= 0 or width_scale <= 0:
        raise InputError(f"{name}: scales {height_scale}, {width_scale} are not positive")
    return as_float32(height_scale), as_float32(width_scale)


def resize_nearest(
    data: Tensor,
    scales: Tensor | None = None,
    *,
    height_scale: float = 1.0,
    width_scale: float = 1.0,
    order: Order = "NCHW",
) -> Tensor:
    """Nearest-neighbour resizing: cell i of the result is cell floor(i / scale), sizes are rounded down.

    `scales`, f32[2], the height's and the width's, replace those of the arguments.
    """
    height_scale, width_scale = _scales(scales, height_scale, width_scale, "ResizeNearest")
    data = _channels_first(data, order)
    if height_scale == width_scale == 2.0:
        return _as_given(F.interpolate(data, scale_factor=2.0, mode="nearest"), order)
    for dim, scale in ((2, height_scale), (3, width_scale)):
        size = data.shape[dim]
        # In float32, as the original divides.
        cells = torch.arange(_resized(size, scale), dtype=torch.float32, device=data.device) / scale
        data = data.index_select(dim, cells.to(torch.int64).clamp(max=size - 1))
    return _as_given(data, order)


def upsample_bilinear(
    data: Tensor,
    scales: Tensor | None = None,
    *,
    height_scale: float = 1.0,
    width_scale: float = 1.0,
) -> Tensor:
    """Bilinear resizing in which the corners' centers stay where they are, sizes rounded down.

    `scales`, f32[2], the height's and the width's, replace those of the arguments.
    """
    height_scale, width_scale = _scales(scales, height_scale, width_scale, "UpsampleBilinear")
    data = _channels_first(data, "NCHW")
    size = _resized(data.shape[2], height_scale), _resized(data.shape[3], width_scale)
    return F.interpolate(data, size=size, mode="bilinear", align_corners=True)


def _resized(size: int, scale: float) -> int:
    return int(as_float32(size * scale))


def softmax(data: Tensor, *, axis: int = 1) -> Tensor:
    """Softmax over the dimensions from `axis` on together."""
    axis = _axis(axis, data)
    return data.reshape(*data.shape[:axis], -1).softmax(-1).reshape(data.shape) if data.numel() else data


def pad_image(
    data: Tensor,
    *,
    pads: Sequence[int] = (),
    mode: Literal["constant", "reflect", "edge"] = "constant",
    value: float = 0.0,
    order: Order = "NCHW",
) -> Tensor:
    """Height and width padded with a value, a mirror image, or the outermost cells."""
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
    if mode not in modes:
        raise InputError(f"PadImage: mode {mode!r} is none of {', '.join(modes)}")
    top, left, bottom, right = _checked(pads, 4, 0, "pads")
    data = _channels_first(data, order)
    padded = F.pad(
        data, (left, right, top, bottom), modes[mode], **({"value": value} if mode == "constant" else {})
    )
    return _as_given(padded, order)
