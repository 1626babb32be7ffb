"""Polynomials with rational coefficients, as sizes are kept: sums of terms, each a coefficient and a monomial.

The atoms that are multiplied are anything hashable with a name to sort by and a known divisor (`dims.Symbol`,
`dims.Call`). A monomial's atoms are sorted, so that equal monomials compare equal.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from fractions import Fraction
from typing import Protocol, TypeAlias, TypeVar


class Factor(Hashable, Protocol):
    """An atom of a monomial."""

    @property
    def key(self) -> str:
        """What it is sorted by: equal for equal atoms only."""

    @property
    def multiple(self) -> int:
        """A number that divides its value."""


A = TypeVar("A", bound=Factor)
Monomial: TypeAlias = tuple[tuple[A, int], ...]
"""Atoms with their powers, by key. The empty one is the number 1."""
Term: TypeAlias = tuple[Monomial[A], Fraction]


def added(*groups: Iterable[Term[A]]) -> dict[Monomial[A], Fraction]:
    """The sum of all terms, without those that cancel."""
    total: dict[Monomial[A], Fraction] = {}
    for group in groups:
        for monomial, coefficient in group:
            total[monomial] = total.get(monomial, Fraction(0)) + coefficient
    return {monomial: coefficient for monomial, coefficient in total.items() if coefficient}


def multiplied(left: Iterable[Term[A]], right: Iterable[Term[A]]) -> dict[Monomial[A], Fraction]:
    """The product of two polynomials."""
    right = tuple(right)
    return added((_product(m, n), c * d) for m, c in left for n, d in right)


def divided(numerator: Iterable[Term[A]], divisor: Iterable[Term[A]]) -> dict[Monomial[A], Fraction] | None:
    """numerator / divisor where that is a polynomial with whole terms: long division by the term of highest degree."""
    divisor = tuple(divisor)
    below, coefficient = max(divisor, key=_degree)
    rest, quotient = added(numerator), dict[Monomial[A], Fraction]()
    while rest:
        monomial, c = max(rest.items(), key=_degree)
        part, share = _quotient(monomial, below), c / coefficient
        if part is None or part in quotient or not is_whole(part, share):
            return None
        quotient[part] = share
        rest = added(rest.items(), multiplied(divisor, [(part, -share)]).items())
    return quotient


def is_whole(monomial: Monomial[A], coefficient: Fraction) -> bool:
    """Whether coefficient x monomial is surely a whole number."""
    return with_multiples(monomial, coefficient).denominator == 1


def with_multiples(monomial: Monomial[A], coefficient: Fraction) -> Fraction:
    """The coefficient with the known divisors of the atoms in it: coefficient x monomial is a multiple of that."""
    for atom, power in monomial:
        coefficient *= atom.multiple**power
    return coefficient


def _product(left: Monomial[A], right: Monomial[A]) -> Monomial[A]:
    powers = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items(), key=lambda t: t[0].key))


def _quotient(monomial: Monomial[A], divisor: Monomial[A]) -> Monomial[A] | None:
    powers = dict(monomial)
    for atom, power in divisor:
        powers[atom] = powers.get(atom, 0) - power
        if powers[atom] < 0:
            return None
    return tuple((atom, powers[atom]) for atom, _ in monomial if powers[atom])


def _degree(term: Term[A]) -> tuple[int, list[tuple[str, int]]]:
    return sum(power for _, power in term[0]), [(atom.key, power) for atom, power in term[0]]


def text_of(terms: Iterable[Term[A]]) -> str:
    """Such as `2*H*W-H/4+1`: the highest degree first, the constant last."""
    text = ""
    for monomial, coefficient in sorted(terms, key=lambda t: (-_degree(t)[0], [a.key for a, _ in t[0]])):
        sign = "-" if coefficient < 0 else "+" if text else ""
        text += sign + _term_text(monomial, abs(coefficient))
    return text


def _term_text(monomial: Monomial[A], coefficient: Fraction) -> str:
    factors = [str(atom) for atom, power in monomial for _ in range(power)]
    if coefficient.numerator != 1 or not factors:
        factors.insert(0, str(coefficient.numerator))
    text = "*".join(factors)
    return text if coefficient.denominator == 1 else f"{text}/{coefficient.denominator}"


def fraction_of(number: float) -> Fraction:
    """0.1 as 1/10: what a factor in a program stands for, where that is the same float."""
    exact = Fraction(number)
    short = exact.limit_denominator(1 << 12)
    return short if float(short) == number else exact
