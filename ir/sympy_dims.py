"""Reading torch's sympy expressions of sizes as dimensions of the IR."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from .dims import Dim, SymExpr, exact_quotient, floor_div, maximum, minimum, mod
from .errors import IRError

Leaf = Callable[[Any], Dim | None]
"""What a symbol stands for, None for an expression that is to be read by its parts."""


def dim_from_sympy(expr: Any, leaf: Leaf) -> Dim:
    """The dimension that a sympy expression of whole numbers stands for.

    Errors:
        IRError: the IR has no such arithmetic.
    """
    known = leaf(expr)
    if known is not None:
        return known
    if expr.is_Integer:
        return int(expr)

    def read(arg: Any) -> Dim:
        return dim_from_sympy(arg, leaf)

    args = expr.args
    match type(expr).__name__:
        case "Add":
            total: Dim = 0
            for arg in args:
                total = total + read(arg)
            return total
        case "Mul":
            product: Dim = 1
            for arg in args:
                product = product * read(arg)
            return product
        case "Pow" if args[1].is_Integer and args[1] > 0:
            base = read(args[0])
            power: Dim = 1
            for _ in range(int(args[1])):
                power = power * base
            return power
        case "FloorDiv" | "CleanDiv":
            return floor_div(read(args[0]), read(args[1]))
        case "Mod" | "PythonMod":
            return mod(read(args[0]), read(args[1]))
        case "ModularIndexing":
            return mod(floor_div(read(args[0]), read(args[1])), read(args[2]))
        case "FloorToInt" | "TruncToInt":
            # Sizes are not negative: cutting off is rounding down.
            return floor_div(*ratio_from_sympy(args[0], leaf))
        case "CeilToInt":
            above, below = ratio_from_sympy(args[0], leaf)
            return floor_div(above + below - 1, below)
        case "Max":
            return maximum(*map(read, args))
        case "Min":
            return minimum(*map(read, args))
    raise IRError(f"a size that the IR cannot express: {expr}")


def ratio_from_sympy(expr: Any, leaf: Leaf) -> tuple[Dim, Dim]:
    """A sympy expression of real numbers as a fraction of dimensions, as if computed without rounding."""
    above, below = _fraction_of_dims(expr, leaf)
    if above == below:
        return 1, 1
    if isinstance(below, SymExpr):
        whole = exact_quotient(above, below)
        return (above, below) if whole is None else (whole, 1)
    return above, below


def _fraction_of_dims(expr: Any, leaf: Leaf) -> tuple[Dim, Dim]:
    args = expr.args
    if expr.is_Float or expr.is_Rational:
        number = _fraction(expr)
        return number.numerator, number.denominator
    match type(expr).__name__:
        case "ToFloat":
            return dim_from_sympy(args[0], leaf), 1
        case "IntTrueDiv":
            return dim_from_sympy(args[0], leaf), dim_from_sympy(args[1], leaf)
        case "FloatTrueDiv":
            (a, b), (c, d) = ratio_from_sympy(args[0], leaf), ratio_from_sympy(args[1], leaf)
            return a * d, b * c
        case "Mul" | "Add" as name:
            above, below = ratio_from_sympy(args[0], leaf)
            for arg in args[1:]:
                a, b = ratio_from_sympy(arg, leaf)
                above = above * a if name == "Mul" else above * b + a * below
                below = below * b
            return above, below
        case "Pow" if args[1] == -1:
            above, below = ratio_from_sympy(args[0], leaf)
            return below, above
    return dim_from_sympy(expr, leaf), 1


def _fraction(number: Any) -> Fraction:
    """0.1 as 1/10: what a factor in a program stands for, where that is the same float."""
    if number.is_Rational:
        return Fraction(int(number.p), int(number.q))
    exact = Fraction(float(number))
    short = exact.limit_denominator(1 << 12)
    return short if float(short) == float(exact) else exact
