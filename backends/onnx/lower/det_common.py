"""Pieces that several `det.*` lowerings share. All of them emit ai.onnx operators only.

Counts that depend on data stay symbolic: nothing here pads to a fixed number of boxes, and no row is not an error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from detc.ir import Graph, Value

from ..body import body_text
from .builder import PlainBuilder

I64 = torch.int64
F32 = torch.float32


def ints(b: PlainBuilder, *values: int) -> Value:
    """A constant i64[len(values)]."""
    return b.constant(list(values), I64)


def floats(b: PlainBuilder, *values: float) -> Value:
    """A constant f32[len(values)]."""
    return b.constant(list(values), F32)


def scalar(b: PlainBuilder, value: float) -> Value:
    """A constant f32[]."""
    return b.constant(float(value), F32)


def iota(b: PlainBuilder, shape: Value, axis: int) -> Value:
    """0, 1, 2, ... as many as the shape i64[rank] says for that axis: i64[n]."""
    return b.onnx.Range(b.constant(0, I64), b.onnx.Gather(shape, b.constant(axis, I64)), b.constant(1, I64))


def split(b: PlainBuilder, value: Value, sizes: tuple[int, ...], axis: int) -> tuple[Value, ...]:
    """`value` cut into parts of the given sizes."""
    return b.onnx.Split(value, ints(b, *sizes), axis=axis)


def whwh(b: PlainBuilder, hw: Value) -> Value:
    """Rows (height, width, ...) f32[N,*] as (width, height, width, height) f32[N,4]: what bounds x0 y0 x1 y1."""
    return b.onnx.Gather(hw, ints(b, 1, 0, 1, 0), axis=1)


def magnitude(b: PlainBuilder, value: Value, axis: int) -> Value:
    """The sum of absolute values along an axis: finite exactly where all of them are.

    It is compared with infinity. (Runtimes simplify x * 0 to 0, so that NaN cannot be carried along that way.)
    """
    return b.onnx.ReduceL1(value, ints(b, axis), keepdims=0)


def best_per_row(b: PlainBuilder, values: Value, limit: int) -> tuple[Value, Value, Value]:
    """The `limit` greatest entries of each row of f32[N,S], entries of -inf left out; all when the limit is < 0.

    Returns:
        places i64[P,2]: (row, rank) of each entry kept, by row and then by falling value;
        the sorted values f32[N,k] and their columns i64[N,k], which `places` indexes.
    """
    count = b.onnx.Shape(values, start=1)
    if limit >= 0:
        count = b.onnx.Min([count, ints(b, limit)])
    best, columns = b.onnx.TopK(values, count, axis=1)
    found = b.onnx.NonZero(b.onnx.Greater(best, scalar(b, -math.inf)))
    return b.onnx.Transpose(found, perm=[1, 0]), best, columns


def flatten_maps(b: PlainBuilder, maps: Sequence[Value], cells: list[int], each: int) -> Value:
    """Maps [N,A*each,h,w] of all levels as f32[N,T,each]."""
    if len(set(cells)) == 1:
        # The channels move behind the positions once for all levels.
        flat = [b.onnx.Reshape(m, ints(b, 0, cells[0] * each, -1)) for m in maps]
        return b.onnx.Reshape(b.onnx.Transpose(concat(b, flat, 2), perm=[0, 2, 1]), ints(b, 0, -1, each))
    moved = [b.onnx.Reshape(b.onnx.Transpose(m, perm=[0, 2, 3, 1]), ints(b, 0, -1, each)) for m in maps]
    return concat(b, moved, 1)


def concat(b: PlainBuilder, parts: Sequence[Value], axis: int) -> Value:
    """The parts side by side; a single one as it is."""
    return parts[0] if len(parts) == 1 else b.onnx.Concat(list(parts), axis=axis)


def best_of_kept(b: PlainBuilder, kept: Value, scores: Value, limit: int) -> tuple[Value, Value, Value]:
    """The `limit` best of the candidates that NonMaxSuppression kept, by image. What `best_per_row` returns.

    kept i64[S,3] names image, class and candidate, each candidate once; scores f32[N,K] are those of all.
    """
    places = b.onnx.Gather(kept, ints(b, 0, 2), axis=1)
    nothing = b.onnx.ConstantOfShape(b.onnx.Shape(scores), value=(F32, -math.inf))
    survivors = b.onnx.ScatterND(nothing, places, b.onnx.GatherND(scores, places))
    return best_per_row(b, survivors, limit)


def column(b: PlainBuilder, table: Value, index: int) -> Value:
    """One column of i64[R,C] as i64[R]."""
    return b.onnx.Gather(table, b.constant(index, I64), axis=1)


def scan(b: PlainBuilder, body: Graph, states: list[Value], rows: list[Value]) -> tuple[Value, ...]:
    """Run the body on each row in turn: the last states, and what the steps gave, stacked."""
    return b.onnx.Scan(
        [*states, *rows], body=body_text(body), num_scan_inputs=len(rows), outputs=len(body.outputs)
    )
