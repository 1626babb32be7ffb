"""The interpreter: runs a graph of any level with the ops' own bodies. Every pass is checked against it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .dialects.instances import InstancesBatch
from .dims import Dim, SymExpr, evaluate
from .errors import InputError, IRError
from .graph import Graph
from .node import Attribute, Constant, Node, Operand, Value
from .types import DTYPE_NAMES, InstancesType, TensorType, Type

NodeHook = Callable[[Node, Sequence[Any]], None]
"""Called after each node with the node and its results' runtime values."""


def run(graph: Graph, inputs: Mapping[str, Any], *, hook: NodeHook | None = None) -> dict[str, Any]:
    """Compute the graph's outputs.

    `inputs` gives each graph input's tensor by name. A value is let go after its last use.

    Errors:
        InputError: an input is missing, unknown, or not of its declared type.
        IRError: a node gave something else than its declared type.
    """
    return Interpreter(graph).run(inputs, hook=hook)


class Interpreter:
    """Runs one graph, many times. The graph must not be changed in between."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        kept = {id(v) for v in graph.outputs.values()}
        last_user: dict[Value, Node] = {}
        for node in graph:
            for value in node.operand_values:
                last_user[value] = node
        self._dying: dict[Node, list[Value]] = {}
        for value, node in last_user.items():
            if id(value) not in kept and not isinstance(value, Constant):
                self._dying.setdefault(node, []).append(value)

    @torch.no_grad()
    def run(self, inputs: Mapping[str, Any], *, hook: NodeHook | None = None) -> dict[str, Any]:
        """See `run` of the module."""
        sizes = bind_inputs({value.name: value.type for value in self.graph.inputs}, inputs)
        values: dict[Value, Any] = {value: inputs[value.name] for value in self.graph.inputs}
        for node in self.graph:
            operands = [_runtime(o, values) for o in node.operands]
            attributes = {name: _resolve(a, sizes) for name, a in node.attributes.items()}
            try:
                results = node.op.body(*operands, **attributes)
            except InputError as error:
                raise InputError(f"{_place(node)}: {error}") from error
            except IRError:
                raise
            except Exception as error:
                raise IRError(f"{_place(node)} failed: {error}") from error
            outputs: Sequence[Any] = results if isinstance(results, list | tuple) else (results,)
            if len(outputs) != len(node.results):
                raise IRError(f"{node.op.name} gave {len(outputs)} results, {len(node.results)} are declared")
            for value, result in zip(node.results, outputs, strict=True):
                problem = bind(value.type, result, sizes)
                if problem:
                    raise IRError(f"{node.op.name} at {node.source or '?'} gave {problem}")
                values[value] = result
            if hook is not None:
                hook(node, outputs)
            for value in self._dying.get(node, ()):
                values.pop(value, None)
        return {name: _read(v, values) for name, v in self.graph.outputs.items()}


def bind_inputs(types: Mapping[str, Type], inputs: Mapping[str, Any]) -> dict[str, int]:
    """The sizes that a graph's inputs fix, by their symbols' names. `types` says what is declared.

    Errors:
        InputError: an input is missing, unknown, or not of its declared type.
    """
    unknown = sorted(set(inputs) - set(types))
    missing = sorted(set(types) - set(inputs))
    if unknown or missing:
        parts = [f"missing: {', '.join(missing)}"] if missing else []
        parts += [f"not among the inputs: {', '.join(unknown)}"] if unknown else []
        raise InputError("; ".join(parts))
    sizes: dict[str, int] = {}
    for name, type in types.items():
        problem = bind(type, inputs[name], sizes)
        if problem:
            raise InputError(f"the input {name!r} is {problem}")
    return sizes


def _place(node: Node) -> str:
    """An op in a message: where it comes from, or, of a graph that was not captured, what it makes."""
    if node.source:
        return f"{node.op.name} (from {node.source})"
    made = ", ".join(result.name for result in node.results if result.name)
    return f"{node.op.name} (which makes {made})" if made else node.op.name


def bind(type: Type, value: Any, sizes: dict[str, int]) -> str | None:
    """Learn the sizes that a runtime value fixes. Returns what is wrong with the value, or None."""
    if isinstance(type, TensorType):
        if not isinstance(value, Tensor):
            return f"{value.__class__.__name__}, not {type}"
        if value.dtype != type.dtype or value.ndim != type.rank:
            return f"{DTYPE_NAMES.get(value.dtype, value.dtype)}{list(value.shape)}, not {type}"
        for dim, size in zip(type.shape, value.shape, strict=True):
            if not _bind_dim(dim, size, sizes):
                return f"{list(value.shape)}, which does not fit {type}" + _known_sizes(type, sizes)
    elif isinstance(type, InstancesType):
        if not isinstance(value, InstancesBatch):
            return f"{value.__class__.__name__}, not {type}"
        for name, field in type.fields:
            problem = bind(field, value.fields.get(name), sizes)
            if problem:
                return f"instances whose field {name!r} is {problem}"
    return None


def _bind_dim(dim: Dim, size: int, sizes: dict[str, int]) -> bool:
    if not isinstance(dim, SymExpr):
        return dim == size
    known = dim.as_symbol
    if known is not None and known.name not in sizes:
        sizes[known.name] = size
        return size % known.multiple == 0
    if any(s.name not in sizes for s in dim.symbols()):
        return True
    return bool(evaluate(dim, sizes) == size)


def _known_sizes(type: TensorType, sizes: Mapping[str, int]) -> str:
    parts: list[str] = []
    for dim in type.shape:
        if isinstance(dim, SymExpr):
            for symbol in dim.symbols():
                if symbol.multiple != 1:
                    parts.append(f"{symbol.name} must be a multiple of {symbol.multiple}")
                elif symbol.name in sizes:
                    parts.append(f"{symbol.name} = {sizes[symbol.name]}")
    return f" ({', '.join(dict.fromkeys(parts))})" if parts else ""


def _read(value: Value, values: Mapping[Value, Any]) -> Any:
    return value.data if isinstance(value, Constant) else values[value]


def _runtime(operand: Operand, values: Mapping[Value, Any]) -> Any:
    if isinstance(operand, Value):
        return _read(operand, values)
    if operand is None:
        return None
    return tuple(None if item is None else _read(item, values) for item in operand)


def _resolve(attribute: Attribute, sizes: Mapping[str, int]) -> Any:
    if isinstance(attribute, SymExpr):
        return evaluate(attribute, sizes)
    if isinstance(attribute, tuple):
        return tuple(_resolve(a, sizes) for a in attribute)
    return attribute
