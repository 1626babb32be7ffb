"""Reading the text form of a graph (see `printer`). Nothing in the text is ever executed."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .collector import paused_collector
from .dim_parser import parse_dim
from .dims import Dim
from .errors import DetcError, ParseError
from .graph import Graph
from .lazy import torch
from .node import Attribute, Constant, Node, Operand, Value
from .ops import get_op
from .types import InstancesType, TensorType, Type, dtypes

_HEADER = re.compile(r"graph (\S+) \(level=(\w+)\) \{$")
_WHERE = re.compile(r"(\w+) % (\d+) == 0$")
_VALUE = re.compile(r"%(\w+)")
_ATTRIBUTE = re.compile(r"(\w+)=(?!=)(.*)$", re.DOTALL)
_LITERAL = re.compile(r"(\w+)\[([\d,]*)\]\{(.*)\}$")
_OPEN, _CLOSE = "([{<", ")]}>"
_STRING = r'"(?:[^"\\]|\\.)*(?P<end>"?)'
_NESTED = re.compile(r'[()\[\]{}<>"]')
_MARK = re.compile(rf"[,()\[\]{{}}<>]|{_STRING}", re.DOTALL)
_COMMENT_START = "  # "
_COMMENT = re.compile(rf"{_COMMENT_START}|{_STRING}", re.DOTALL)


@paused_collector()
def parse_graph(text: str, weights: Mapping[str, torch.Tensor] | None = None) -> Graph:
    """The graph that the text describes.

    `weights` gives the named weights' data; a weight that is not in it has its type only (a tensor on
    `meta`).

    Errors:
        ParseError: the text is no graph, or names an unknown op or value; the message gives the line.
    """
    return _Parser(text, weights or {}).parse()


class _Parser:
    def __init__(self, text: str, weights: Mapping[str, torch.Tensor]) -> None:
        self._lines = text.splitlines()
        self._weights = weights
        self._multiples: dict[str, int] = {}
        self._values: dict[str, Value] = {}
        # By their text: most nodes of a network are alike.
        self._types: dict[str, Type] = {}
        self._attributes: dict[str, tuple[str, Attribute]] = {}

    def parse(self) -> Graph:
        graph: Graph | None = None
        finished = False
        for number, line in enumerate(self._lines, 1):
            stripped = line.strip()
            if not stripped or stripped.startswith("#"):
                continue
            try:
                if finished:
                    raise ParseError("text after the graph's end")
                if graph is None:
                    header = _HEADER.match(stripped)
                    if not header:
                        raise ParseError("expected 'graph NAME (level=LEVEL) {'")
                    graph = Graph(header[1], header[2])
                elif stripped == "}":
                    finished = True
                else:
                    self._line(graph, stripped)
            except (DetcError, ValueError) as error:
                raise ParseError(f"line {number}: {error}\n  {stripped[:200]}") from None
        if graph is None or not finished:
            raise ParseError(f"line {len(self._lines)}: the text ends before the graph does")
        return graph

    def _line(self, graph: Graph, line: str) -> None:
        if line.startswith("%"):
            self._node(graph, line)
            return
        keyword, _, rest = line.partition(" ")
        match keyword:
            case "where":
                for part in rest.split(", "):
                    found = _WHERE.match(part)
                    if not found:
                        raise ParseError(f"expected 'NAME % NUMBER == 0', not {part!r}")
                    self._multiples[found[1]] = int(found[2])
            case "metadata":
                graph.metadata = json.loads(rest)
            case "input":
                name, type = self._typed_name(rest)
                self._define(name, graph.add_input(name, type))
            case "return":
                outputs = {}
                for part in split(rest):
                    found = _ATTRIBUTE.match(part)
                    if not found:
                        raise ParseError(f"expected 'name=%value', not {part!r}")
                    value = self._operand(graph, found[2], "")
                    if not isinstance(value, Value):
                        raise ParseError(f"the output {found[1]!r} is no single value")
                    outputs[found[1]] = value
                graph.set_outputs(outputs)
            case _:
                self._node(graph, line)

    def _node(self, graph: Graph, line: str) -> None:
        body, origin = _cut_comment(line)
        source, _, created_by = origin.partition(" | ") if " | " in origin else (origin, "", "capture")
        left, right = _cut(body, " = ")
        name, paren, arguments = right.partition("(")
        if not paren or not arguments.endswith(")"):
            raise ParseError("expected '%result: type = dialect.op(...)'")
        operands: list[Operand] = []
        attributes: dict[str, Attribute] = {}
        for argument in split(arguments[:-1]):
            given = self._attributes.get(argument)
            if given is None and (found := _ATTRIBUTE.match(argument)):
                given = self._attributes[argument] = found[1], self._attribute(found[2])
            if given is not None:
                attributes[given[0]] = given[1]
            elif attributes:
                raise ParseError(f"the operand {argument!r} follows an attribute")
            else:
                operands.append(self._operand(graph, argument, source))
        results = [self._typed_name(part) for part in (split(left) if left.count("%") > 1 else [left])]
        types = [type for _, type in results]
        node = Node(get_op(name), operands, attributes, types, source=source, created_by=created_by)
        graph.append(node)
        for (result_name, _), value in zip(results, node.results, strict=True):
            value.name = "" if result_name.isdigit() else result_name
            self._define(result_name, value)

    def _define(self, name: str, value: Value) -> None:
        if name in self._values:
            raise ParseError(f"%{name} is defined twice")
        self._values[name] = value

    def _typed_name(self, text: str) -> tuple[str, Type]:
        found = _VALUE.match(text)
        if not found or text[found.end() : found.end() + 1] != ":":
            raise ParseError(f"expected '%name: type', not {text!r}")
        return found[1], self._type(text[found.end() + 1 :].strip())

    def _operand(self, graph: Graph, text: str, source: str) -> Operand:
        if text.startswith("%"):
            value = self._values.get(text[1:])
            if value is None:
                raise ParseError(f"{text} is used before it is defined")
            return value
        if text.startswith("@"):
            return self._weight(graph, text[1:], source)
        if text == "none":
            return None
        if text.startswith("["):
            if not text.endswith("]"):
                raise ParseError(f"not a list of values: {text!r}")
            items = [self._operand(graph, part, source) for part in split(text[1:-1])]
            if any(isinstance(item, tuple) for item in items):
                raise ParseError(f"not a list of values: {text!r}")
            return tuple(item for item in items if not isinstance(item, tuple))
        literal = _LITERAL.match(text)
        if literal:
            return Constant(_read_literal(literal[1], literal[2], literal[3]))
        raise ParseError(f"not an operand: {text!r}")

    def _weight(self, graph: Graph, text: str, source: str) -> Constant:
        name, colon, type_text = text.partition(":")
        type = self._type(type_text)
        if not colon or not isinstance(type, TensorType):
            raise ParseError(f"expected '@name:type', not '@{text}'")
        if name.startswith("."):
            if not source:
                raise ParseError(f"@{name} needs the node's module path in the trailing comment")
            name = source + name
        known = graph.weights.get(name)
        if known is None:
            data = self._weights.get(name)
            if data is None:
                sizes = [d for d in type.shape if isinstance(d, int)]
                if len(sizes) != type.rank:
                    raise ParseError(f"the weight @{name} has a symbolic size")
                data = torch.empty(sizes, dtype=type.dtype, device="meta")
            known = graph.add_weight(name, data)
        if known.type != type:
            raise ParseError(f"the weight @{name} is {known.type}, not {type}")
        return known

    def _type(self, text: str) -> Type:
        known = self._types.get(text)
        if known is None:
            known = self._types[text] = parse_type(text, self._multiples)
        return known

    def _attribute(self, text: str) -> Attribute:
        try:
            tree = ast.parse(text, mode="eval").body
        except (SyntaxError, RecursionError, MemoryError):
            raise ParseError(f"not an attribute's value: {text!r}") from None
        return self._attribute_of(tree)

    def _attribute_of(self, tree: ast.expr) -> Attribute:
        match tree:
            case ast.Constant(value=None | bool() | int() | float() | str() as value):
                return value
            case ast.Name(id="inf" | "nan" as name):
                return float(name)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return -value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Name(id="inf")):
                return -math.inf
            case ast.Tuple(elts=items):
                return tuple(self._attribute_of(item) for item in items)
            case ast.Attribute(value=ast.Name(id="dtype"), attr=name):
                dtype = dtypes().get(name) or getattr(torch, name, None)
                if not isinstance(dtype, torch.dtype):
                    raise ParseError(f"there is no dtype {name!r}")
                return dtype
        return parse_dim(ast.unparse(tree), self._multiples)


def parse_type(text: str, multiples: Mapping[str, int] | None = None) -> Type:
    """Read what `str` of a type wrote. Raises ParseError for anything else."""
    if text.startswith("instances<") and text.endswith(">"):
        return InstancesType(tuple(_field(part, multiples) for part in split(text[len("instances<") : -1])))
    name, bracket, rest = text.partition("[")
    if name not in dtypes() or not bracket or not rest.endswith("]"):
        raise ParseError(f"not a type: {text!r}")
    dims: list[Dim] = [parse_dim(part, multiples) for part in split(rest[:-1])]
    return TensorType(dtypes()[name], tuple(dims))


def _field(text: str, multiples: Mapping[str, int] | None) -> tuple[str, TensorType]:
    name, _, rest = text.partition(": ")
    type = parse_type(rest, multiples)
    if not isinstance(type, TensorType):
        raise ParseError(f"the field {name!r} is no tensor")
    return name, type


def _read_literal(dtype_name: str, shape: str, elements: str) -> torch.Tensor:
    if dtype_name not in dtypes():
        raise ParseError(f"there is no dtype {dtype_name!r}")
    dtype = dtypes()[dtype_name]
    read: Any = float if dtype.is_floating_point else (lambda t: t == "True") if dtype is torch.bool else int
    values = [read(part) for part in split(elements)]
    sizes = [int(part) for part in split(shape)]
    if math.prod(sizes) != len(values):
        raise ParseError(f"{len(values)} elements for the shape [{shape}]")
    return torch.tensor(values, dtype=dtype).reshape(sizes)


def split(text: str) -> list[str]:
    """The parts between commas that stand in no bracket and in no string."""
    parts = _top_level_parts(text) if _NESTED.search(text) else text.split(",")
    return [stripped for part in parts if (stripped := part.strip())]


def _top_level_parts(text: str) -> Iterator[str]:
    depth = start = 0
    for mark in _MARK.finditer(text):
        found = mark[0]
        if found == ",":
            if depth == 0:
                yield text[start : mark.start()]
                start = mark.end()
        elif found in _OPEN:
            depth += 1
        elif found in _CLOSE:
            depth -= 1
        else:
            _check_string(mark)
    yield text[start:]


def _check_string(mark: re.Match[str]) -> None:
    if not mark["end"]:
        raise ParseError("a string does not end")


def _cut_comment(line: str) -> tuple[str, str]:
    for mark in _COMMENT.finditer(line):
        if mark[0] == _COMMENT_START:
            return line[: mark.start()], line[mark.end() :]
        _check_string(mark)
    return line, ""


def _cut(text: str, separator: str) -> tuple[str, str]:
    left, found, right = text.partition(separator)
    if not found:
        raise ParseError(f"expected {separator.strip()!r}")
    return left, right
