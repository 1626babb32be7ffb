"""Tensors that share their data with others: what a change of one does to the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch

from detc.ir import Builder, Node, UnsupportedError, Value, torch_parts
from detc.ir.aten import overload_name
from detc.ir.symbolic import meta, on_meta

_SAME = ("alias", "detach", "contiguous", "to", "view_as", "expand_as")
_SHAPES = ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze")
_SWAPS = ("transpose", "swapaxes", "swapdims", "t", "numpy_T", "mT", "matrix_H", "adjoint")
_COPIES_AT_NEED = ("reshape", "reshape_as", "flatten", "ravel", "contiguous", "to", "type_as")
"""Operators whose result shares their operand's data or not: its strides decide."""
_ROW_BY_ROW = ("linear", "matmul", "bmm", "layer_norm")
"""Operators whose result lies in memory row by row, however their operands do."""

_clock = count(1)


class Cell:
    """The data behind a traced tensor: a value of its own, or a part of another cell's that follows it.

    Attributes:
        value: what it was when it was last read or written.
        call: what made it, None of an input or a weight.
        is_input: whether it is what the traced function was called with.
        changed: when it was last written, itself or in part.
        seen: when `value` was right.
    """

    __slots__ = ("_strided", "call", "changed", "is_input", "seen", "value")

    def __init__(
        self,
        value: Value,
        call: Call | None = None,
        *,
        is_input: bool = False,
        data: torch.Tensor | None = None,
    ) -> None:
        """`data` is a real tensor, whose strides are those of the cell."""
        self.value = value
        self.call = call
        self.is_input = is_input
        self.changed = 0
        self.seen = next(_clock)
        self._strided: torch.Tensor | None = None
        if data is not None:
            self._strided = torch.empty_strided(data.shape, data.stride(), dtype=data.dtype, device="meta")

    @property
    def root(self) -> Cell:
        """What it is a part of in the end."""
        *_, root = [self, *self._wholes()]
        return root

    def read(self, build: Builder) -> Value:
        """What it is now."""
        if self._may_be_outdated() and any(whole.changed > self.seen for whole in self._wholes()):
            assert self.call is not None
            self.call.repeat(build)
        return self.value

    def write(self, build: Builder, value: Value) -> None:
        """It is this from now on, and so is the part of what it is a view of."""
        whole = next(self._wholes(), None)
        if whole is not None:
            assert self.call is not None
            whole.write(build, self.call.with_part(build, self, value))
        self.value, self.changed = value, next(_clock)
        self.seen = self.changed

    def _wholes(self) -> Iterator[Cell]:
        """What it is a part of, and what that is a part of, ..."""
        cell = self
        while cell.call is not None and cell.call.shares_data:
            cell = cell.call.operand
            yield cell

    def _may_be_outdated(self) -> bool:
        cell = self
        while cell.call is not None and cell.call.may_share:
            cell = cell.call.operand
            if cell.changed > self.seen:
                return True
        return False

    @property
    def strided(self) -> torch.Tensor:
        """A tensor without data with the strides, and the sharing of storage, that torch gives it."""
        waiting = [self]
        while waiting:
            cell = waiting[-1]
            needed = [] if cell._strided is not None or cell.call is None else cell.call.cells_needed()
            if needed:
                waiting += needed
                continue
            waiting.pop()
            if cell._strided is None and cell.call is not None:
                for made, result in zip(cell.call.results, cell.call.on_meta(), strict=True):
                    made._strided = result
            elif cell._strided is None:
                cell._strided = meta(cell.value.tensor_type)
        assert self._strided is not None
        return self._strided


@dataclass(eq=False)
class Call:
    """An operator that was called, which made cells from cells.

    Attributes:
        args: with cells for tensors.
        kwargs: likewise.
        may_share: whether the results can be views of the first argument.
    """

    overload: torch_parts.OpOverload
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    node: Node
    may_share: bool
    results: list[Cell] = field(init=False)

    def __post_init__(self) -> None:
        self.results = [Cell(result, self) for result in self.node.results]

    @property
    def operand(self) -> Cell:
        """What the results can be views of."""
        cell: Cell = self.args[0]
        return cell

    @property
    def shares_data(self) -> bool:
        """Whether the results are views."""
        if not self.may_share or self._name not in _COPIES_AT_NEED:
            return self.may_share
        mine, others = self.operand.strided, self.results[0].strided
        return torch_parts.storage_key(mine) == torch_parts.storage_key(others)

    @property
    def _name(self) -> str:
        return overload_name(self.overload).split(".")[1]

    def repeat(self, build: Builder) -> None:
        """Bring those views up to date whose whole has changed since."""
        operand = self.operand.read(build)
        made = build.node(self.node.op, [operand, *self.node.operands[1:]], self.node.attributes)
        for cell, result in zip(self.results, made.results, strict=True):
            if cell.seen < self.operand.root.changed:
                cell.value, cell.seen = result, next(_clock)

    def with_part(self, build: Builder, changed: Cell, value: Value) -> Value:
        """The whole, after one of its views has become the value."""
        whole = self.operand.read(build)
        now = [value if cell is changed else cell.read(build) for cell in self.results]
        index = next(i for i, cell in enumerate(self.results) if cell is changed)
        made = put_back(build, self.overload, self.node.attributes, whole, now, index, value)
        if made is None:
            raise UnsupportedError(
                f"{build.source or 'the model'}: changes in place what {overload_name(self.overload)} gave, a view of "
                "another tensor. Change that tensor itself, or a copy"
            )
        return made

    def cells_needed(self) -> list[Cell]:
        """The arguments whose strides are still to be found, before those of the results can be."""
        if self._is_row_by_row:
            return []
        leaves = torch_parts.tree_leaves([self.args, self.kwargs])
        return [leaf for leaf in leaves if isinstance(leaf, Cell) and leaf._strided is None]

    @property
    def _is_row_by_row(self) -> bool:
        """Whether the results lie in memory row by row, however the operands do."""
        graph = self.node.graph
        sized_by_data = graph is not None and any(
            self.node in graph.sizes.makers[name]
            for result in self.node.results
            for name in result.type.size_names
        )
        return sized_by_data or self._name in _ROW_BY_ROW

    def on_meta(self) -> Sequence[torch.Tensor]:
        """What torch gives for arguments that have strides only."""
        if self._is_row_by_row:
            return [meta(cell.value.tensor_type) for cell in self.results]
        leaves, tree = torch_parts.tree_flatten([list(self.args), dict(self.kwargs)])
        given = [leaf.strided if isinstance(leaf, Cell) else leaf for leaf in leaves]
        return torch_parts.tree_leaves(on_meta(self.overload, *torch_parts.tree_unflatten(given, tree)))


def may_share(overload: torch_parts.OpOverload) -> bool:
    """Whether the operator's result can be a view of its first argument."""
    arguments = torch_parts.schema(overload).arguments
    aliased = bool(arguments) and arguments[0].alias_info is not None
    return aliased or overload_name(overload).startswith(("aten.reshape", "aten.to."))


def put_back(
    build: Builder,
    overload: torch_parts.OpOverload,
    attributes: Mapping[str, Any],
    whole: Value,
    parts: Sequence[Value],
    index: int,
    part: Value,
) -> Value | None:
    """The whole tensor, after `part` has come in the place of its view number `index`; None for an unknown view.

    `overload(whole, **attributes)` made the view, or the several `parts`.
    """
    name = overload_name(overload).split(".")[1]
    dim = attributes.get("dim", 0)
    if name in _SAME or (name == "slice" and part.type == whole.type and attributes.get("step", 1) == 1):
        return part if part.type == whole.type else None
    made: Value | None = None
    if name == "slice":
        made = build.aten.slice_scatter(whole, part, **attributes)
    elif name == "narrow":
        start, length = attributes["start"], attributes["length"]
        made = build.aten.slice_scatter(whole, part, dim=dim, start=start, end=start + length)
    elif name == "select":
        made = build.aten.select_scatter(whole, part, dim=dim, index=attributes["index"])
    elif name == "unbind":
        made = build.aten.select_scatter(whole, part, dim=dim, index=index)
    elif name in ("split", "split_with_sizes", "chunk"):
        sizes = [p.tensor_type.shape[dim] for p in parts]
        start = sum(sizes[:index])
        made = build.aten.slice_scatter(whole, part, dim=dim, start=start, end=start + sizes[index])
    elif name in _SHAPES:
        made = build.aten.reshape(part, shape=whole.tensor_type.shape)
    elif name == "diagonal":
        made = build.aten.diagonal_scatter(whole, part, **attributes)
    elif name in ("movedim", "moveaxis"):
        back = {"source": attributes["destination"], "destination": attributes["source"]}
        made = build.call(overload_name(overload), part, **back)
    elif name == "permute":
        order = [d % len(attributes["dims"]) for d in attributes["dims"]]
        made = build.aten.permute(part, dims=[order.index(d) for d in range(len(order))])
    elif name in _SWAPS:
        rank = part.tensor_type.rank
        first, second = attributes.get("dim0", -2), attributes.get("dim1", -1)
        made = part if rank < 2 else build.aten.transpose.int(part, dim0=first, dim1=second)
    return made
