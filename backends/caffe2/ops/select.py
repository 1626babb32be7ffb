"""The operators that choose elements of rows, and write elements into them.

Source: Caffe2's `top_k` and `scatter_op`, of PyTorch 1.9.1.
"""

from __future__ import annotations

from torch import Tensor

from ..errors import InputError


def top_k(data: Tensor, *, k: int, axis: int = -1) -> tuple[Tensor, Tensor]:
    """The `k` largest elements along a dimension, the largest first, and i64 where they are. Of equal ones the
    earlier.

    Errors:
        InputError: there are fewer than `k`, which Caffe2 fills up with zeros.
    """
    if not -data.dim() <= axis < data.dim() or not 0 < k <= data.shape[axis]:
        raise InputError(f"TopK: {k} elements along axis {axis} of {list(data.shape)}")
    order = data.argsort(dim=axis, descending=True, stable=True).narrow(axis, 0, k)
    return data.gather(axis, order), order


def scatter(data: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 1) -> Tensor:
    """The data with `updates` in the places `indices`, i32 or i64, along a dimension.

    Shapes: indices and updates have one shape, which is the data's but for `axis`.

    Errors:
        InputError: shapes that do not fit, an index out of range.
    """
    dims = data.dim()
    if not -dims <= axis < dims:
        raise InputError(f"Scatter: axis {axis} of {dims} dimensions")
    axis %= dims
    around = [size for dim, size in enumerate(data.shape) if dim != axis]
    if indices.shape != updates.shape or [s for d, s in enumerate(indices.shape) if d != axis] != around:
        raise InputError(
            f"Scatter: indices {list(indices.shape)} and updates {list(updates.shape)} for {list(data.shape)}"
        )
    if bool(((indices < 0) | (indices >= data.shape[axis])).any()):
        raise InputError(f"Scatter: an index outside of the {data.shape[axis]} slices")
    return data.scatter(axis, indices.long(), updates)
