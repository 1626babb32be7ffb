"""Result types of the operators that networks are built of; see `aten_shapes`, whose rules these join."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from .aten_shapes import Attributes, axis_of, rule, sizes_of, without
from .dims import Dim, SymExpr, exact_quotient, floor_div
from .ops import Fresh
from .polynomials import fraction_of
from .types import TensorType

_Types = list[TensorType]
_FOUND = "u0"
"""What torch calls a size that only the data knows."""


# Layers


@rule("conv1d", "conv2d")
def _convolution(
    attributes: Attributes, x: TensorType, weight: TensorType, bias: TensorType | None = None
) -> _Types | None:
    spatial = weight.rank - 2
    channels = weight.shape[1] * attributes.get("groups", 1)
    if x.rank != weight.rank or x.shape[1] != channels or not _same_floats(x, weight, bias):
        return None
    return _made(x, weight.shape[0], _windows(attributes, x.shape[2:], _row(weight.shape[2:], spatial)))


@rule("conv_transpose2d.input")
def _transposed_convolution(
    attributes: Attributes, x: TensorType, weight: TensorType, bias: TensorType | None = None
) -> _Types | None:
    if x.rank != 4 or weight.rank != 4 or x.shape[1] != weight.shape[0] or not _same_floats(x, weight, bias):
        return None
    kernel, (stride, padding, more, dilation) = (
        weight.shape[2:],
        (
            _row(attributes.get(name, default), 2)
            for name, default in (("stride", 1), ("padding", 0), ("output_padding", 0), ("dilation", 1))
        ),
    )
    sizes = [
        (size - 1) * stride[i] - 2 * padding[i] + dilation[i] * (kernel[i] - 1) + more[i] + 1
        for i, size in enumerate(x.shape[2:])
    ]
    return _made(x, weight.shape[1] * attributes.get("groups", 1), sizes)


@rule("max_pool2d", "avg_pool2d")
def _pooling(attributes: Attributes, x: TensorType) -> _Types | None:
    if x.rank != 4 or attributes.get("ceil_mode", False):
        return None
    kernel = _row(attributes["kernel_size"], 2)
    stride = attributes.get("stride") or kernel
    return _made(x, x.shape[1], _windows({**attributes, "stride": stride}, x.shape[2:], kernel))


@rule("adaptive_avg_pool2d")
def _adaptive_pooling(attributes: Attributes, x: TensorType) -> _Types | None:
    return _made(x, x.shape[1], sizes_of(attributes["output_size"])) if x.rank == 4 else None


@rule("linear")
def _linear(
    _: Attributes, x: TensorType, weight: TensorType, bias: TensorType | None = None
) -> _Types | None:
    if weight.rank != 2 or x.rank == 0 or x.shape[-1] != weight.shape[1] or not _same_floats(x, weight, bias):
        return None
    return [TensorType(x.dtype, (*x.shape[:-1], weight.shape[0]))]


@rule("matmul", "bmm")
def _product(_: Attributes, first: TensorType, second: TensorType) -> _Types | None:
    fits = first.rank == second.rank >= 2 and first.shape[:-2] == second.shape[:-2]
    if not fits or first.shape[-1] != second.shape[-2] or first.dtype != second.dtype:
        return None
    return [TensorType(first.dtype, (*first.shape[:-1], second.shape[-1]))]


@rule("scaled_dot_product_attention")
def _attention(
    _: Attributes, query: TensorType, key: TensorType, value: TensorType, __: TensorType | None = None
) -> _Types | None:
    if not query.rank == key.rank == value.rank or query.shape[-1] != key.shape[-1]:
        return None
    fits = query.shape[:-2] == key.shape[:-2] == value.shape[:-2] and key.shape[-2] == value.shape[-2]
    return [TensorType(query.dtype, (*query.shape[:-1], value.shape[-1]))] if fits else None


@rule("batch_norm", "group_norm", "layer_norm")
def _normalization(attributes: Attributes, x: TensorType, *__: TensorType | None) -> _Types | None:
    return [x] if x.dtype.is_floating_point and x.rank > 1 and not attributes.get("training", False) else None


@rule("_native_batch_norm_legit_no_training")
def _native_batch_norm(_: Attributes, x: TensorType, *__: TensorType | None) -> _Types:
    """On the CPU it keeps no means and no variances but the given ones."""
    nothing = TensorType(x.dtype, (0,))
    return [x, nothing, nothing]


@rule("dropout", "feature_dropout", "alpha_dropout")
def _dropout(attributes: Attributes, x: TensorType) -> _Types | None:
    return [x] if attributes["train"] is False else None


@rule("upsample_nearest2d.vec", "upsample_bilinear2d.vec", "upsample_bicubic2d.vec")
def _resize(attributes: Attributes, x: TensorType) -> _Types | None:
    size, scales = attributes.get("output_size"), attributes.get("scale_factors")
    if x.rank != 4 or not x.dtype.is_floating_point:
        return None
    if size is not None:
        return _made(x, x.shape[1], sizes_of(size))
    if scales is None:
        return None
    factors = [fraction_of(scale) for scale in scales]
    made = [floor_div(s * f.numerator, f.denominator) for s, f in zip(x.shape[2:], factors, strict=True)]
    return _made(x, x.shape[1], made)


@rule("grid_sampler")
def _grid_sampler(_: Attributes, x: TensorType, grid: TensorType) -> _Types | None:
    fits = x.rank == grid.rank == 4 and x.shape[0] == grid.shape[0] and grid.shape[3] == 2
    return _made(x, x.shape[1], grid.shape[1:3]) if fits and x.dtype == grid.dtype else None


@rule("pad", "constant_pad_nd")
def _pad(attributes: Attributes, x: TensorType) -> _Types | None:
    if attributes.get("mode", "constant") != "constant":
        return None
    around = attributes["pad"]
    shape = list(x.shape)
    for place in range(len(around) // 2):
        shape[-1 - place] = shape[-1 - place] + around[2 * place] + around[2 * place + 1]
    return [TensorType(x.dtype, sizes_of(shape))]


@rule("torchvision.roi_align")
def _roi_align(attributes: Attributes, x: TensorType, boxes: TensorType) -> _Types | None:
    if x.rank != 4 or boxes.rank != 2 or boxes.shape[1] != 5 or x.dtype != boxes.dtype:
        return None
    pooled = sizes_of([attributes["pooled_height"], attributes["pooled_width"]])
    return [TensorType(x.dtype, (boxes.shape[0], x.shape[1], *pooled))]


# Parts and places


@rule("flatten.using_ints")
def _flatten(attributes: Attributes, x: TensorType) -> _Types | None:
    if x.rank == 0:
        return None
    first = axis_of(attributes.get("start_dim", 0), x.rank)
    last = axis_of(attributes.get("end_dim", -1), x.rank)
    flat: Dim = math.prod(x.shape[first : last + 1])
    return [TensorType(x.dtype, (*x.shape[:first], flat, *x.shape[last + 1 :]))] if first <= last else None


@rule("reshape", "view")
def _reshape(attributes: Attributes, x: TensorType) -> _Types | None:
    wanted = list(attributes["shape" if "shape" in attributes else "size"])
    total: Dim = math.prod(x.shape)
    if -1 in wanted:
        place = wanted.index(-1)
        rest: Dim = math.prod(sizes_of(wanted[:place] + wanted[place + 1 :]))
        if rest == 0:
            return None
        share = exact_quotient(total, rest) if isinstance(rest, SymExpr) else floor_div(total, rest)
        if share is None:
            return None
        wanted[place] = share
    shape = sizes_of(wanted)
    return [TensorType(x.dtype, shape)] if math.prod(shape) == total else None


@rule("unflatten.int")
def _unflatten(attributes: Attributes, x: TensorType) -> _Types | None:
    axis = axis_of(attributes["dim"], x.rank)
    return _reshape({"shape": (*x.shape[:axis], *attributes["sizes"], *x.shape[axis + 1 :])}, x)


@rule("view_as", "reshape_as")
def _like_another(_: Attributes, x: TensorType, other: TensorType) -> _Types | None:
    return [TensorType(x.dtype, other.shape)] if math.prod(x.shape) == math.prod(other.shape) else None


@rule("split.Tensor", "split_with_sizes", "split.sizes")
def _split(attributes: Attributes, x: TensorType) -> _Types | None:
    axis = axis_of(attributes.get("dim", 0), x.rank)
    size = x.shape[axis]
    part = attributes["split_sizes" if "split_sizes" in attributes else "split_size"]
    if isinstance(part, tuple):
        parts: Sequence[Dim] = sizes_of(part)
    elif isinstance(size, int) and type(part) is int and part > 0:
        parts = [min(part, size - start) for start in range(0, max(size, 1), part)]
    else:
        return None
    if sum(parts) != size:
        return None
    return [TensorType(x.dtype, (*x.shape[:axis], part, *x.shape[axis + 1 :])) for part in parts]


@rule("chunk")
def _chunk(attributes: Attributes, x: TensorType) -> _Types | None:
    size, chunks = x.shape[axis_of(attributes.get("dim", 0), x.rank)], attributes["chunks"]
    if not isinstance(size, int) or type(chunks) is not int or size < 1:
        return None
    return _split({"split_size": -(-size // chunks), "dim": attributes.get("dim", 0)}, x)


@rule("unbind.int")
def _unbind(attributes: Attributes, x: TensorType) -> _Types | None:
    axis = axis_of(attributes.get("dim", 0), x.rank)
    size = x.shape[axis]
    return [without(x, axis)] * size if isinstance(size, int) else None


@rule("to.dtype")
def _to(attributes: Attributes, x: TensorType) -> _Types:
    return [TensorType(attributes["dtype"], x.shape)]


@rule("contiguous", "clone", "alias", "detach", "roll", "flip")
def _same(_: Attributes, x: TensorType) -> _Types:
    return [x]


@rule("scatter.src", "index_put", "slice_scatter", "select_scatter")
def _changed(_: Attributes, x: TensorType, *others: Any) -> _Types | None:
    source = others[-1]
    return [x] if isinstance(source, TensorType) and source.dtype == x.dtype else None


@rule("gather")
def _gather(attributes: Attributes, x: TensorType, index: TensorType) -> _Types | None:
    axis_of(attributes["dim"], x.rank)
    return [TensorType(x.dtype, index.shape)] if index.dtype == torch.int64 and index.rank == x.rank else None


@rule("index_copy", "index_fill.int_Scalar")
def _written_into(
    attributes: Attributes, x: TensorType, index: TensorType, *source: TensorType
) -> _Types | None:
    axis_of(attributes["dim"], x.rank)
    fits = index.rank == 1 and index.dtype == torch.int64 and x.rank > 0
    if source and (source[0].dtype != x.dtype or source[0].rank != x.rank):
        return None
    value = attributes.get("value")
    filled = type(value) is int or (type(value) is float and x.dtype.is_floating_point)
    return [x] if fits and (source or filled) else None


@rule("topk")
def _topk(attributes: Attributes, x: TensorType) -> _Types | None:
    if x.rank == 0:
        return None
    axis, (count,) = axis_of(attributes.get("dim", -1), x.rank), sizes_of([attributes["k"]])
    size = x.shape[axis]
    if isinstance(size, int) and isinstance(count, int) and count > size:
        return None
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    return [TensorType(x.dtype, shape), TensorType(torch.int64, shape)]


@rule("searchsorted.Tensor")
def _searchsorted(attributes: Attributes, sequence: TensorType, x: TensorType) -> _Types | None:
    if sequence.rank != 1 or sequence.dtype != x.dtype:
        return None
    return [TensorType(torch.int32 if attributes.get("out_int32", False) else torch.int64, x.shape)]


@rule("bucketize.Tensor")
def _bucketize(attributes: Attributes, x: TensorType, sequence: TensorType) -> _Types | None:
    return _searchsorted(attributes, sequence, x)


@rule("zeros", "ones", "new_zeros", "new_ones", "new_full")
def _filled(attributes: Attributes, *x: TensorType) -> _Types:
    dtype = attributes.get("dtype") or (x[0].dtype if x else torch.get_default_dtype())
    return [TensorType(dtype, sizes_of(attributes["size"]))]


# Sized by data


@rule("nonzero")
def _nonzero(_: Attributes, x: TensorType) -> _Types:
    return [TensorType(torch.int64, (Fresh(_FOUND), x.rank))]


@rule("masked_select")
def _masked_select(_: Attributes, x: TensorType, mask: TensorType) -> _Types | None:
    return (
        [TensorType(x.dtype, (Fresh(_FOUND),))] if mask.dtype == torch.bool and mask.rank <= x.rank else None
    )


@rule("repeat_interleave.Tensor")
def _repeat_interleave(attributes: Attributes, repeats: TensorType) -> _Types:
    size = attributes.get("output_size")
    return [TensorType(repeats.dtype, (Fresh(_FOUND),) if size is None else sizes_of([size]))]


@rule("repeat_interleave.self_Tensor")
def _repeat_rows(attributes: Attributes, x: TensorType, repeats: TensorType) -> _Types | None:
    dim, size = attributes.get("dim"), attributes.get("output_size")
    if dim is None or repeats.rank != 1:
        return None
    axis = axis_of(dim, x.rank)
    made = sizes_of([size]) if size is not None else (Fresh(_FOUND),)
    return [TensorType(x.dtype, (*x.shape[:axis], *made, *x.shape[axis + 1 :]))]


@rule("index.Tensor")
def _index(_: Attributes, x: TensorType, indices: tuple[TensorType | None, ...]) -> _Types | None:
    """What one mask, or places of the first dimensions, choose. The rest torch knows."""
    first = indices[0]
    if first is not None and first.dtype == torch.int64 and all(index == first for index in indices):
        return [TensorType(x.dtype, (*first.shape, *x.shape[len(indices) :]))]
    (mask,) = indices
    if mask is None or mask.dtype not in (torch.bool, torch.uint8) or mask.shape != x.shape[: mask.rank]:
        return None
    return [TensorType(x.dtype, (Fresh(_FOUND), *x.shape[mask.rank :]))]


@rule("torchvision.nms")
def _nms(_: Attributes, boxes: TensorType, scores: TensorType) -> _Types | None:
    fits = boxes.rank == 2 and boxes.shape[1] == 4 and scores.shape == boxes.shape[:1]
    return [TensorType(torch.int64, (Fresh(_FOUND),))] if fits and boxes.dtype == scores.dtype else None


# Pieces


def _same_floats(x: TensorType, *others: TensorType | None) -> bool:
    return x.dtype.is_floating_point and all(other is None or other.dtype == x.dtype for other in others)


def _made(x: TensorType, channels: Dim, sizes: Sequence[Dim]) -> _Types | None:
    """A map of this many channels and these sizes, None where torch would have to refuse them."""
    if any(isinstance(size, int) and size < 1 for size in sizes):
        return None
    return [TensorType(x.dtype, (x.shape[0], channels, *sizes))]


def _windows(attributes: Attributes, sizes: Sequence[Dim], kernel: Sequence[int]) -> list[Dim]:
    """How often a window of that kernel fits, along each dimension."""
    stride, padding, dilation = (
        _row(attributes.get(name, default), len(kernel))
        for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    return [
        floor_div(size + (2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1), stride[i]) + 1
        for i, size in enumerate(sizes)
    ]


def _row(value: Any, count: int) -> Sequence[int]:
    """One number for each dimension; those that are not plain are left to torch."""
    numbers = value if isinstance(value, tuple) else (value,)
    if any(type(number) is not int for number in numbers):
        raise ValueError(value)
    return numbers * count if len(numbers) == 1 else numbers
