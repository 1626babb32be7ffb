"""Reading dimensions from text."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from fractions import Fraction

from .dims import Dim, floor_div, maximum, minimum, mod, scale, symbol
from .errors import IRError


def parse_dim(text: str, multiples: Mapping[str, int] | None = None) -> Dim:
    """Read what `str` of a dimension wrote. `multiples` gives the known divisors of symbols.

    Errors:
        IRError: the text is no dimension.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise IRError(f"not a dimension: {text!r}") from None
    return _from_ast(tree, multiples or {}, text)


def _from_ast(tree: ast.expr, multiples: Mapping[str, int], text: str) -> Dim:
    def read(node: ast.expr) -> Dim:
        return _from_ast(node, multiples, text)

    match tree:
        case ast.Constant(value=int(value)):
            return value
        case ast.Name(id=name):
            return symbol(name, multiples.get(name, 1))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return scale(read(operand), Fraction(-1))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return read(left) + read(right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return read(left) - read(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return read(left) * read(right)
        case ast.BinOp(left=left, op=ast.Div(), right=ast.Constant(value=int(divisor))) if divisor:
            return scale(read(left), Fraction(1, divisor))
        case ast.Call(func=ast.Name(id="floor" | "ceil" as name), args=[ast.BinOp(op=ast.Div()) as ratio]):
            numerator, below = read(ratio.left), read(ratio.right)
            if name == "ceil":
                numerator = numerator + (below - 1)
            return floor_div(numerator, below)
        case ast.Call(func=ast.Name(id="mod"), args=[value, divisor]):
            return mod(read(value), read(divisor))
        case ast.Call(func=ast.Name(id="min" | "max" as name), args=args):
            return (minimum if name == "min" else maximum)(*map(read, args))
    raise IRError(f"not a dimension: {text!r}")
