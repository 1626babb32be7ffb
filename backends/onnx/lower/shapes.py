"""aten ops that move elements: views, joining, splitting, indexing, padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from detc.ir import Dim, Value
from detc.ir.dims import mod
from detc.passes.core.base import NoMatch

from .builder import INT64_MAX, OnnxBuilder
from .rules import RuleTable, axis_of

TABLE = RuleTable()


# Views


@TABLE.rule(
    "aten.view",
    "aten.reshape",
    "aten._unsafe_view",
    "aten.flatten.using_ints",
    "aten.unflatten.int",
    "aten._reshape_alias",
    "aten.view_as",
    "aten.reshape_as",
)
def reshape(b: OnnxBuilder, self: Value, **_: Any) -> Value:
    return b.reshape(self, b.result.shape)


@TABLE.rule("aten.unsqueeze")
def unsqueeze(b: OnnxBuilder, self: Value, dim: int) -> Value:
    return b.unsqueeze(self, [axis_of(dim, self.rank + 1)])


@TABLE.rule("aten.squeeze", "aten.squeeze.dim", "aten.squeeze.dims")
def squeeze(b: OnnxBuilder, self: Value, dim: Any = None) -> Value:
    given = range(self.rank) if dim is None else [dim] if isinstance(dim, int) else dim
    axes = sorted({axis_of(d, self.rank) for d in given})
    gone = [axis for axis in axes if self.shape[axis] == 1] if self.rank else []
    if self.rank - len(gone) != b.result.rank:
        raise NoMatch("squeeze of a size that is 1 for some inputs only")
    return b.onnx.Squeeze(self, b.ints(gone)) if gone else self


@TABLE.rule("aten.expand", "aten.expand_as", "aten.broadcast_to")
def expand(b: OnnxBuilder, self: Value, **_: Any) -> Value:
    return b.expand(self, b.result.shape)


@TABLE.rule("aten.repeat", "aten.tile")
def repeat(b: OnnxBuilder, self: Value, repeats: Any = None, dims: Any = None) -> Value:
    times = list(dims if repeats is None else repeats)
    times = [1] * (self.rank - len(times)) + times
    value = b.unsqueeze(self, list(range(len(times) - self.rank)))
    if all(t == 1 for t in times):
        return value
    return b.onnx.Tile(value, b.shape(times))


@TABLE.rule("aten.permute")
def permute(b: OnnxBuilder, self: Value, dims: Sequence[int]) -> Value:
    return b.transpose(self, [axis_of(d, self.rank) for d in dims])


@TABLE.rule("aten.transpose.int", "aten.swapaxes")
def transpose(
    b: OnnxBuilder,
    self: Value,
    dim0: int | None = None,
    dim1: int | None = None,
    axis0: int = 0,
    axis1: int = 0,
) -> Value:
    first, second = axis0 if dim0 is None else dim0, axis1 if dim1 is None else dim1
    perm = list(range(self.rank))
    one, two = axis_of(first, self.rank), axis_of(second, self.rank)
    if perm:
        perm[one], perm[two] = perm[two], perm[one]
    return b.transpose(self, perm)


@TABLE.rule("aten.t", "aten.numpy_T")
def t(b: OnnxBuilder, self: Value) -> Value:
    return b.transpose(self, list(reversed(range(self.rank))))


@TABLE.rule("aten.movedim.int")
def movedim(b: OnnxBuilder, self: Value, source: int, destination: int) -> Value:
    perm = list(range(self.rank))
    perm.insert(axis_of(destination, self.rank), perm.pop(axis_of(source, self.rank)))
    return b.transpose(self, perm)


# Slices


def slice_axis(b: OnnxBuilder, x: Value, axis: int, start: Dim, end: Dim, step: int = 1) -> Value:
    """x[..., start:end:step, ...] on one axis. Negative numbers count from the end."""
    size = x.shape[axis]
    if end == size or (isinstance(end, int) and isinstance(size, int) and end > size):
        end = INT64_MAX
    if start == 0 and end == INT64_MAX and step == 1:
        return x
    steps = [] if step == 1 else [b.ints([step])]
    return b.onnx.Slice(x, b.shape([start]), b.shape([end]), b.ints([axis]), *steps)


@TABLE.rule("aten.slice.Tensor")
def slice_tensor(b: OnnxBuilder, self: Value, dim: int, start: Any, end: Any, step: int) -> Value:
    return slice_axis(b, self, axis_of(dim, self.rank), start or 0, INT64_MAX if end is None else end, step)


@TABLE.rule("aten.slice_scatter")
def slice_scatter(
    b: OnnxBuilder, self: Value, src: Value, dim: int, start: Any, end: Any, step: int
) -> Value:
    """What is before the slice, the new values, and what is after it."""
    if step != 1:
        raise NoMatch("values are put into every so many places")
    axis = axis_of(dim, self.rank)
    parts = [src]
    if start not in (None, 0):
        parts.insert(0, slice_axis(b, self, axis, 0, start))
    if end is not None and end != self.shape[axis] and end != INT64_MAX:
        parts.append(slice_axis(b, self, axis, end, INT64_MAX))
    parts = [b.cast(part, b.result.dtype) for part in parts]
    return parts[0] if len(parts) == 1 else b.onnx.Concat(parts, axis=axis)


@TABLE.rule("aten.narrow")
def narrow(b: OnnxBuilder, self: Value, dim: int, start: Any, length: Any) -> Value:
    return slice_axis(b, self, axis_of(dim, self.rank), start, start + length)


@TABLE.rule("aten.select.int")
def select(b: OnnxBuilder, self: Value, dim: int, index: Any) -> Value:
    axis = axis_of(dim, self.rank)
    return _pick(b, self, axis, index)


def _pick(b: OnnxBuilder, x: Value, axis: int, index: Dim) -> Value:
    size = x.shape[axis]
    if isinstance(index, int) and isinstance(size, int) and index < 0:
        index += size
    return b.onnx.Gather(x, b.size_scalar(index), axis=axis)


@TABLE.rule("aten.unbind.int")
def unbind(b: OnnxBuilder, self: Value, dim: int) -> list[Value]:
    axis = axis_of(dim, self.rank)
    return [_pick(b, self, axis, i) for i in range(len(b.lowered.results))]


@TABLE.rule(
    "aten.split.Tensor",
    "aten.split_with_sizes",
    "aten.chunk",
    "aten.tensor_split.sections",
    "aten.split.sizes",
)
def split(b: OnnxBuilder, self: Value, dim: int, **_: Any) -> list[Value]:
    axis = axis_of(dim, self.rank)
    if len(b.lowered.results) == 1:
        return [self]
    sizes = b.shape([r.shape[axis] for r in b.lowered.results])
    return list(b.onnx.Split(self, sizes, axis=axis))


@TABLE.rule("aten.flip")
def flip(b: OnnxBuilder, self: Value, dims: Sequence[int]) -> Value:
    axes = [axis_of(d, self.rank) for d in dims]
    count = len(axes)
    if not count:
        return self
    starts, ends, steps = b.ints([-1] * count), b.ints([-INT64_MAX - 1] * count), b.ints([-1] * count)
    return b.onnx.Slice(self, starts, ends, b.ints(axes), steps)


@TABLE.rule("aten.roll")
def roll(b: OnnxBuilder, self: Value, shifts: Any, dims: Any) -> Value:
    if not dims:
        raise NoMatch("roll over the flattened tensor")
    value = self
    for shift, dim in zip(shifts, dims, strict=True):
        axis = axis_of(dim, self.rank)
        size = self.shape[axis]
        # The first `cut` elements go to the end.
        cut = mod(-shift, size)
        if cut == 0:
            continue
        parts = [slice_axis(b, value, axis, cut, INT64_MAX), slice_axis(b, value, axis, 0, cut)]
        value = b.onnx.Concat(parts, axis=axis)
    return value


# Joining


@TABLE.rule("aten.cat", "aten.concat", "aten.concatenate")
def cat(b: OnnxBuilder, tensors: Sequence[Value], dim: int) -> Value:
    rank = b.result.rank
    # torch ignores empty vectors in a list of tensors of a higher rank.
    parts = [b.cast(v, b.result.dtype) for v in tensors if v.rank == rank]
    if len(parts) == 1:
        return parts[0]
    return b.onnx.Concat(parts, axis=axis_of(dim, rank))


@TABLE.rule("aten.stack")
def stack(b: OnnxBuilder, tensors: Sequence[Value], dim: int) -> Value:
    axis = axis_of(dim, b.result.rank)
    parts = [b.unsqueeze(b.cast(v, b.result.dtype), [axis]) for v in tensors]
    return parts[0] if len(parts) == 1 else b.onnx.Concat(parts, axis=axis)


# Indexing


@TABLE.rule("aten.index_select")
def index_select(b: OnnxBuilder, self: Value, dim: int, index: Value) -> Value:
    return b.onnx.Gather(self, index, axis=axis_of(dim, self.rank))


@TABLE.rule("aten.embedding")
def embedding(b: OnnxBuilder, weight: Value, indices: Value, **_: Any) -> Value:
    return b.onnx.Gather(weight, indices, axis=0)


@TABLE.rule("aten.gather")
def gather(b: OnnxBuilder, self: Value, dim: int, index: Value, **_: Any) -> Value:
    return b.onnx.GatherElements(self, index, axis=axis_of(dim, self.rank))


@TABLE.rule("aten.scatter.src", "aten.scatter_add")
def scatter(b: OnnxBuilder, self: Value, dim: int, index: Value, src: Value) -> Value:
    more = {"reduction": "add"} if b.lowered.op.name == "aten.scatter_add" else {}
    if src.shape != index.shape:
        raise NoMatch("scatter from a source of another shape than the index")
    return b.onnx.ScatterElements(self, index, src, axis=axis_of(dim, self.rank), **more)


@TABLE.rule("aten.scatter.value")
def scatter_value(b: OnnxBuilder, self: Value, dim: int, index: Value, value: Any) -> Value:
    source = b.expand(b.number(value, self.dtype), index.shape)
    return b.onnx.ScatterElements(self, index, source, axis=axis_of(dim, self.rank))


@TABLE.rule("aten.nonzero")
def nonzero(b: OnnxBuilder, self: Value) -> Value:
    return b.transpose(b.onnx.NonZero(_countable(b, self)), [1, 0])


def _countable(b: OnnxBuilder, x: Value) -> Value:
    known = {torch.bool, torch.float32, torch.int32, torch.int64, torch.uint8}
    return x if x.dtype in known else b.cast(x, torch.bool)


@TABLE.rule("aten.index.Tensor", "aten._unsafe_index.Tensor")
def index(b: OnnxBuilder, self: Value, indices: Sequence[Value | None]) -> Value:
    at = [i for i, item in enumerate(indices) if item is not None]
    given = [item for item in indices if item is not None]
    if not at:
        return self
    first, only = at[0], given[0]
    if len(given) == 1 and only.dtype is not torch.bool:
        return b.onnx.Gather(self, b.cast(only, torch.int64), axis=first)
    if len(given) == 1 and only.rank == 1:
        return b.onnx.Compress(self, only, axis=first)
    if any(item.dtype is torch.bool for item in given):
        if len(given) > 1 or first:
            raise NoMatch("indexing with masks and other indices at once")
        where = b.transpose(b.onnx.NonZero(only), [1, 0])
        return b.onnx.GatherND(self, where)
    if at != list(range(first, first + len(at))):
        raise NoMatch("indices on axes that are not next to each other")
    # The indexed axes go to the front, as GatherND wants them, and the result's new axes back to their place.
    front = [*at, *(a for a in range(self.rank) if a not in at)]
    count = max(item.rank for item in given)
    dims = b.result.shape[first : first + count]
    columns = [b.unsqueeze(b.expand(b.cast(item, torch.int64), dims), [count]) for item in given]
    taken = b.onnx.GatherND(b.transpose(self, front), b.onnx.Concat(columns, axis=count))
    new = list(range(count))
    rest = list(range(count, taken.rank))
    return b.transpose(taken, [*rest[:first], *new, *rest[first:]])


# Padding


def pad_value(b: OnnxBuilder, x: Value, pad: Sequence[Dim], mode: str, value: Any) -> Value:
    """torch's `pad`: pairs (before, after) from the last axis on."""
    if all(p == 0 for p in pad):
        return x
    before: list[Dim] = [0] * x.rank
    after: list[Dim] = [0] * x.rank
    for i in range(len(pad) // 2):
        before[x.rank - 1 - i], after[x.rank - 1 - i] = pad[2 * i], pad[2 * i + 1]
    pads = b.shape([*before, *after])
    if mode == "constant":
        filler = [] if not value else [b.number(value, x.dtype)]
        return b.onnx.Pad(x, pads, *filler)
    names = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    return b.onnx.Pad(x, pads, mode=names[mode])


@TABLE.rule("aten.constant_pad_nd")
def constant_pad_nd(b: OnnxBuilder, self: Value, pad: Sequence[Dim], value: Any) -> Value:
    return pad_value(b, self, pad, "constant", value)


@TABLE.rule("aten.pad")
def pad(b: OnnxBuilder, self: Value, pad: Sequence[Dim], mode: str, value: Any) -> Value:
    return pad_value(b, self, pad, mode, value)


@TABLE.rule("aten.reflection_pad1d", "aten.reflection_pad2d")
def reflection_pad(b: OnnxBuilder, self: Value, padding: Sequence[Dim]) -> Value:
    return pad_value(b, self, padding, "reflect", None)


@TABLE.rule("aten.replication_pad1d", "aten.replication_pad2d")
def replication_pad(b: OnnxBuilder, self: Value, padding: Sequence[Dim]) -> Value:
    return pad_value(b, self, padding, "replicate", None)
