"""Lowering to a target dialect by a table: op name -> the rule that replaces it.

A backend declares its table as data; `Conversion` walks the graph once, in order, and applies it. An op
without a rule, or whose rule refuses, is reported with its module path; all of them at once.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, TypeAlias

from typing_extensions import override

from detc.ir import (
    Builder,
    Dim,
    Graph,
    IRError,
    Node,
    TensorType,
    UnsupportedError,
    Value,
)

from ..core.base import Context, NoMatch, Pass

LoweringRule: TypeAlias = Callable[..., Value | Sequence[Value]]
"""rule(builder, node) -> the values that replace the node's results. Raises NoMatch(why) to refuse."""


class Sizes:
    """Where each symbolic size can be read off at run time: a dimension -> (value, axis) that has it.

    Attributes:
        computed: values that a builder made to hold sizes, by a key of its own, for later nodes to use again.
    """

    def __init__(self) -> None:
        self._known: dict[Dim, tuple[Value, int]] = {}
        self.computed: dict[object, Value] = {}

    def learn(self, value: Value) -> None:
        """Note the sizes of a value that is computed by now."""
        if isinstance(value.type, TensorType):
            for axis, dim in enumerate(value.type.shape):
                if not isinstance(dim, int):
                    self._known.setdefault(dim, (value, axis))

    def find(self, dim: Dim) -> tuple[Value, int] | None:
        """A value with that size and the axis, None if no value so far has it."""
        return self._known.get(dim)

    def replace(self, old: Value, new: Value) -> None:
        """Read sizes off `new` where they were read off `old`."""
        for dim, (value, axis) in list(self._known.items()):
            if value is old:
                self._known[dim] = (new, axis)


class Conversion(Pass):
    """Base of the lowering passes. A subclass gives the table, the level afterwards and the dialect."""

    target: ClassVar[str]
    """What the target is called; its dialect, where it has one of its own."""
    level: ClassVar[str]
    """The graph's level afterwards."""

    @property
    @abstractmethod
    def table(self) -> Mapping[str, LoweringRule]:
        """Op name -> rule."""

    @property
    @override
    def rules(self) -> Mapping[str, str]:
        return {name: f"{name}  ->  {self.target}.*" for name in sorted(self.table)}

    def is_direct(self, node: Node) -> bool:
        """Whether the target has the node's op itself: it stays as it is then."""
        return node.op.dialect == self.target

    def make_builder(self, graph: Graph, node: Node, sizes: Sizes, context: Context) -> Builder:
        """The builder that rules get. Override it to give them more."""
        return context.builder(graph, node)

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        table = self.table
        sizes = Sizes()
        for value in graph.inputs:
            sizes.learn(value)
        refused: list[str] = []
        changed = False
        for node in graph:
            if self.is_direct(node):
                for result in node.results:
                    sizes.learn(result)
                continue
            with context.rewrite(node.op.name):
                graph.level = "mixed"
                start = time.perf_counter()
                problem = self._convert(graph, node, table, sizes, context)
                context.count(node.op.name).seconds += time.perf_counter() - start
            changed = True
            if problem:
                refused.append(f"{node.op.name} at {node.source or '(no module path)'}: {problem}")
        if refused:
            lines = "\n  ".join(refused)
            raise UnsupportedError(f"{len(refused)} ops have no lowering to {self.target}:\n  {lines}")
        if graph.level != self.level:
            with context.rewrite(f"the level {self.level}"):
                graph.level = self.level
            changed = True
        return context.prune_weights(graph) or changed

    def _convert(
        self, graph: Graph, node: Node, table: Mapping[str, LoweringRule], sizes: Sizes, context: Context
    ) -> str | None:
        rule = table.get(node.op.name)
        count = context.count(node.op.name)
        count.tried += 1
        if rule is None:
            for result in node.results:
                sizes.learn(result)
            return "; ".join(["no rule for this op", *context.refusals(node.op.name)])
        try:
            builder = self.make_builder(graph, node, sizes, context)
            made = rule(builder, node)
        except NoMatch as refusal:
            count.refused[refusal.reason] += 1
            return refusal.reason
        count.matched += 1
        values = [made] if isinstance(made, Value) else list(made)
        if len(values) != len(node.results):
            raise IRError(
                f"the rule for {node.op.name} gave {len(values)} values for {len(node.results)} results"
            )
        take_place(graph, node, values)
        for value in values:
            sizes.learn(value)
        return None


def take_place(graph: Graph, node: Node, values: Sequence[Value]) -> None:
    """Let `values` take the place of a node's results, and their types with them."""
    for old, new in zip(node.results, values, strict=True):
        _take_over(graph, old, new)
    graph.erase(node)


def _take_over(graph: Graph, old: Value, new: Value) -> None:
    tensors = isinstance(old.type, TensorType) and isinstance(new.type, TensorType)
    if tensors and (old.dtype, old.rank) != (new.dtype, new.rank):
        raise IRError(f"a lowering gave {new.type} for {old.type} (%{old.name or '?'})")
    graph.replace_uses(old, new)
    if tensors and new.producer is not None:
        # The target's shape inference knows less about symbolic sizes than the op that stood here.
        new.type = old.type
