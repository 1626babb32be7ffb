"""Building nodes: `build.det.normalize(data, im_info, mean=...)` infers the types and places the node."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from .dims import Dim, SymExpr, symbol
from .errors import IRError
from .graph import Graph
from .lazy import torch
from .node import Attribute, Constant, Node, Operand, Value, map_operands, substitute_attribute
from .ops import FRESH_PREFIX, Op, OperandType, get_op
from .types import Type, substitute_type, type_symbols

_NUMBER = re.compile(r"_\d+$")
"""What makes a new size's name unlike those before."""


class Builder:
    """Makes nodes in a graph, at the end or before a node, with a source and a creator recorded on each.

    `build.<dialect>.<op>(operands..., attribute=...)` returns the node's value, or a tuple when there are
    several. Python lists become tuples, None leaves an optional operand out.
    """

    def __init__(
        self, graph: Graph, *, before: Node | None = None, source: str = "", created_by: str = ""
    ) -> None:
        self.graph = graph
        self.before = before
        self.source = source
        self.created_by = created_by
        self.made: list[Node] = []
        """The nodes made so far."""

    aten: _Aten
    det: _Det
    torchvision: _Torchvision

    def __getattr__(self, dialect: str) -> Dialect:
        if dialect.startswith("_"):
            raise AttributeError(dialect)
        return Dialect(self, dialect)

    @contextmanager
    def at(self, source: str) -> Iterator[Builder]:
        """Within the block, new nodes come from this module path."""
        outer, self.source = self.source, source
        try:
            yield self
        finally:
            self.source = outer

    def constant(self, data: Any, dtype: torch.dtype | None = None) -> Constant:
        """A constant from a tensor, a number or (nested) lists of numbers."""
        tensor = data if isinstance(data, torch.Tensor) else torch.tensor(data, dtype=dtype)
        return self.graph.constant(tensor)

    def call(self, op: Op | str, /, *operands: Any, **attributes: Any) -> Value:
        """Make a node. Returns its value, or a tuple of its values when there are several (see `Dialect`).

        Errors:
            IRError: the operands or attributes do not fit the op.
        """
        node = self.node(get_op(op) if isinstance(op, str) else op, operands, attributes)
        several: Any = tuple(node.results)
        return several if len(node.results) != 1 else node.results[0]

    def node(
        self,
        op: Op,
        operands: Sequence[Any],
        attributes: Mapping[str, Any],
        types: Sequence[Type] | None = None,
    ) -> Node:
        """Make a node and return it. With `types`, they are taken as they are and nothing is inferred."""
        structured = [_operand(o) for o in operands]
        while structured and structured[-1] is None:
            structured.pop()
        frozen = {name: freeze(value) for name, value in attributes.items()}
        problem = op.check(len(structured), frozen)
        if problem:
            raise IRError(f"{op.name}: {problem}")
        if types is None:
            types = self._name_fresh(infer_types(op, structured, frozen))
        node = Node(op, structured, frozen, types, source=self.source, created_by=self.created_by)
        self.made.append(node)
        if self.before is None:
            return self.graph.append(node)
        return self.graph.insert_before(self.before, node)

    def inline(self, graph: Graph, operands: Sequence[Value], sizes: dict[str, Dim]) -> list[Value]:
        """Put copies of another graph's nodes in. Returns what its outputs are here.

        `operands` stand for its inputs, and `sizes` says what the sizes of these are here; those that its nodes bring
        in get new names, and are added. The nodes keep the module path they come from, if they have one.
        """
        values: dict[Value, Value] = dict(zip(graph.inputs, operands, strict=True))

        def own(value: Value) -> Value:
            if value not in values and isinstance(value, Constant):
                values[value] = self._own_constant(value)
            return values[value]

        # Most sizes are called the same here.
        others = {name: dim for name, dim in sizes.items() if str(dim) != name}
        for node in graph:
            for type in (r.type for r in node.results if not r.type.size_names <= sizes.keys()):
                for s in (s for s in type_symbols(type) if s.name not in sizes):
                    name = self.graph.fresh_symbol(_NUMBER.sub("", s.name))
                    sizes[s.name] = others[s.name] = symbol(name, s.multiple)
            attributes = {name: substitute_attribute(a, others) for name, a in node.attributes.items()}
            types = [substitute_type(result.type, others) for result in node.results]
            with self.at(node.source or self.source):
                made = self.node(node.op, map_operands(node.operands, own), attributes, types)
            values.update(zip(node.results, made.results, strict=True))
        return [own(value) for value in graph.outputs.values()]

    def _own_constant(self, constant: Constant) -> Constant:
        """The constant of another graph as one of this."""
        name = constant.name
        if not name:
            return Constant(constant.data)
        if self.graph.weights.get(name, constant).data is constant.data:
            return self.graph.add_weight(name, constant.data)
        return self.graph.constant(constant.data, name)

    def _name_fresh(self, types: Sequence[Type]) -> Sequence[Type]:
        stems = {s.name for t in types for s in type_symbols(t) if s.name.startswith(FRESH_PREFIX)}
        if not stems:
            return types
        names: dict[str, Dim] = {
            stem: symbol(self.graph.fresh_symbol(stem.removeprefix(FRESH_PREFIX))) for stem in sorted(stems)
        }
        return [substitute_type(t, names) for t in types]


class Dialect:
    """`build.det`: its attributes are the dialect's ops.

    To a type checker they return one value. The ops that return several are declared by subclasses, as `Several`.
    """

    def __init__(self, builder: Builder, name: str) -> None:
        self._builder = builder
        self._name = name

    def __getattr__(self, op: str) -> _Call:
        if op.startswith("__"):
            raise AttributeError(op)
        return _Call(self._builder, f"{self._name}.{op}")


class _Call:
    """`build.aten.add` may be called, and `build.aten.add.Tensor` too."""

    def __init__(self, builder: Builder, name: str) -> None:
        self._builder = builder
        self._name = name

    def __getattr__(self, overload: str) -> _Call:
        if overload.startswith("__"):
            raise AttributeError(overload)
        return _Call(self._builder, f"{self._name}.{overload}")

    def __call__(self, /, *operands: Any, **attributes: Any) -> Value:
        return self._builder.call(self._name, *operands, **attributes)


class Several(Protocol):
    """An op that returns several values."""

    def __call__(self, /, *operands: Any, **attributes: Any) -> tuple[Value, ...]: ...


class _Sort(_Call):
    stable: Several


class _Aten(Dialect):
    sort: _Sort
    split_with_sizes: Several
    topk: Several


class _Det(Dialect):
    box_inference: Several
    dense_inference: Several
    dense_proposals: Several
    grid_proposals: Several
    panoptic_combine: Several
    rpn_proposals: Several
    uncertain_points: Several


class _Torchvision(Dialect):
    roi_pool: Several


def _operand(operand: Any) -> Operand:
    if operand is None or isinstance(operand, Value):
        return operand
    if isinstance(operand, list | tuple):
        return tuple(operand)
    raise IRError(f"an operand must be a value, a list of values or None, not {type(operand).__name__}")


def freeze(value: Any) -> Attribute:
    """The value as an attribute: lists become tuples. Raises IRError for what no attribute can hold."""
    if value is None or isinstance(value, bool | int | float | str | SymExpr | torch.dtype):
        return value
    if isinstance(value, list | tuple):
        return tuple(freeze(v) for v in value)
    raise IRError(f"an attribute cannot hold {type(value).__name__}")


def operand_types(operands: Sequence[Operand]) -> list[OperandType]:
    """The operands' types, structure kept."""
    return [
        o.type
        if isinstance(o, Value)
        else None
        if o is None
        else tuple(None if v is None else v.type for v in o)
        for o in operands
    ]


def infer_types(op: Op, operands: Sequence[Operand], attributes: Mapping[str, Attribute]) -> tuple[Type, ...]:
    """The results' types by the op's inference rule; data-dependent sizes are still `Fresh`.

    Errors:
        IRError: the rule does not take these types.
    """
    if op.infer_from is not None:
        return tuple(op.infer_from(operands, attributes))
    inferred = op.infer(*operand_types(operands), **attributes)
    if isinstance(inferred, Sequence):
        return tuple(inferred)
    return (inferred,)
