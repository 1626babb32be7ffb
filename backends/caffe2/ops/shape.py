"""The operators that move data about: reshaping, joining, cutting, gathering, reducing, casting, copying.

Source: Caffe2's operators of the same names, of PyTorch 1.9.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError

TENSOR_TYPES: Final = {
    "FLOAT": torch.float32,
    "INT32": torch.int32,
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT64": torch.int64,
    "FLOAT16": torch.float16,
    "DOUBLE": torch.float64,
}
"""torch's types by the names of TensorProto.DataType."""
_TYPE_NUMBERS: Final = {
    1: "FLOAT",
    2: "INT32",
    5: "BOOL",
    6: "UINT8",
    7: "INT8",
    9: "INT16",
    10: "INT64",
    12: "FLOAT16",
    13: "DOUBLE",
}


def tensor_type(to: int | str) -> torch.dtype:
    """torch's type for a TensorProto.DataType, by number or name.

    Errors:
        InputError: none of the types that tensors can have here.
    """
    name = _TYPE_NUMBERS.get(to, str(to)) if isinstance(to, int) else to.upper()
    if name not in TENSOR_TYPES:
        raise InputError(f"tensors of Caffe2's type {to!r} are not supported")
    return TENSOR_TYPES[name]


def _axis(axis: int, dims: int, what: str) -> int:
    """A dimension number, counted from the end if negative."""
    found = axis + dims if axis < 0 else axis
    if not 0 <= found < dims:
        raise InputError(f"{what}: axis {axis} of {dims} dimensions")
    return found


def _whole(tensor: Tensor, what: str) -> list[int]:
    if tensor.dim() != 1 or tensor.dtype not in (torch.int32, torch.int64):
        raise InputError(f"{what}: {tensor.dtype} {list(tensor.shape)}, where a list of integers is expected")
    return [int(value) for value in tensor.tolist()]


def concat(
    inputs: Sequence[Tensor], *, axis: int | None = None, order: str = "NCHW", add_axis: bool = False
) -> tuple[Tensor, Tensor]:
    """Tensors joined along a dimension, by default the channels of `order`, or stacked along a new one.

    Returns:
        The result, and i32[k], the size of each input there.

    Errors:
        InputError: shapes that do not fit.
    """
    if not inputs:
        raise InputError("Concat: no inputs")
    if axis is None:
        axis = 1 if order == "NCHW" else 3
    axis = _axis(axis, inputs[0].dim() + add_axis, "Concat")
    parts = [part.unsqueeze(axis) for part in inputs] if add_axis else list(inputs)
    around = [(*part.shape[:axis], *part.shape[axis + 1 :]) for part in parts]
    if any(sizes != around[0] for sizes in around) or any(part.dtype != inputs[0].dtype for part in inputs):
        raise InputError(f"Concat: {[list(part.shape) for part in inputs]} do not fit along axis {axis}")
    sizes = torch.tensor([part.shape[axis] for part in parts], dtype=torch.int32)
    return torch.cat(parts, axis), sizes


def split(
    data: Tensor,
    lengths: Tensor | None = None,
    *,
    output_count: int,
    split: Sequence[int] = (),
    axis: int | None = None,
    order: str = "NCHW",
    add_axis: bool = False,
) -> tuple[Tensor, ...]:
    """Data cut along a dimension, by default the channels of `order`, into `output_count` pieces.

    Their sizes are in `lengths`, i32[k], or in `split`, or equal. `add_axis` drops the dimension.
    `output_count` is no argument in a net, but the number of the operator's outputs.

    Errors:
        InputError: sizes that do not add up, or are not as many as there are outputs.
    """
    if axis is None:
        axis = 1 if order == "NCHW" else 3
    axis = _axis(axis, data.dim(), "Split")
    sizes = _whole(lengths, "Split") if lengths is not None else list(split)
    if not sizes and data.shape[axis] % output_count == 0:
        sizes = [data.shape[axis] // output_count] * output_count
    if len(sizes) != output_count or sum(sizes) != data.shape[axis] or min(sizes) < 0:
        raise InputError(
            f"Split: {list(data.shape)} along axis {axis} into {sizes or 'equal'} for {output_count} outputs"
        )
    pieces: tuple[Tensor, ...] = data.split_with_sizes(sizes, axis)
    if not add_axis:
        return pieces
    if any(size != 1 for size in sizes):
        raise InputError(f"Split: add_axis with pieces of the sizes {sizes}")
    return tuple(piece.squeeze(axis) for piece in pieces)


def slice_(
    data: Tensor,
    starts_tensor: Tensor | None = None,
    ends_tensor: Tensor | None = None,
    *,
    starts: Sequence[int] = (),
    ends: Sequence[int] = (),
) -> Tensor:
    """Data from `starts` to before `ends`, of the leading dimensions. -1 is the end, -2 the last but one.

    Errors:
        InputError: a piece that is not inside of the data, or cuts more than one dimension, which Caffe2
            cannot.
    """
    if starts_tensor is not None and ends_tensor is not None:
        starts, ends = _whole(starts_tensor, "Slice"), _whole(ends_tensor, "Slice")
    if len(starts) != len(ends) or len(starts) > data.dim():
        raise InputError(f"Slice: from {list(starts)} to {list(ends)} of {list(data.shape)}")
    result, cut = data, 0
    for dim, (start, end) in enumerate(zip(starts, ends, strict=True)):
        size = data.shape[dim]
        first = min(start if start >= 0 else size + 1 + start, size)
        last = min(end if end >= 0 else size + 1 + end, size)
        if size == 0:
            continue
        if not 0 <= first <= last:
            raise InputError(f"Slice: from {list(starts)} to {list(ends)} of {list(data.shape)}")
        cut += (first, last) != (0, size)
        result = result.narrow(dim, first, last - first)
    if cut > 1 and data.numel():
        raise InputError(f"Slice: from {list(starts)} to {list(ends)} cuts more than one dimension")
    return result


def transpose(data: Tensor, *, axes: Sequence[int] = ()) -> Tensor:
    """Dimensions in the order `axes`, or reversed.

    Errors:
        InputError: `axes` does not name each dimension once.
    """
    order = list(axes) or list(range(data.dim()))[::-1]
    if sorted(order) != list(range(data.dim())):
        raise InputError(f"Transpose: axes {order} of {data.dim()} dimensions")
    return data.permute(order).contiguous()


def reshape(
    data: Tensor, new_shape: Tensor | None = None, *, shape: Sequence[int] = ()
) -> tuple[Tensor, Tensor]:
    """Data in a new shape, in which 0 keeps a size and one -1 takes what is left.

    Returns:
        The result, and the old shape, i64[d].

    Errors:
        InputError: a shape of another size.
    """
    sizes = _whole(new_shape, "Reshape") if new_shape is not None else list(shape)
    wanted = str(sizes)
    if data.numel():
        sizes = [data.shape[i] if size == 0 and i < data.dim() else size for i, size in enumerate(sizes)]
    elif -1 in sizes:
        sizes[sizes.index(-1)] = 0
    try:
        result = data.reshape(sizes)
    except RuntimeError as error:
        raise InputError(f"Reshape: {list(data.shape)} to {wanted}") from error
    return result, torch.tensor(data.shape, dtype=torch.int64)


def flatten(data: Tensor, *, axis: int = 1) -> Tensor:
    """Two dimensions: those before `axis`, and the others."""
    if not 0 <= axis <= data.dim():
        raise InputError(f"Flatten: axis {axis} of {data.dim()} dimensions")
    rows = 1
    for size in data.shape[:axis]:
        rows *= size
    columns = 1
    for size in data.shape[axis:]:
        columns *= size
    return data.reshape(rows, columns)


def squeeze(data: Tensor, *, dims: Sequence[int]) -> Tensor:
    """Without the dimensions `dims`, whose sizes are 1."""
    for dim in dims:
        if not 0 <= dim < data.dim() or data.shape[dim] != 1:
            raise InputError(f"Squeeze: dimensions {list(dims)} of {list(data.shape)}")
    return data.reshape([size for dim, size in enumerate(data.shape) if dim not in dims])


def expand_dims(data: Tensor, *, dims: Sequence[int]) -> Tensor:
    """With dimensions of size 1 put in, so that they are `dims` of the result."""
    for dim in sorted(dims):
        if not 0 <= dim <= data.dim():
            raise InputError(f"ExpandDims: dimensions {list(dims)} into {list(data.shape)}")
        data = data.unsqueeze(dim)
    return data


def shape(data: Tensor, *, axes: Sequence[int] = ()) -> Tensor:
    """i64[k]: the sizes of all dimensions, or of `axes`."""
    chosen = [_axis(axis, data.dim(), "Shape") for axis in axes] or range(data.dim())
    return torch.tensor([data.shape[axis] for axis in chosen], dtype=torch.int64)


def cast(data: Tensor, *, to: int | str = 1) -> Tensor:
    """Data in the type `to`, of TensorProto.DataType by number or name."""
    return data.to(tensor_type(to))


def copy(data: Tensor) -> Tensor:
    """The same data. All the operators that move it between places that are one here."""
    return data


def alias_with_name(data: Tensor, *, name: str = "name", is_backward: bool = False) -> Tensor:
    """The same data: the exporter's placeholder for giving a blob a name."""
    return data


def dropout(data: Tensor, *, ratio: float = 0.5, is_test: bool = False) -> Tensor:
    """The same data, as long as nothing is to be trained.

    Errors:
        InputError: `is_test` is off, which asks for training.
    """
    if not is_test:
        raise InputError("Dropout: only inference is supported (is_test = 1)")
    return data


def gather(data: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """Slices of `data` along a dimension, in the order and the shape of the integer `indices`.

    Errors:
        InputError: an index that is out of range.
    """
    axis = _axis(axis, data.dim(), "Gather")
    size = data.shape[axis]
    flat = indices.reshape(-1).to(torch.int64)
    if bool(((flat < 0) | (flat >= size)).any()):
        raise InputError(f"Gather: an index outside of the {size} slices")
    result = data.index_select(axis, flat)
    return result.reshape(*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])


def expand(data: Tensor, new_shape: Tensor) -> Tensor:
    """Data repeated along its dimensions of size 1, so that it broadcasts with the shape i64[d]."""
    sizes = [max(size, 1) for size in _whole(new_shape, "Expand")]
    try:
        return data.expand(np.broadcast_shapes(tuple(data.shape), tuple(sizes)))
    except ValueError as error:
        raise InputError(f"Expand: {list(data.shape)} does not broadcast with {sizes}") from error


def tile(data: Tensor, *, tiles: int = 1, axis: int = 0) -> Tensor:
    """Data `tiles` times one behind the other along a dimension."""
    axis = _axis(axis, data.dim(), "Tile")
    return data.repeat([tiles if dim == axis else 1 for dim in range(data.dim())])


def mat_mul(first: Tensor, second: Tensor, *, trans_a: bool = False, trans_b: bool = False) -> Tensor:
    """Product of the last two dimensions of [..., m, k] and [..., k, n]; the others broadcast.

    Errors:
        InputError: sizes that do not fit.
    """
    first = first.transpose(-1, -2) if trans_a else first
    second = second.transpose(-1, -2) if trans_b else second
    try:
        return first @ second
    except RuntimeError as error:
        raise InputError(f"MatMul: {list(first.shape)} and {list(second.shape)} do not fit") from error


def _reduced(
    data: Tensor, axes: Sequence[int], keepdims: bool, reduce: Callable[[Tensor, list[int], bool], Tensor]
) -> Tensor:
    dims = [_axis(axis, data.dim(), "a reduction") for axis in axes] or list(range(data.dim()))
    return reduce(data, dims, keepdims)


def reduce_mean(data: Tensor, *, axes: Sequence[int] = (), keepdims: bool = True) -> Tensor:
    """Mean over `axes`, or over all."""
    return _reduced(data, axes, keepdims, lambda data, dims, keep: data.mean(dims, keep))


def reduce_sum(data: Tensor, *, axes: Sequence[int] = (), keepdims: bool = True) -> Tensor:
    """Sum over `axes`, or over all."""
    return _reduced(data, axes, keepdims, lambda data, dims, keep: data.sum(dims, keep, dtype=data.dtype))


def reduce_max(data: Tensor, *, axes: Sequence[int] = (), keepdims: bool = True) -> Tensor:
    """Largest over `axes`, or over all."""
    return _reduced(data, axes, keepdims, lambda data, dims, keep: data.amax(dims, keep))


def reduce_min(data: Tensor, *, axes: Sequence[int] = (), keepdims: bool = True) -> Tensor:
    """Smallest over `axes`, or over all."""
    return _reduced(data, axes, keepdims, lambda data, dims, keep: data.amin(dims, keep))


def arg_max(data: Tensor, *, axis: int = -1, keepdims: bool = True) -> Tensor:
    """i64: the first position of the largest value along a dimension."""
    return data.argmax(_axis(axis, data.dim(), "ArgMax"), keepdim=keepdims)
