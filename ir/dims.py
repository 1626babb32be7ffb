"""Dimensions of tensors: integers, named symbols, and arithmetic on them.

A symbolic dimension is kept in one canonical form, a polynomial with rational coefficients, so that two
spellings of the same size compare equal. The atoms are symbols, floor divisions, minima and maxima; a remainder by a
number is written with the floor division (`A - 2*floor(A/2)`), so that a size and its padding add up to a plain
multiple. A symbol may carry a known divisor: `H` with `multiple=32` makes `H/4` a whole number, and exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache, reduce
from math import gcd, lcm
from typing import Any, TypeAlias, Union

from . import polynomials
from .errors import IRError

Dim: TypeAlias = Union[int, "SymExpr"]


@dataclass(frozen=True)
class Symbol:
    """A named size that is known only at run time. Its value is a multiple of `multiple`."""

    name: str
    multiple: int = 1

    @cached_property
    def key(self) -> str:
        return self.name

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Call:
    """A function of sizes that is no polynomial: `floor` (args: numerator, divisor), `min`, `max`, `mod` by a size."""

    function: str
    args: tuple[Dim, ...]

    @property
    def multiple(self) -> int:
        return 1

    @cached_property
    def _hash(self) -> int:
        return hash((self.function, self.args))

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def key(self) -> str:
        return str(self)

    def __str__(self) -> str:
        if self.function != "floor":
            return f"{self.function}({', '.join(map(str, self.args))})"
        numerator, divisor = self.args
        if isinstance(numerator, SymExpr) and isinstance(divisor, int):
            # floor((x + k - 1) / k) reads better as ceil(x / k).
            constant = numerator.constant
            if constant == divisor - 1:
                return f"ceil({_over(numerator - int(constant), divisor)})"
        return f"floor({_over(numerator, divisor)})"


Atom: TypeAlias = Symbol | Call
Monomial: TypeAlias = polynomials.Monomial[Atom]
Term: TypeAlias = polynomials.Term[Atom]
_ONE: Monomial = ()
_REMEMBERED = 1 << 14
"""How many divisions and calls are kept: a graph has few sizes, and asks for each of them often."""


def _over(numerator: Dim, divisor: Dim) -> str:
    if isinstance(numerator, SymExpr) and isinstance(divisor, int):
        denominator = lcm(*(c.denominator for _, c in numerator.terms))
        numerator, divisor = scale(numerator, Fraction(denominator)), divisor * denominator
    text = str(numerator)
    below = str(divisor)
    text = f"({text})" if any(c in text for c in "+-*/") else text
    return f"{text}/({below})" if any(c in below for c in "+-*/") else f"{text}/{below}"


@dataclass(frozen=True, eq=False)
class SymExpr:
    """A polynomial over atoms that is not a plain integer. Make one with `symbol` and arithmetic."""

    terms: tuple[Term, ...]

    @staticmethod
    @lru_cache(maxsize=_REMEMBERED)
    def of(atom: Atom) -> SymExpr:
        """The size that is just this symbol or call: the same object for the same one, which compares fast."""
        return SymExpr(((((atom, 1),), Fraction(1)),))

    @cached_property
    def _hash(self) -> int:
        return hash(self.terms)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, SymExpr) and self._hash == other._hash and self.terms == other.terms

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of the symbols in it."""
        return frozenset(s.name for s in self.symbols())

    @cached_property
    def constant(self) -> Fraction:
        """The constant term."""
        return dict(self.terms).get(_ONE, Fraction(0))

    @property
    def as_symbol(self) -> Symbol | None:
        """The symbol, if that is all there is."""
        if len(self.terms) == 1 and self.terms[0][1] == 1 and len(self.terms[0][0]) == 1:
            atom, power = self.terms[0][0][0]
            return atom if power == 1 and isinstance(atom, Symbol) else None
        return None

    def symbols(self) -> Iterator[Symbol]:
        """Every symbol in it, with repetitions."""
        for monomial, _ in self.terms:
            for atom, _ in monomial:
                if isinstance(atom, Symbol):
                    yield atom
                else:
                    for arg in atom.args:
                        yield from symbols_of(arg)

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """Its value, given each symbol's: an int, or anything with integer arithmetic (torch.SymInt)."""
        denominator = lcm(*(c.denominator for _, c in self.terms))
        total: Any = 0
        for monomial, coefficient in self.terms:
            product: Any = int(coefficient * denominator)
            for atom, power in monomial:
                for _ in range(power):
                    product = product * _evaluate_atom(atom, values)
            total = total + product
        return total if denominator == 1 else total // denominator

    def substitute(self, mapping: Mapping[str, Dim]) -> Dim:
        """The same size with symbols replaced."""
        if self.names.isdisjoint(mapping):
            return self
        total: Dim = 0
        for monomial, coefficient in self.terms:
            product: Dim = 1
            for atom, power in monomial:
                for _ in range(power):
                    product = product * _substitute_atom(atom, mapping)
            total = total + scale(product, coefficient)
        return total

    def __add__(self, other: Dim) -> Dim:
        return _make(polynomials.added(self.terms, _terms(other)))

    __radd__ = __add__

    def __sub__(self, other: Dim) -> Dim:
        return self + scale(other, Fraction(-1))

    def __rsub__(self, other: Dim) -> Dim:
        return scale(self, Fraction(-1)) + other

    def __neg__(self) -> Dim:
        return scale(self, Fraction(-1))

    def __mul__(self, other: Dim) -> Dim:
        return _make(polynomials.multiplied(self.terms, _terms(other)))

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floor_div(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floor_div(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return mod(self, other)

    def __str__(self) -> str:
        return polynomials.text_of(self.terms)

    __repr__ = __str__


def symbol(name: str, multiple: int = 1) -> SymExpr:
    """The size called `name`, known to be a multiple of `multiple`."""
    if not name.isidentifier():
        raise IRError(f"a dimension's name must be an identifier, not {name!r}")
    return SymExpr.of(Symbol(name, multiple))


def symbols_of(dim: Dim) -> Iterator[Symbol]:
    """The symbols in a dimension, with repetitions."""
    if isinstance(dim, SymExpr):
        yield from dim.symbols()


def evaluate(dim: Dim, values: Mapping[str, Any]) -> Any:
    """The value of a dimension, given each symbol's."""
    return dim.evaluate(values) if isinstance(dim, SymExpr) else dim


def substitute(dim: Dim, mapping: Mapping[str, Dim]) -> Dim:
    """The dimension with symbols replaced."""
    return dim.substitute(mapping) if isinstance(dim, SymExpr) else dim


def floor_div(numerator: Dim, divisor: Dim) -> Dim:
    """The largest whole number that is at most numerator / divisor."""
    if isinstance(numerator, int) and isinstance(divisor, int):
        return numerator // divisor
    if not isinstance(divisor, int):
        if numerator == divisor:
            return 1
        quotient = exact_quotient(numerator, divisor)
        return _call("floor", numerator, divisor) if quotient is None else quotient
    if divisor == 1:
        return numerator
    if divisor < 0:
        return floor_div(scale(numerator, Fraction(-1)), -divisor)
    return _floor_div_by_number(numerator, divisor)


@lru_cache(maxsize=_REMEMBERED)
def _floor_div_by_number(numerator: Dim, divisor: int) -> Dim:
    whole: Dim = 0
    rest: Dim = 0
    for monomial, coefficient in _terms(numerator):
        part = _make({monomial: coefficient})
        share = coefficient / divisor
        if monomial == _ONE:
            # The constant's whole part comes out; what stays in is between 0 and the divisor.
            out = share.numerator // share.denominator
            whole = whole + out
            rest = rest + int(coefficient - out * divisor)
        elif polynomials.is_whole(monomial, share):
            whole = whole + _make({monomial: share})
        else:
            rest = rest + part
    if isinstance(rest, int):
        return whole + rest // divisor
    rest, divisor = _reduced(rest, divisor)
    if _leading(rest) < 0:
        # floor(-x / k) = -ceil(x / k)
        return whole - floor_div(scale(rest, Fraction(-1)) + (divisor - 1), divisor)
    nested = _nested_floor(rest)
    if nested is not None:
        inner_numerator, inner_divisor, constant = nested
        return whole + floor_div(inner_numerator + constant * inner_divisor, inner_divisor * divisor)
    return whole + _call("floor", rest, divisor)


def _leading(expr: SymExpr) -> Fraction:
    """The coefficient of its first term that is no number."""
    return next(c for m, c in expr.terms if m != _ONE)


def _reduced(numerator: SymExpr, divisor: int) -> tuple[SymExpr, int]:
    """floor((g x + c) / (g k)) = floor((x + floor(c / g)) / k) for the greatest g that all of it allows."""
    common = divisor
    for monomial, coefficient in numerator.terms:
        if monomial != _ONE:
            whole = polynomials.with_multiples(monomial, coefficient)
            common = gcd(common, int(whole)) if whole.denominator == 1 else 1
    if common == 1:
        return numerator, divisor
    constant = int(numerator.constant)
    reduced = scale(numerator - constant, Fraction(1, common)) + constant // common
    assert isinstance(reduced, SymExpr)
    return reduced, divisor // common


def _nested_floor(expr: SymExpr) -> tuple[Dim, int, int] | None:
    """For floor(p / a) + c: (p, a, c), because floor((floor(p/a) + c) / b) = floor((p + c a) / (a b))."""
    body = [(m, c) for m, c in expr.terms if m != _ONE]
    match body:
        case [(((Call("floor", (numerator, int(divisor))), 1),), 1)] if expr.constant.denominator == 1:
            return numerator, divisor, int(expr.constant)
    return None


def exact_quotient(numerator: Dim, divisor: SymExpr) -> Dim | None:
    """numerator / divisor where that is a polynomial with whole terms."""
    quotient = polynomials.divided(_terms(numerator), divisor.terms)
    return None if quotient is None else _make(quotient)


def mod(value: Dim, divisor: Dim) -> Dim:
    """The remainder, with the divisor's sign as in Python."""
    if isinstance(value, int) and isinstance(divisor, int):
        return value % divisor
    if divisor == 2:
        # Of the two ways to write it, the one that makes x + mod(x, 2) the padded size 2*ceil(x/2).
        return floor_div(value + 1, 2) * 2 - value
    if isinstance(divisor, int):
        return value - floor_div(value, divisor) * divisor
    if value == 0 or exact_quotient(value, divisor) is not None:
        return 0
    return _call("mod", value, divisor)


def minimum(*args: Dim) -> Dim:
    """The smallest of the sizes."""
    return _extremum("min", min, args)


def maximum(*args: Dim) -> Dim:
    """The largest of the sizes."""
    return _extremum("max", max, args)


def _extremum(name: str, function: Callable[..., int], args: tuple[Dim, ...]) -> Dim:
    numbers = [a for a in args if isinstance(a, int)]
    others: list[Dim] = list(dict.fromkeys(a for a in args if not isinstance(a, int)))
    if not others:
        return function(numbers)
    if numbers:
        others.append(function(numbers))
    return others[0] if len(others) == 1 else _call(name, *others)


@lru_cache(maxsize=_REMEMBERED)
def _call(function: str, *args: Dim) -> SymExpr:
    """The size that is one function call, as an expression: remembered, since hashing its arguments takes a while."""
    return SymExpr.of(Call(function, args))


def _terms(dim: Dim) -> tuple[Term, ...]:
    if isinstance(dim, SymExpr):
        return dim.terms
    return ((_ONE, Fraction(dim)),) if dim else ()


def _make(terms: Mapping[Monomial, Fraction]) -> Dim:
    kept = {m: c for m, c in terms.items() if c}
    if not kept:
        return 0
    if len(kept) == 1 and _ONE in kept:
        value = kept[_ONE]
        if value.denominator != 1:
            raise IRError(f"a size came out as the fraction {value}")
        return int(value)
    return SymExpr(tuple(sorted(kept.items(), key=lambda t: [(a.key, p) for a, p in t[0]])))


def scale(dim: Dim, factor: Fraction) -> Dim:
    """The factor times the dimension, which must come out whole."""
    return _make({m: c * factor for m, c in _terms(dim)})


def _evaluate_atom(atom: Atom, values: Mapping[str, Any]) -> Any:
    if isinstance(atom, Symbol):
        if atom.name not in values:
            raise IRError(f"the size {atom.name} is not known here")
        return values[atom.name]
    args = [evaluate(a, values) for a in atom.args]
    if atom.function == "floor":
        return args[0] // args[1]
    if atom.function == "mod":
        return args[0] % args[1]
    if all(isinstance(arg, int) for arg in args):
        return min(args) if atom.function == "min" else max(args)
    import torch  # noqa: PLC0415  (whoever has numbers need not wait for it)

    # Not min()/max(): they would decide a symbolic comparison here instead of keeping it.
    return reduce(torch.sym_min if atom.function == "min" else torch.sym_max, args)


def _substitute_atom(atom: Atom, mapping: Mapping[str, Dim]) -> Dim:
    if isinstance(atom, Symbol):
        return mapping.get(atom.name, SymExpr.of(atom))
    args = tuple(substitute(a, mapping) for a in atom.args)
    functions: dict[str, Callable[..., Dim]] = {
        "floor": floor_div,
        "mod": mod,
        "min": minimum,
        "max": maximum,
    }
    return functions[atom.function](*args)
