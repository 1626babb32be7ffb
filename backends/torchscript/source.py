"""A graph of the level `torchscript` as the text of one Python function, which is TorchScript at the same time.

    def forward(self, data: Tensor, im_info: Tensor) -> Detections:
        # backbone.bottom_up.stem.conv1
        weights = self.backbone.bottom_up.stem.conv1
        conv2d = aten.conv2d(images, weights.weight_folded, weights.bias_folded, [2, 2], [3, 3])

Weights are read off a tree of modules with the model's own names. Sizes are read off the inputs. Tensors that are made
from nothing are made where the first input is. `aten`, `torchvision`, `torch`, `functions`, `min` and `max` are the
caller's to provide.
"""

from __future__ import annotations

import json
import keyword
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from detc.ir import (
    Attribute,
    Constant,
    Dim,
    Graph,
    IRError,
    Node,
    Operand,
    SymExpr,
    TensorType,
    Value,
    symbol,
    torch_parts,
)
from detc.ir.aten import call_arguments, operand_kind, overload_of
from detc.ir.dims import Call, Symbol
from detc.ir.equality import attribute_key

from .dialect import DIALECT
from .memory import Memory

CONSTANTS = "constants"
"""The module that holds the constants without a name of their own."""
_PROVIDED = {
    "self",
    "aten",
    "torchvision",
    "torch",
    "functions",
    "min",
    "max",
    "weights",
    "float",
    "getattr",
    "Tensor",
    "List",
    "Optional",
}


@dataclass(frozen=True)
class Source:
    """The text, and what it reads off `self`.

    Attributes:
        text: one function, `forward`.
        weights: path -> tensor; a path is the names to follow from `self`.
    """

    text: str
    weights: Mapping[tuple[str, ...], torch.Tensor] = field(repr=False)


def write_source(graph: Graph, result: str, memory: Memory | None = None) -> Source:
    """The graph as a function that returns `result(<outputs in order>)`; without `memory`, nothing is overwritten.

    Errors:
        IRError: the graph is not of the level `torchscript`, or an op cannot be written.
    """
    if graph.level != "torchscript":
        raise IRError(f"only graphs of the level 'torchscript' can be written, not {graph.level!r}")
    return _Writer(graph, result, memory or Memory()).write()


class _Writer:
    def __init__(self, graph: Graph, result: str, memory: Memory) -> None:
        self._graph = graph
        self._result = result
        self._memory = memory
        self._lines: list[str] = []
        self._names: dict[Value, str] = {}
        self._taken: dict[str, int] = dict.fromkeys(_PROVIDED, 1)
        self._sizes: dict[Dim, str] = {}
        self._readable: dict[Dim, tuple[Value, int]] = {}
        self._symbols: set[str] = set()
        self._weights: dict[tuple[str, ...], torch.Tensor] = {}
        self._paths: dict[Constant, tuple[str, ...]] = {}
        self._literals: dict[object, tuple[str, ...]] = {}
        self._module: tuple[str, ...] = ()
        self._section: str | None = None

    def write(self) -> Source:
        arguments = [f"{self._name(value, value.name)}: Tensor" for value in self._graph.inputs]
        for value in self._graph.inputs:
            self._learn(value)
        for node in self._graph:
            self._node(node)
        outputs = ", ".join(self._operand(value) for value in self._graph.outputs.values())
        body = "\n".join(f"    {line}" if line else "" for line in self._lines)
        head = f"def forward(self, {', '.join(arguments)}) -> {self._result}:"
        return Source(f"{head}\n{body}\n\n    return {self._result}({outputs})\n", self._weights)

    def _node(self, node: Node) -> None:
        if node.source != self._section:
            self._section = node.source
            self._lines += ["", f"# {node.source}"] if node.source else [""]
        # Sizes and weights come before the call, in lines of their own.
        call = self._function_call(node) if node.op.dialect == DIALECT else self._operator_call(node)
        base = node.op.name.split(".")[1]
        names = [self._name(value, value.name or base.strip("_")) for value in node.results]
        self._lines.append(f"{', '.join(names)} = {call}")
        for value in node.results:
            self._learn(value)

    def _operator_call(self, node: Node) -> str:
        overload = overload_of(node.op.name)
        if overload is None:
            raise IRError(f"{node.op.name} at {node.source or '?'} is no operator of torch")
        arguments, suffix = self._arguments(node, overload), ""
        if node in self._memory.overwritten:
            arguments.insert(0, arguments.pop(self._memory.overwritten[node]))
            suffix = "_"
        base = node.op.name.split(".")[1]
        call = f"{node.op.dialect}.{base}{suffix}({', '.join(arguments)})"
        returns = torch_parts.schema(overload).returns
        if len(node.results) == 1 and str(returns[0].type) == "List[Tensor]":
            return f"{call}[0]"
        if len(node.results) < len(returns):
            raise IRError(
                f"{node.op.name} at {node.source or '?'}: {len(node.results)} of {len(returns)} results"
            )
        return call

    def _function_call(self, node: Node) -> str:
        """A call of one of `functions`."""
        operands = [
            f"[{', '.join(self._operand(item) for item in value)}]"
            if isinstance(value, tuple)
            else self._operand(value)
            for value in node.operands
        ]
        attributes = [f"{name}={self._attribute(value)}" for name, value in node.attributes.items()]
        return f"functions.{node.op.name.split('.')[1]}({', '.join([*operands, *attributes])})"

    def _arguments(self, node: Node, overload: torch_parts.OpOverload) -> list[str]:
        """The call's arguments; what has its default value is left out."""
        positional, keywords = call_arguments(overload, node.operands, node.attributes)
        schema = torch_parts.schema(overload).arguments
        values = dict(zip((a.name for a in schema if not a.kwarg_only), positional, strict=True)) | keywords
        written: list[str] = []
        by_name = False
        for argument in schema:
            value = values[argument.name]
            if argument.name == "device" and value is None and not any(True for _ in node.operand_values):
                written.append(f"device={self._operand(self._graph.inputs[0])}.device")
                continue
            if argument.has_default_value() and _is_default(value, argument.default_value):
                by_name = True
                continue
            text = self._argument(value, argument)
            written.append(f"{argument.name}={text}" if by_name or argument.kwarg_only else text)
        return written

    def _argument(self, value: Any, argument: Any) -> str:
        if operand_kind(argument) is not None and isinstance(value, Value):
            return self._operand(value)
        if operand_kind(argument) is not None and isinstance(value, list | tuple):
            items = f"[{', '.join(self._operand(item) for item in value)}]"
            kind = re.sub(r"List\[(.*)\]", r"\1", str(argument.type))
            plain = kind == "Tensor" and value
            return items if plain else f"torch.jit.annotate(List[{kind}], {items})"
        if isinstance(value, list | tuple) and not value:
            return f"torch.jit.annotate({argument.type}, [])"
        return self._attribute(value)

    def _attribute(self, value: Attribute) -> str:
        if isinstance(value, SymExpr):
            return self._size(value)
        if isinstance(value, list | tuple):
            return f"[{', '.join(self._attribute(item) for item in value)}]"
        if isinstance(value, float) and not math.isfinite(value):
            return f'float("{value}")'
        return str(value) if isinstance(value, torch.dtype) else repr(value)

    def _operand(self, value: Operand) -> str:
        if value is None:
            return "None"
        assert isinstance(value, Value)
        return self._constant(value) if isinstance(value, Constant) else self._names[value]

    def _constant(self, value: Constant) -> str:
        if value not in self._paths:
            self._paths[value] = self._place(value)
        *module, name = self._paths[value]
        if len(module) < 2:
            return _follow("self", self._paths[value])
        if tuple(module) != self._module:
            self._module = tuple(module)
            self._lines.append(f"weights = {_follow('self', module)}")
        return _follow("weights", (name,))

    def _place(self, value: Constant) -> tuple[str, ...]:
        """Where the constant is kept: under its own name, or among those without one."""
        data = value.data
        if data.is_meta:
            raise IRError(f"the weight {value.name!r} has no data")
        path = tuple(value.name.split("."))
        if value.is_literal or not self._is_free(path):
            # Equal small constants are kept once.
            key = (data.dtype, tuple(data.shape), str(data.tolist())) if value.is_literal else value
            path = self._literals.setdefault(key, (CONSTANTS, f"c{len(self._literals)}"))
        if value in self._memory.channels_last:
            data = data.contiguous(memory_format=torch.channels_last)
        self._weights[path] = data
        return path

    def _is_free(self, path: tuple[str, ...]) -> bool:
        """Whether a module tree can hold a tensor there: no name is one of nn.Module's, no tensor is in the way."""
        if any(not name or hasattr(nn.Module, name) or name == "training" for name in path):
            return False
        return not any(known[: len(path)] == path or path[: len(known)] == known for known in self._weights)

    def _learn(self, value: Value) -> None:
        """Note which sizes can be read off the value."""
        if isinstance(value.type, TensorType):
            for axis, dim in enumerate(value.type.shape):
                if isinstance(dim, SymExpr):
                    self._readable.setdefault(dim, (value, axis))
                    if dim.as_symbol is not None:
                        self._symbols.add(dim.as_symbol.name)

    def _size(self, dim: Dim) -> str:
        """An expression for the size; what it takes to know it is written before."""
        if isinstance(dim, int):
            return str(dim)
        if dim in self._sizes:
            return self._sizes[dim]
        if dim.as_symbol is not None or any(s.name not in self._symbols for s in dim.symbols()):
            return self._read_size(dim)
        text = self._polynomial(dim)
        if len(dim.terms) == 1 and all(isinstance(atom, Symbol) for atom, _ in dim.terms[0][0]):
            return text
        # Long expressions, and those used again and again, get a name.
        name = self._sizes[dim] = self._unique("size")
        self._lines.append(f"{name} = {text}")
        return name

    def _read_size(self, dim: SymExpr) -> str:
        if dim not in self._readable:
            raise IRError(f"the size {dim} is not known where it is needed")
        value, axis = self._readable[dim]
        name = self._sizes[dim] = self._unique(dim.as_symbol.name if dim.as_symbol else "size")
        self._lines.append(f"{name} = {self._operand(value)}.size({axis})")
        return name

    def _polynomial(self, dim: SymExpr) -> str:
        terms: list[str] = []
        denominator = math.lcm(*(c.denominator for _, c in dim.terms))
        for monomial, coefficient in dim.terms:
            factors = [self._atom(atom) for atom, power in monomial for _ in range(power)]
            if coefficient * denominator != 1 or not factors:
                factors.insert(0, str(int(coefficient * denominator)))
            terms.append("*".join(factors))
        total = " + ".join(terms)
        if denominator == 1:
            return total
        return f"{total} // {denominator}" if len(terms) == 1 else f"({total}) // {denominator}"

    def _atom(self, atom: Symbol | Call) -> str:
        if isinstance(atom, Symbol):
            return self._size(symbol(atom.name, atom.multiple))
        inside = [self._size(argument) for argument in atom.args]
        if atom.function in ("min", "max"):
            text = inside[0]
            for other in inside[1:]:
                text = f"{atom.function}({text}, {other})"
            return text
        return f"(({inside[0]}) {'//' if atom.function == 'floor' else '%'} ({inside[1]}))"

    def _name(self, value: Value, stem: str) -> str:
        name = self._names[value] = self._unique(stem)
        return name

    def _unique(self, stem: str) -> str:
        plain = re.sub(r"\W", "_", stem) or "value"
        if plain[0].isdigit() or keyword.iskeyword(plain):
            plain = f"_{plain}"
        name = plain
        while name in self._taken:
            self._taken[plain] += 1
            name = f"{plain}_{self._taken[plain]}"
        self._taken[name] = 1
        return name


def _follow(start: str, names: Sequence[str]) -> str:
    text = start
    for name in names:
        plain = name.isidentifier() and not keyword.iskeyword(name)
        text = f"{text}.{name}" if plain else f"getattr({text}, {json.dumps(name)})"
    return text


def _is_default(value: Any, default: Any) -> bool:
    if isinstance(value, Value):
        return False
    if isinstance(value, list | tuple) and any(isinstance(item, Value) for item in value):
        return False
    return attribute_key(_frozen(value)) == attribute_key(_frozen(default))


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value
