"""What torch's symbolic numbers hold, so that the IR computes with them.

A `torch.SymInt` holds any object that has the methods of `torch.fx.experimental.sym_node.SymNode`. Here it is a size of
the IR with an example of it.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partialmethod
from itertools import count
from types import SimpleNamespace
from typing import Any, ClassVar, TypeAlias

from .conditions import OPPOSITES, RELATIONS, Condition
from .dims import Call, Dim, SymExpr, evaluate, exact_quotient, floor_div, maximum, minimum, mod, symbols_of
from .errors import IRError, SizeGrows, SizeIsNoNumber
from .polynomials import fraction_of
from .questions import note, place_at_work

_LONGEST = 2_000
"""Characters in the text of a size: those of real networks have some tens."""
_ENDLESS = (1 << 63) - 1
"""What torch writes for an open end: a number that no size reaches."""
_REMEMBERED = 1 << 14
_Text: TypeAlias = str
"""In a class that has a method `str`."""


_primes = (p for p in count(1009, 2) if all(p % q for q in range(3, math.isqrt(p) + 1, 2)))


@cache
def _prime(_: str) -> int:
    """A large prime of its own for each name: what holds for these holds for sizes in general."""
    return next(_primes)


# An image is higher than the batch is large, and wider than high. No size of a model enters.
for _name in "NHW":
    _prime(_name)


@lru_cache(_REMEMBERED)
def example(dim: Dim) -> int:
    """The value of a size where each named one is a large prime of its own, times what it is a multiple of."""
    value: int = evaluate(dim, {s.name: _prime(s.name) * s.multiple for s in symbols_of(dim)})
    return value


class Number:
    """What whole numbers, real ones and truths have in common."""

    __slots__ = ("example",)
    example: Any
    """The value at the example sizes."""
    kind: ClassVar[str]
    # Torch then takes the number for that of another compiler, of which it knows nothing.
    shape_env = _hint = None
    expr = SimpleNamespace(free_symbols=frozenset())

    def is_int(self) -> bool:
        return self.kind == "int"

    def is_float(self) -> bool:
        return self.kind == "float"

    def is_bool(self) -> bool:
        return self.kind == "bool"

    def is_nested_int(self) -> bool:
        return False

    def is_constant(self) -> bool:
        return False

    def is_symbolic(self) -> bool:
        return True

    def has_hint(self) -> bool:
        return True

    def maybe_as_int(self) -> int | None:
        return None

    def wrap_int(self, number: int) -> Whole:
        return whole(number)

    def wrap_float(self, number: float) -> Real:
        if not math.isfinite(number):
            return Real(None, str(number), number)
        fraction = fraction_of(number)
        return Real((fraction.numerator, fraction.denominator))

    def wrap_bool(self, truth: bool) -> Truth:
        return Truth(truth, ())

    def clone(self) -> Number:
        return self

    def __repr__(self) -> _Text:
        return f"{self}"

    str = _graph_repr = __repr__

    def _needed(self, *_: Any) -> Any:
        raise SizeIsNoNumber(f"{self}", place_at_work())

    guard_int = guard_float = int_ = float_ = _needed

    # Comparisons, of two whole numbers or two real ones

    def _ratio(self) -> tuple[Dim, Dim] | None:
        """It as a fraction of sizes, None where it is none."""
        return None

    def _compared(self, relation: _Text, other: Number) -> Truth:
        answer = RELATIONS[relation](self.example, other.example)
        condition, mine, theirs = None, self._ratio(), other._ratio()
        if mine is not None and theirs is not None:
            # Of sizes, what is divided by is positive.
            left, right = mine[0] * theirs[1], theirs[0] * mine[1]
            condition = Condition(left, relation if answer else OPPOSITES[relation], right)
            if isinstance(left - right, int) or _ENDLESS in (left, right):
                return Truth(answer, ())
        return Truth(answer, (condition,))

    eq = partialmethod(_compared, "==")
    ne = partialmethod(_compared, "!=")
    lt = partialmethod(_compared, "<")
    le = partialmethod(_compared, "<=")
    gt = partialmethod(_compared, ">")
    ge = partialmethod(_compared, ">=")


class Whole(Number):
    """A size."""

    __slots__ = ("dim",)
    kind = "int"

    def __init__(self, dim: Dim) -> None:
        self.dim = dim
        self.example = example(dim)

    def __str__(self) -> str:
        return str(self.dim)

    def is_symbolic(self) -> bool:
        return isinstance(self.dim, SymExpr)

    def maybe_as_int(self) -> int | None:
        return self.dim if isinstance(self.dim, int) else None

    def int_(self) -> int:
        return self.dim if isinstance(self.dim, int) else self._needed()

    def guard_int(self, file: str = "", line: int = 0) -> int:
        return self.int_()

    def expect_size(self, file: _Text = "", line: int = 0) -> bool:
        return True

    def _ratio(self) -> tuple[Dim, Dim]:
        return self.dim, 1

    def add(self, other: Whole) -> Whole:
        return _computed(operator.add, self.dim, other.dim)

    def sub(self, other: Whole) -> Whole:
        return _computed(operator.sub, self.dim, other.dim)

    def mul(self, other: Whole) -> Whole:
        return _computed(operator.mul, self.dim, other.dim)

    def sym_sum(self, others: Sequence[Whole]) -> Whole:
        return functools.reduce(Whole.add, others)

    def mod(self, other: Whole) -> Whole:
        return _computed(mod, self.dim, other.dim)

    def int_floordiv(self, other: Whole) -> Whole:
        return _computed(floor_div, self.dim, other.dim)

    floordiv = int_floordiv

    def pow_by_natural(self, other: Whole) -> Whole:
        return _computed(_power, self.dim, other.int_())

    def sym_min(self, other: Whole) -> Whole:
        return _computed(minimum, self.dim, other.dim)

    def sym_max(self, other: Whole) -> Whole:
        return _computed(maximum, self.dim, other.dim)

    def neg(self) -> Whole:
        return whole(-self.dim)

    def floor(self) -> Whole:
        return self

    ceil = trunc = floor

    def sym_float(self) -> Real:
        return Real((self.dim, 1))

    def int_truediv(self, other: Whole) -> Real:
        return Real((self.dim, other.dim))

    truediv = int_truediv


class Real(Number):
    """A fraction of sizes, as if computed without rounding, or a power of one; any other number is a text only."""

    __slots__ = ("power", "ratio", "text")
    kind = "float"

    def __init__(self, ratio: tuple[Dim, Dim] | None, text: str = "", example: float = 0.0) -> None:
        self.ratio, self.text, self.example = ratio, text, example
        self.power: tuple[tuple[Dim, Dim], float] | None = None
        if ratio is not None:
            above, below = self.ratio = _reduced(*ratio)
            self.power = self.ratio, 1.0
            self.text = f"({above})/({below})"
            self.example = whole(above).example / whole(below).example

    def __str__(self) -> str:
        return self.text

    def _ratio(self) -> tuple[Dim, Dim] | None:
        return self.ratio

    def _joined(self, other: Real, sign: str, join: Callable[..., tuple[Dim, Dim]]) -> Real:
        if self.ratio is None or other.ratio is None:
            return self._beyond(sign, other)
        return Real(join(*self.ratio, *other.ratio))

    def _beyond(self, sign: str, other: Real) -> Real:
        example = _ARITHMETIC[sign](self.example, other.example)
        return Real(None, f"{self.text} {sign} {other.text}", example)

    def add(self, other: Real) -> Real:
        return self._joined(other, "+", lambda a, b, c, d: (a * d + c * b, b * d))

    def sub(self, other: Real) -> Real:
        return self._joined(other, "-", lambda a, b, c, d: (a * d - c * b, b * d))

    def mul(self, other: Real) -> Real:
        return self._joined(other, "*", lambda a, b, c, d: (a * c, b * d))

    def float_truediv(self, other: Real) -> Real:
        return self._joined(other, "/", lambda a, b, c, d: (a * d, b * c))

    truediv = float_truediv

    def float_pow(self, other: Real) -> Real:
        made = self._beyond("**", other)
        above, below = other.ratio or (None, None)
        if self.ratio is not None and isinstance(above, int) and isinstance(below, int):
            made.power = self.ratio, above / below
        return made

    pow = float_pow

    def neg(self) -> Real:
        return Real((0, 1)).sub(self)

    def sym_float(self) -> Real:
        return self

    def floor(self) -> Whole:
        above, below = self._fraction_of_sizes("floor")
        return _computed(floor_div, above, below)

    # Sizes are not negative: to cut off is to round down.
    trunc = floor

    def ceil(self) -> Whole:
        above, below = self._fraction_of_sizes("ceil")
        return _computed(floor_div, above + below - 1, below)

    def _fraction_of_sizes(self, rounded: str) -> tuple[Dim, Dim]:
        if self.ratio is None:
            raise IRError(f"a size that the IR cannot express: {rounded}({self.text})")
        return self.ratio

    def round(self, digits: int | None = None) -> Any:
        raise IRError(f"a size that the IR cannot express: round({self.text})")


class Truth(Number):
    """An answer, and the conditions from which it follows."""

    __slots__ = ("reasons",)
    kind = "bool"

    def __init__(self, answer: bool, reasons: tuple[Condition | None, ...]) -> None:
        self.example, self.reasons = answer, reasons

    def __str__(self) -> str:
        return " and ".join(map(str, self.reasons))

    def is_constant(self) -> bool:
        return not self.reasons

    def guard_bool(self, file: str = "", line: int = 0) -> bool:
        if self.reasons:
            note(self.reasons)
        answer: bool = self.example
        return answer

    bool_ = guard_size_oblivious = expect_true = guard_bool

    def guard_or_false(self, file: _Text = "", line: int = 0) -> bool:
        # Whoever asks so is right whatever the answer, and need not be noted.
        answer: bool = self.example
        return answer

    guard_or_true = guard_or_false

    def statically_known_true(self, file: _Text = "", line: int = 0) -> bool:
        return not self.reasons and self.guard_bool()

    def sym_not(self) -> Truth:
        return Truth(not self.example, self.reasons)

    def sym_and(self, other: Truth) -> Truth:
        for one in (self, other):
            if not one.example:
                return one
        return Truth(True, self.reasons + other.reasons)

    def sym_or(self, other: Truth) -> Truth:
        return self.sym_not().sym_and(other.sym_not()).sym_not()

    and_, or_ = sym_and, sym_or


_ARITHMETIC: dict[str, Callable[[Any, Any], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
}


@lru_cache(_REMEMBERED)
def whole(dim: Dim) -> Whole:
    """What a symbolic integer holds that is this size."""
    return Whole(dim)


@lru_cache(_REMEMBERED)
def _computed(function: Callable[[Any, Any], Dim], left: Dim, right: Dim) -> Whole:
    found = function(left, right)
    if isinstance(found, SymExpr):
        for monomial, _ in found.terms:
            for atom, _ in monomial:
                if isinstance(atom, Call) and len(atom.key) > _LONGEST:
                    raise SizeGrows(atom.key, place_at_work())
    return whole(found)


def _power(base: Dim, exponent: int) -> Dim:
    return math.prod([base] * exponent)


def _reduced(above: Dim, below: Dim) -> tuple[Dim, Dim]:
    if above == below:
        return 1, 1
    if isinstance(below, SymExpr):
        whole = exact_quotient(above, below)
        return (above, below) if whole is None else (whole, 1)
    return above, below
