"""What lowering rules build with: ONNX nodes, sizes computed at run time, and as few nodes as will do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import lcm
from typing import Any

import torch

from detc.ir import Attribute, Builder, Constant, Dim, Graph, Node, Symbol, SymExpr, TensorType, Value
from detc.ir.builder import Dialect, Several
from detc.ir.dims import Call, Monomial, symbols_of
from detc.passes.core.base import NoMatch
from detc.passes.detection.decompose import written_out
from detc.passes.rewrite.conversion import LoweringRule, Sizes, take_place

INT64_MAX = 2**63 - 1


class _Onnx(Dialect):
    Scan: Several
    Split: Several
    TopK: Several


class PlainBuilder(Builder):
    """A builder of `onnx.*` nodes anywhere, such as in the body of a Scan."""

    onnx: _Onnx


class OnnxBuilder(PlainBuilder):
    """A builder of `onnx.*` nodes that stands before the node being lowered.

    A size is an int or an expression of symbols. Where ONNX wants sizes as a tensor, `size` and `shape` make it from
    what the graph knows at run time; no size of a symbol is ever written into the graph.

    Attributes:
        lowered: the node being lowered.
    """

    def __init__(
        self,
        graph: Graph,
        node: Node,
        sizes: Sizes,
        *,
        created_by: str,
        table: Mapping[str, LoweringRule] | None = None,
    ) -> None:
        super().__init__(graph, before=node, source=node.source, created_by=created_by)
        self.lowered = node
        self._sizes = sizes
        self._table = table or {}

    @property
    def result(self) -> TensorType:
        """The type of the lowered node's first result."""
        return self.lowered.results[0].tensor_type

    def written_out(
        self, function: Callable[..., Any], *operands: Value, **attributes: Attribute
    ) -> list[Value]:
        """As `decompose.written_out`, in ai.onnx operators."""
        first = len(self.made)
        values = written_out(self, function, *operands, **attributes)
        traced, self.made[first:] = self.made[first:], []
        lowered: dict[Value, Value] = {}
        for node in traced:
            b = OnnxBuilder(self.graph, node, self._sizes, created_by=self.created_by)
            made = self._table[node.op.name](b, node)
            results = [made] if isinstance(made, Value) else list(made)
            lowered.update(zip(node.results, results, strict=True))
            take_place(self.graph, node, results)
            self.made += b.made
            for result in results:
                self._sizes.learn(result)
        return [lowered.get(value, value) for value in values]

    # Constants

    def ints(self, values: Sequence[int]) -> Constant:
        """An i64 vector."""
        return self.constant(torch.tensor(list(values), dtype=torch.int64))

    def scalar(self, value: float, dtype: torch.dtype) -> Constant:
        """A number as a tensor of rank 0."""
        return self.constant(torch.tensor(value, dtype=dtype))

    def number(self, value: Any, dtype: torch.dtype) -> Value:
        """A number or a size as a tensor of rank 0."""
        if isinstance(value, SymExpr):
            return self.cast(self.size_scalar(value), dtype)
        return self.scalar(value, dtype)

    # Sizes at run time

    def size(self, dim: Dim) -> Value:
        """A size as i64[1].

        Raises NoMatch when it depends on a symbol that no value has.
        """
        if isinstance(dim, int):
            return self.ints([dim])
        return self._once(("size", dim), lambda: self._compute(dim))

    def size_scalar(self, dim: Dim) -> Value:
        """A size as i64[]."""
        if isinstance(dim, int):
            return self.scalar(dim, torch.int64)
        return self._once(("scalar", dim), lambda: self.onnx.Squeeze(self.size(dim), self.ints([0])))

    def shape(self, dims: Sequence[Dim], like: Value | None = None) -> Value:
        """Sizes as i64[rank]. They are read off `like` where it has them."""
        if all(isinstance(d, int) for d in dims):
            return self.ints([d for d in dims if isinstance(d, int)])
        return self._once(("shape", tuple(dims), like), lambda: self._concat_sizes(dims, like))

    def _once(self, key: object, make: Callable[[], Value]) -> Value:
        known = self._sizes.computed.get(key)
        if known is None:
            known = self._sizes.computed[key] = make()
        return known

    def _concat_sizes(self, dims: Sequence[Dim], like: Value | None) -> Value:
        parts: list[Value | list[int]] = []
        position = 0
        while position < len(dims):
            dim = dims[position]
            if isinstance(dim, int):
                if parts and isinstance(parts[-1], list):
                    parts[-1].append(dim)
                else:
                    parts.append([dim])
                position += 1
                continue
            place = self._place(dim, like)
            if place is None:
                parts.append(self.size(dim))
                position += 1
                continue
            # One Shape node reads neighbouring sizes together, plain numbers on both sides included.
            value, start = place
            end, known = start, value.shape
            while position < len(dims) and end < len(known) and known[end] == dims[position]:
                end, position = end + 1, position + 1
            before = parts[-1] if parts else None
            while isinstance(before, list) and before and start and known[start - 1] == before[-1]:
                before.pop()
                start -= 1
            if before == []:
                parts.pop()
            parts.append(self._read(value, start, end))
        values = [self.ints(part) if isinstance(part, list) else part for part in parts]
        return values[0] if len(values) == 1 else self.onnx.Concat(values, axis=0)

    def _place(self, dim: Dim, like: Value | None) -> tuple[Value, int] | None:
        if like is not None and dim in like.shape:
            return like, like.shape.index(dim)
        return self._sizes.find(dim)

    def _read(self, value: Value, start: int, end: int) -> Value:
        def make() -> Value:
            # Absent bounds mean the whole shape.
            bounds = {"start": start} if start else {}
            if end != value.rank:
                bounds["end"] = end
            return self.onnx.Shape(value, **bounds)

        return self._once(("read", value, start, end), make)

    def _compute(self, dim: SymExpr) -> Value:
        place = self._sizes.find(dim)
        if place is not None:
            return self._read(place[0], place[1], place[1] + 1)
        if dim.as_symbol is not None:
            raise NoMatch(f"the size {dim} cannot be read off any value here")
        denominator = lcm(*(coefficient.denominator for _, coefficient in dim.terms))
        total: Value | None = None
        constant = 0
        for monomial, coefficient in dim.terms:
            factor = int(coefficient * denominator)
            if not monomial:
                constant = factor
                continue
            term = self._monomial(monomial, factor)
            total = term if total is None else self.onnx.Add(total, term)
        assert total is not None
        if constant:
            total = self.onnx.Add(total, self.ints([constant]))
        return total if denominator == 1 else self.onnx.Div(total, self.ints([denominator]))

    def _monomial(self, monomial: Monomial, factor: int) -> Value:
        place = self._sizes.find(SymExpr(((monomial, Fraction(1)),))) if len(monomial) > 1 else None
        product = None if place is None else self._read(place[0], place[1], place[1] + 1)
        for atom, power in monomial if product is None else ():
            value = self._atom(atom)
            for _ in range(power):
                product = value if product is None else self.onnx.Mul(product, value)
        assert product is not None
        return product if factor == 1 else self.onnx.Mul(product, self.ints([factor]))

    def _atom(self, atom: Symbol | Call) -> Value:
        if isinstance(atom, Symbol):
            return self.size(SymExpr(((((atom, 1),), Fraction(1)),)))
        args = [self.size(arg) for arg in atom.args]
        match atom.function:
            case "floor":
                # ONNX divides integers towards zero; a size's numerator is never negative.
                return self.onnx.Div(*args)
            case "mod":
                return self.onnx.Mod(*args)
        return self.onnx.Min(args) if atom.function == "min" else self.onnx.Max(args)

    # Small steps that are often nothing at all

    def cast(self, value: Value, dtype: torch.dtype) -> Value:
        """The value with another element type."""
        if value.dtype == dtype:
            return value
        if isinstance(value, Constant) and value.is_literal:
            return self.constant(value.data.to(dtype))
        return self.onnx.Cast(value, to=dtype)

    def transpose(self, value: Value, perm: Sequence[int]) -> Value:
        """The value with its axes in another order. A weight becomes another view of its storage."""
        if list(perm) == list(range(value.rank)):
            return value
        if isinstance(value, Constant):
            turned = value.data.permute(*perm)
            if value.is_literal:
                return self.constant(turned.contiguous())
            suffix = "transposed" if list(perm) == [1, 0] else "permuted_" + "".join(map(str, perm))
            return self._view(value, suffix, turned)
        return self.onnx.Transpose(value, perm=perm)

    def _view(self, weight: Constant, suffix: str, data: torch.Tensor) -> Constant:
        name = f"{weight.name}_{suffix}"
        known = self.graph.weights.get(name)
        if (
            known is not None
            and known.data.data_ptr() == data.data_ptr()
            and known.type == TensorType.of(data)
        ):
            return known
        return self.graph.add_weight(self.graph.fresh_weight_name(name), data)

    def unsqueeze(self, value: Value, axes: Sequence[int]) -> Value:
        """The value with axes of size 1 added, counted in the result."""
        if not axes:
            return value
        return self.onnx.Unsqueeze(value, self.ints(axes))

    def expand(self, value: Value, dims: Sequence[Dim]) -> Value:
        """The value broadcast to `dims`."""
        missing = len(dims) - value.rank
        own: list[Dim] = [*([1] * missing), *value.shape]
        if list(dims) == list(value.shape):
            return value
        # ONNX broadcasts both ways: a 1 keeps the value's own size.
        wanted: list[Dim] = [1 if mine == dim else dim for mine, dim in zip(own, dims, strict=True)]
        return self.onnx.Expand(value, self.shape(wanted))

    def reshape(self, value: Value, dims: Sequence[Dim]) -> Value:
        """The value's elements, in order, in another shape."""
        if list(dims) == list(value.shape):
            return value
        if isinstance(value, Constant) and not value.is_literal and value.data.is_contiguous():
            static = [d for d in dims if isinstance(d, int)]
            return self._view(value, "x".join(map(str, static)), value.data.view(static))
        if 0 in dims:
            return self.onnx.Reshape(value, self.shape(dims), allowzero=1)
        known = value.shape
        # 0 copies the size at the same position. -1 stands for one that is left, but not where an empty tensor
        # would leave it open.
        entries: list[Dim] = [
            0 if not isinstance(d, int) and i < len(known) and known[i] == d else d
            for i, d in enumerate(dims)
        ]
        left = [i for i, entry in enumerate(entries) if not isinstance(entry, int)]
        if left:
            # What would be hardest to compute is what -1 should stand for.
            hidden = next((i for i in left if self._place(dims[i], value) is None), left[-1])
            if all(i == hidden or self._is_nonempty(d) for i, d in enumerate(dims)):
                entries[hidden] = -1
            elif len(dims) == 2 and known and known[0] == dims[0]:
                return self.onnx.Flatten(value, axis=1)
        return self.onnx.Reshape(value, self.shape(entries, value))

    def _is_nonempty(self, dim: Dim) -> bool:
        """Whether the size is at least 1: the inputs' sizes are, those that depend on data need not be."""
        if isinstance(dim, int):
            return dim > 0
        given = {s.name for v in self.graph.inputs for d in v.shape for s in symbols_of(d)}
        return all(s.name in given for s in symbols_of(dim))
