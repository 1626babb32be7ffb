"""Reads YAML without running code, one idiom of detectron2's configs included.

detectron2 loads configs with an unsafe loader, and its own RetinaNet base config makes use of that: the
anchor sizes are written as `!!python/object/apply:eval ["[[x, x * 2**(1.0/3)] for x in [32, 64]]"]`. Here
such an expression is parsed, and computed by a small interpreter that knows numbers, lists, arithmetic and
comprehensions over lists. It knows no names but a comprehension's variables, no calls and no attributes;
every other `!!python` tag is refused.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError

_MAX_ITEMS = 10_000
_MAX_NUMBER = 1e12

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: lambda base, exponent: base**exponent if abs(exponent) <= 64 else float(base) ** exponent,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


class _Arithmetic:
    """Computes an expression of numbers and lists; raises ValueError at anything else."""

    def __init__(self) -> None:
        self._items = 0

    def evaluate(self, text: str) -> Any:
        return self._visit(ast.parse(text.strip(), mode="eval").body, {})

    def _visit(self, node: ast.expr, names: dict[str, Any]) -> Any:
        match node:
            case ast.Constant(value=bool() | None):
                return node.value
            case ast.Constant(value=int() | float()):
                return self._bounded(node.value)
            case ast.Name(id=name) if name in names:
                return names[name]
            case ast.List(elts=elements):
                return self._counted(self._visit(element, names) for element in elements)
            case ast.Tuple(elts=elements):
                return tuple(self._counted(self._visit(element, names) for element in elements))
            case ast.UnaryOp(op=unary, operand=operand) if type(unary) in _UNARY:
                return self._bounded(_UNARY[type(unary)](self._number(operand, names)))
            case ast.BinOp(left=left, op=binary, right=right) if type(binary) in _BINARY:
                a, b = self._number(left, names), self._number(right, names)
                return self._bounded(_BINARY[type(binary)](a, b))
            case ast.ListComp(elt=element, generators=generators):
                return self._counted(self._visit(element, scope) for scope in self._scopes(generators, names))
            case _:
                raise ValueError(f"'{ast.unparse(node)}' is not arithmetic")

    def _scopes(self, generators: list[ast.comprehension], names: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if not generators:
            yield names
            return
        first, rest = generators[0], generators[1:]
        if first.ifs or first.is_async or not isinstance(first.target, ast.Name):
            raise ValueError("only plain comprehensions, 'for name in list', are understood")
        values = self._visit(first.iter, names)
        if not isinstance(values, list | tuple):
            raise ValueError(f"'{ast.unparse(first.iter)}' is not a list")
        for value in values:
            yield from self._scopes(rest, {**names, first.target.id: value})

    def _number(self, node: ast.expr, names: dict[str, Any]) -> int | float:
        value = self._visit(node, names)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"'{ast.unparse(node)}' is not a number")
        return value

    def _bounded(self, value: Any) -> int | float:
        if not isinstance(value, int | float) or not abs(value) <= _MAX_NUMBER:
            raise ValueError("a number is complex or too large")
        return value

    def _counted(self, values: Iterator[Any]) -> list[Any]:
        counted = []
        for value in values:
            self._items += 1
            if self._items > _MAX_ITEMS:
                raise ValueError(f"more than {_MAX_ITEMS} values")
            counted.append(value)
        return counted


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with tuples and the arithmetic of `eval`."""


def _tuple(loader: _Loader, node: yaml.SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node, deep=True))


def _eval(loader: _Loader, node: yaml.Node) -> Any:
    arguments = loader.construct_sequence(node, deep=True) if isinstance(node, yaml.SequenceNode) else []
    try:
        (text,) = arguments
        return _Arithmetic().evaluate(text)
    except (ValueError, TypeError, ArithmeticError, SyntaxError, AttributeError, RecursionError) as error:
        raise yaml.constructor.ConstructorError(
            None,
            None,
            f"the tag {node.tag} would run code ({error}); write the value itself",
            node.start_mark,
        ) from error


def _python_tag(loader: _Loader, suffix: str, node: yaml.Node) -> Any:
    raise yaml.constructor.ConstructorError(
        None, None, f"the tag !!python/{suffix} would run code; write the value itself", node.start_mark
    )


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)
_Loader.add_constructor("tag:yaml.org,2002:python/object/apply:eval", _eval)
_Loader.add_multi_constructor("tag:yaml.org,2002:python/", _python_tag)


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        InputError: the file cannot be read, is not YAML, holds no mapping, or asks for code to be run
            (nothing is).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read the config {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a YAML config: it is not UTF-8 text") from error
    try:
        loaded = yaml.load(text, Loader=_Loader)  # noqa: S506 -- a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"cannot read the config {path}{line}: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read the config {path}: {error}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise InputError(
            f"{path} is not a detectron2 config: it holds a {type(loaded).__name__}, not a mapping"
        )
    return loaded
