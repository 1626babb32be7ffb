"""The text form of a graph. It is made to be read, and `parse_graph` reads it back.

    graph mask_rcnn (level=captured) {
      where H % 32 == 0, W % 32 == 0
      input %data: f32[N,3,H,W]
      %0: f32[N,64,H/4,W/4] = aten.conv2d(%data, @.weight:f32[64,3,4,4], stride=(4, 4))  # stem.conv1
      return boxes=%0
    }

`%name` is a value, `@name:type` a weight, `i64[2]{0, -1}` a small constant. A trailing comment gives the
module path that a node comes from and, after a bar, the pass that made it. A weight below that path is
written `@.weight`.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .lazy import torch
from .node import Attribute, Constant, Node, Operand, Value, attribute_symbols
from .types import dtype_names, type_symbols

if TYPE_CHECKING:
    from .graph import Graph

_IDENTIFIER = re.compile(r"[^\w]+")


def print_graph(graph: Graph) -> str:
    """The graph as text."""
    return "\n".join(GraphPrinter(graph).lines()) + "\n"


class GraphPrinter:
    """Gives every value of a graph its name, and prints nodes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.names: dict[Value, str] = {}
        taken: set[str] = set()
        counters: dict[str, int] = {}
        number = 0
        for value in [*graph.inputs, *(r for node in graph for r in node.results)]:
            stem = value.name and _IDENTIFIER.sub("_", value.name)
            if not stem or stem.isdigit():
                name = str(number)
                number += 1
            else:
                name = stem
                while name in taken:
                    counters[stem] = counters.get(stem, 0) + 1
                    name = f"{stem}_{counters[stem]}"
            taken.add(name)
            self.names[value] = name

    def lines(self) -> Iterable[str]:
        graph = self.graph
        yield f"graph {graph.name} (level={graph.level}) {{"
        multiples = self._multiples()
        if multiples:
            yield "  where " + ", ".join(f"{name} % {k} == 0" for name, k in multiples.items())
        if graph.metadata:
            yield f"  metadata {json.dumps(graph.metadata)}"
        for value in graph.inputs:
            yield f"  input %{self.names[value]}: {value.type}"
        for node in graph:
            yield "  " + self.node(node)
        outputs = ", ".join(f"{name}={self.value(v)}" for name, v in graph.outputs.items())
        yield f"  return {outputs}".rstrip()
        yield "}"

    def node(self, node: Node) -> str:
        """One line: results with types, op, operands, attributes, and where it comes from."""
        results = ", ".join(f"%{self.names[r]}: {r.type}" for r in node.results)
        arguments = [self.operand(o, node.source) for o in node.operands]
        arguments += [f"{name}={format_attribute(value)}" for name, value in node.attributes.items()]
        text = f"{results} = {node.op.name}({', '.join(arguments)})"
        origin = node.source
        if node.created_by and node.created_by != "capture":
            origin = f"{origin} | {node.created_by}"
        return f"{text}  # {origin}" if origin else text

    def operand(self, operand: Operand, source: str = "") -> str:
        if operand is None:
            return "none"
        if isinstance(operand, Value):
            return self.value(operand, source)
        return "[" + ", ".join("none" if v is None else self.value(v, source) for v in operand) + "]"

    def value(self, value: Value, source: str = "") -> str:
        if isinstance(value, Constant):
            if value.is_literal:
                return format_literal(value.data)
            name = value.name
            if source and name.startswith(source + "."):
                name = name[len(source) :]
            return f"@{name}:{value.type}"
        return "%" + self.names.get(value, f"!{value.name or 'foreign'}")

    def _multiples(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for type in {value.type for value in self.graph.values()}:
            found.update((s.name, s.multiple) for s in type_symbols(type) if s.multiple != 1)
        for node in self.graph:
            for attribute in node.attributes.values() if node.size_names else ():
                found.update((s.name, s.multiple) for s in attribute_symbols(attribute) if s.multiple != 1)
        return dict(sorted(found.items()))


def format_attribute(attribute: Attribute) -> str:
    """An attribute as text: Python's spelling, sizes as expressions, dtypes as `dtype.f32`."""
    if isinstance(attribute, str):
        return format_string(attribute)
    if isinstance(attribute, tuple):
        items = ", ".join(map(format_attribute, attribute))
        return f"({items},)" if len(attribute) == 1 else f"({items})"
    if isinstance(attribute, torch.dtype):
        name = dtype_names().get(attribute)
        return f"dtype.{name}" if name else f"dtype.{str(attribute).removeprefix('torch.')}"
    return str(attribute)


def format_string(text: str) -> str:
    """A string in double quotes, all ASCII, as JSON and Python both read it; beyond U+FFFF as Python does."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(
        c if c.isascii() else f"\\u{ord(c):04x}" if ord(c) < 1 << 16 else f"\\U{ord(c):08x}" for c in quoted
    )


def format_literal(data: torch.Tensor) -> str:
    """A small constant in full: dtype, shape, elements in row-major order."""
    shape = ",".join(map(str, data.shape))
    elements = ", ".join(_element(x, data.dtype) for x in data.reshape(-1).tolist())
    return f"{dtype_names()[data.dtype]}[{shape}]{{{elements}}}"


def _element(value: bool | int | float, dtype: torch.dtype) -> str:
    if isinstance(value, float) and dtype is torch.float32 and math.isfinite(value):
        # The fewest digits that read back as the same float32.
        for digits in range(6, 10):
            text = f"{value:.{digits}g}"
            if struct.pack("f", float(text)) == struct.pack("f", value):
                return text if any(c in text for c in ".en") else text + ".0"
    return str(value)
