"""The house rules on sizes: what is shipped fits on a few pages, and each function on one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = ("driver", "frontend", "ir", "passes", "backends")
FILE_LINES = 400
FUNCTION_LINES = 60


def _functions(tree: ast.AST, path: str = "") -> Iterator[tuple[str, int]]:
    """Every function by its qualified name, with its lines: decorators, signature, docstring and body."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{path}{node.name}"
            if not isinstance(node, ast.ClassDef) and node.end_lineno is not None:
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                yield name, node.end_lineno - first + 1
            yield from _functions(node, f"{name}.")
        else:
            yield from _functions(node, path)


def _lengths(folder: str) -> Iterator[tuple[str, int, int]]:
    """Every file and function of a folder by name: how long it is, and how long it may be."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        name, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        yield name, len(text.splitlines()), FILE_LINES
        for function, lines in _functions(ast.parse(text)):
            yield f"{name}:{function}", lines, FUNCTION_LINES


@pytest.mark.parametrize("folder", SHIPPED)
def test_files_and_functions_are_short(folder: str) -> None:
    lengths = list(_lengths(folder))
    assert lengths
    long = [f"{name}: {lines} lines, at most {most}" for name, lines, most in lengths if lines > most]
    assert not long, "\n".join(long)


def test_functions_are_found_wherever_they_stand() -> None:
    text = "if True:\n    class A:\n        @property\n        def b(self):\n            def c():\n                pass\n"
    assert list(_functions(ast.parse(text))) == [("A.b", 4), ("A.b.c", 2)]
