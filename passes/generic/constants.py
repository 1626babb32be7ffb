"""Computing ahead what depends on constants only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from typing_extensions import override

from detc.ir import Attribute, Constant, Graph, Node, SymExpr, TensorType
from detc.ir.lazy import torch

from ..core.base import Context, NoMatch, Pass

if TYPE_CHECKING:
    from torch import Tensor

_UNSET = frozenset({"aten.empty.memory_format", "aten.empty_like", "aten.new_empty", "aten.empty_strided"})
"""Ops whose result is whatever was in memory."""


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replace nodes that depend on constants only by their results.

    Before:
        %0: f32[8] = aten.mul.Tensor(@weight:f32[8], @scale:f32[8])
        %1: f32[N,8] = aten.add.Tensor(%x, %0)
    After:
        %1: f32[N,8] = aten.add.Tensor(%x, @mul:f32[8])

    A node stays when it has effects, a symbolic size among its attributes or in its type, a weight without
    data as operand, or when its result takes `max_growth` bytes more than its operands.

    Attributes:
        max_growth: in bytes.
    """

    max_growth: int = 1 << 16

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        changed = False
        count = context.count("FoldConstants")
        for node in graph:
            if not all(isinstance(value, Constant) for value in node.operand_values):
                continue
            count.tried += 1
            try:
                results = self._compute(node)
            except NoMatch as refusal:
                count.refused[refusal.reason] += 1
                continue
            with context.rewrite("FoldConstants"):
                for value, result in zip(node.results, results, strict=True):
                    stem = value.name or f"{node.source}.{node.op.name.split('.')[1]}".lstrip(".")
                    graph.replace_uses(value, graph.constant(result, stem))
                graph.erase(node)
            count.matched += 1
            changed = True
        if changed:
            context.prune_weights(graph)
        return changed

    def _compute(self, node: Node) -> list[Tensor]:
        if node.op.has_effects or node.op.is_random or node.op.name in _UNSET:
            raise NoMatch(f"{node.op.name} is no function of its operands")
        if any(_is_symbolic(value) for value in node.attributes.values()):
            raise NoMatch("an attribute is symbolic")
        size = 0
        for result in node.results:
            if not isinstance(result.type, TensorType):
                raise NoMatch("a result is no tensor")
            if any(isinstance(dim, SymExpr) for dim in result.shape):
                raise NoMatch("a result's size is symbolic")
            size += math.prod(int(str(dim)) for dim in result.shape) * result.dtype.itemsize
        operands = {v for v in node.operand_values if isinstance(v, Constant)}
        if any(v.data.is_meta for v in operands):
            raise NoMatch("a weight has no data")
        if size - sum(v.data.numel() * v.data.element_size() for v in operands) > self.max_growth:
            raise NoMatch("the result is too large")
        return _run(node)


def _run(node: Node) -> list[Tensor]:
    operands = [
        tuple(_data(item) for item in operand) if isinstance(operand, tuple) else _data(operand)
        for operand in node.operands
    ]
    try:
        with torch.no_grad():
            results = node.op.body(*operands, **node.attributes)
    except Exception as error:
        # What fails here fails when the graph runs, and only if it gets there.
        raise NoMatch(f"{node.op.name} failed: {error}") from error
    tensors = list(results) if isinstance(results, tuple | list) else [results]
    for value, tensor in zip(node.results, tensors, strict=True):
        if TensorType.of(tensor) != value.type:
            raise NoMatch(f"{node.op.name} gave {TensorType.of(tensor)}, not {value.type}")
    return tensors


def _data(operand: object) -> Tensor | None:
    return operand.data if isinstance(operand, Constant) else None


def _is_symbolic(attribute: Attribute) -> bool:
    if isinstance(attribute, tuple):
        return any(_is_symbolic(item) for item in attribute)
    return isinstance(attribute, SymExpr)
