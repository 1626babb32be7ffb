"""Det ops written out as what their bodies compute."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from detc.ir import (
    Attribute,
    Builder,
    Graph,
    Operand,
    UnsupportedError,
    Value,
    attribute_key,
    attribute_symbols,
    substitute_attribute,
    symbol,
)
from detc.ir.dims import Dim
from detc.ir.lazy import tracing
from detc.ir.types import substitute_type, type_symbols

from ..core.base import Context, Pass
from ..generic.canonicalize import Canonicalize
from ..generic.cleanup import CommonSubexpressions, DeadCode
from ..generic.constants import FoldConstants
from ..rewrite.conversion import take_place

_CLEANUP: tuple[Pass, ...] = (Canonicalize(), FoldConstants(), CommonSubexpressions(), DeadCode())
_CACHE_LIMIT = 1024


@dataclass(frozen=True)
class Decompose(Pass):
    """Write det ops out as what their bodies compute, but for those that the target has rules for.

    Before:
        %1: i64[kept] = det.nonempty(%boxes)
    After:
        %1: f32[D,2], %2: f32[D,2] = aten.split.Tensor(%boxes, split_size=2, dim=-1)
        %3: f32[D,2] = aten.sub.Tensor(%2, %1)
        %4: f32[D] = aten.amin(%3, dim=(1,))
        %5: bool[D] = aten.gt.Scalar(%4, other=0.0)
        %6: i64[kept,1] = aten.nonzero(%5)
        %7: i64[kept] = aten.select.int(%6, dim=1, index=0)

    `kept` names the ops that stay. An op whose body cannot be traced, because it loops over images or looks at data,
    stays too; it needs a rule.
    """

    kept: tuple[str, ...] = ()

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        changed = False
        for node in graph:
            name = node.op.name
            if node.op.dialect != "det" or name in self.kept:
                continue
            count = context.count(name)
            count.tried += 1
            try:
                body = _body(node.op.body, node.operands, node.attributes)
            except UnsupportedError as error:
                reason, _, _ = str(error).partition(". ")
                count.refused[f"its body cannot be traced: {reason}"] += 1
                continue
            with context.rewrite(name):
                take_place(graph, node, body.write(context.builder(graph, node)))
            count.matched += 1
            changed = True
        return changed


def written_out(
    b: Builder, function: Callable[..., Any], *operands: Operand, **attributes: Attribute
) -> list[Value]:
    """What a function of tensors returns for these operands, computed by nodes that the builder makes.

    It is traced once for each set of types and attributes.

    Errors:
        UnsupportedError: the function cannot be traced.
    """
    return _body(function, operands, attributes).write(b)


@dataclass(frozen=True)
class _Body:
    """A traced function, and what it is to be written out for.

    Attributes:
        template: the function's nodes. Its inputs are the operands, its sizes are called size0, size1, ...
        sizes: what these are called where it is written out.
    """

    template: Graph
    operands: Sequence[Value]
    sizes: dict[str, Dim]

    def write(self, b: Builder) -> list[Value]:
        """The template's nodes, made by the builder. Returns what they compute."""
        return b.inline(self.template, self.operands, self.sizes)


_templates: dict[Hashable, Graph] = {}


def _body(
    function: Callable[..., Any], operands: Sequence[Operand], attributes: Mapping[str, Attribute]
) -> _Body:
    leaves = _leaves(operands)
    types = [value.type for value in leaves]
    symbols = [s for type in types for s in type_symbols(type)]
    sizes = dict.fromkeys([*symbols, *attribute_symbols(tuple(attributes.values()))])
    # Sizes are called after their order, so that what is traced serves whatever they are called.
    general: dict[str, Dim] = {s.name: symbol(f"size{i}", s.multiple) for i, s in enumerate(sizes)}
    own: dict[str, Dim] = {f"size{i}": symbol(s.name, s.multiple) for i, s in enumerate(sizes)}
    given = {name: substitute_attribute(value, general) for name, value in attributes.items()}
    places = iter([substitute_type(type, general) for type in types])
    shape = tuple(
        tuple(next(places) for _ in o) if isinstance(o, tuple) else None if o is None else next(places)
        for o in operands
    )
    key = (function, shape, attribute_key(tuple(sorted(given.items()))))
    if key not in _templates:
        if len(_templates) >= _CACHE_LIMIT:
            _templates.clear()
        try:
            _templates[key] = _traced(function, shape, given)
        except UnsupportedError as error:
            named = re.sub(r"\bsize\d+\b", lambda name: str(own.get(name[0], name[0])), str(error))
            raise UnsupportedError(named) from None
    return _Body(_templates[key], leaves, own)


def _leaves(operands: Sequence[Operand]) -> Sequence[Value]:
    return [v for o in operands for v in (o if isinstance(o, tuple) else (o,)) if v is not None]


def _traced(
    function: Callable[..., Any], shape: tuple[Any, ...], attributes: Mapping[str, Attribute]
) -> Graph:
    graph = Graph("template", level="flat")

    def operand(type: Any) -> Any:
        if isinstance(type, tuple):
            return tuple(map(operand, type))
        return None if type is None else graph.add_input(f"operand{len(graph.inputs)}", type)

    outputs = tracing.trace(
        Builder(graph),
        lambda *tensors: function(*tensors, **attributes),
        tuple(map(operand, shape)),
        path=getattr(function, "__name__", "the function"),
    )
    made = [outputs] if isinstance(outputs, Value) else list(outputs)
    graph.set_outputs({str(i): value for i, value in enumerate(made)})
    for node in graph:
        node.source = ""  # is that of the node which is written out
    for step in _CLEANUP:
        step.apply(graph, Context(step.name))
    return graph
