"""What lowering rules build with: `caffe2.*` nodes before the node being lowered, and what earlier rules noted."""

from __future__ import annotations

from typing import Any

import torch

from detc.ir import Builder, Dim, Graph, Node, TensorType, Value
from detc.ir.builder import Dialect, Several
from detc.passes.core.base import NoMatch
from detc.passes.rewrite.conversion import Sizes

FLOAT, INT32, INT64 = 1, 2, 10
"""Of TensorProto.DataType."""
DATA_TYPES = {torch.float32: FLOAT, torch.int32: INT32, torch.int64: INT64, torch.bool: 5, torch.float64: 13}


class _Caffe2(Dialect):
    BBoxTransform: Several
    BoxWithNMSLimit: Several
    CollectAndDistributeFpnRpnProposals: Several
    Concat: Several
    DistributeFpnProposals: Several
    GenerateProposals: Several
    GenerateProposalsCPP: Several
    Reshape: Several
    Split: Several
    TopK: Several


class Caffe2Builder(Builder):
    """A builder of `caffe2.*` nodes.

    Attributes:
        lowered: the node being lowered.
    """

    caffe2: _Caffe2

    def __init__(self, graph: Graph, node: Node, sizes: Sizes, *, created_by: str) -> None:
        super().__init__(graph, before=node, source=node.source, created_by=created_by)
        self.lowered = node
        self._sizes = sizes
        self._notes = sizes.computed

    def note(self, what: str, *values: Value, means: Value) -> None:
        """Tell later rules that `values` together are one Caffe2 blob: boxes and batch index the rois."""
        self._notes[(what, *values)] = means

    def noted(self, what: str, *values: Value) -> Value | None:
        """What an earlier rule noted for these values."""
        return self._notes.get((what, *values))

    @property
    def result(self) -> TensorType:
        """The type of the lowered node's first result."""
        return self.lowered.results[0].tensor_type

    def unused(self, index: int, why: str) -> None:
        """Refuse when the lowered node's result at `index` is used."""
        if self.lowered.results[index].is_used:
            raise NoMatch(why)

    def cast(self, value: Value, dtype: torch.dtype) -> Value:
        """The value with another element type."""
        if value.dtype == dtype:
            return value
        if dtype not in DATA_TYPES:
            raise NoMatch(f"tensors of {dtype} are not known to Caffe2's operators")
        return self.caffe2.Cast(value, to=DATA_TYPES[dtype])

    def concat(self, values: list[Value], axis: int) -> Value:
        """The values joined; one alone as it is."""
        if len(values) == 1:
            return values[0]
        made = self.caffe2.Concat(values, axis=axis)
        return made[0]

    def columns(self, rows: Value, first: int, end: int) -> Value:
        """[n, end - first] of [n, m]."""
        return self.caffe2.Slice(rows, starts=(0, first), ends=(-1, end))

    def column(self, rows: Value, position: int = 0) -> Value:
        """[n] of [n, m]."""
        return self.caffe2.Squeeze(self.columns(rows, position, position + 1), dims=(1,))

    def row_numbers(self, like: Value) -> Value:
        """i32[n]: 0 to n - 1, for a value [n] or [n, m]."""
        ones = self.caffe2.ConstantFill(like if like.rank == 1 else self.column(like), value=1, dtype=INT32)
        # A segment for each row.
        numbers = self.caffe2.LengthsToSegmentIds(ones)
        return sized(numbers, like.shape[0])

    def zeros(self, rows: Dim) -> Value:
        """f32[n] of zeros. Refuses when no value with so many rows is at hand."""
        found = self._sizes.find(rows)
        if found is None or found[1] != 0 or found[0].rank > 2:
            raise NoMatch(f"nothing that is known has {rows} rows")
        like = found[0] if found[0].rank == 1 else self.column(found[0])
        return self.caffe2.ConstantFill(like, value=0.0)

    def number(self, value: Any, dtype: torch.dtype) -> Value:
        """A number as a tensor [1]."""
        if isinstance(value, Value):
            return value
        if not isinstance(value, bool | int | float):
            raise NoMatch("a size that is known only at run time")
        return self.constant(torch.tensor([value], dtype=dtype))


def sized(value: Value, rows: Dim) -> Value:
    """The value with so many rows, in the IR's own words for that number."""
    value.type = value.tensor_type.with_shape(rows, *value.shape[1:])
    return value


def whole(dim: Dim, what: str) -> int:
    """A size that must be a number. Refuses otherwise."""
    if not isinstance(dim, int):
        raise NoMatch(f"{what} is not known: {dim}")
    return dim
