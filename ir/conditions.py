"""Conditions on sizes: what a graph that was captured from a branching function holds for."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from .dim_parser import parse_dim
from .dims import Dim, Symbol, evaluate, symbols_of
from .errors import IRError

RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
OPPOSITES = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
"""What holds where a relation does not."""
MIRRORED = str.maketrans("<>", "><")
"""For `translate`: what a relation becomes when its sides change places."""


@dataclass(frozen=True)
class Condition:
    """Two sizes and how they must compare: one of < <= == != >= >."""

    left: Dim
    relation: str
    right: Dim

    def __str__(self) -> str:
        return f"{self.left} {self.relation} {self.right}"

    def symbols(self) -> Iterator[Symbol]:
        """Every symbol in it, with repetitions."""
        yield from symbols_of(self.left)
        yield from symbols_of(self.right)

    def holds(self, values: Mapping[str, int]) -> bool:
        """Whether it is true, given each symbol's value."""
        return RELATIONS[self.relation](evaluate(self.left, values), evaluate(self.right, values))

    @classmethod
    def parse(cls, text: str, multiples: Mapping[str, int] | None = None) -> Condition:
        """Read what `str` of a condition wrote. `multiples` gives the known divisors of symbols.

        Errors:
            IRError: the text is no condition.
        """
        for relation in RELATIONS:
            left, found, right = text.partition(f" {relation} ")
            if found:
                return cls(parse_dim(left, multiples), relation, parse_dim(right, multiples))
        raise IRError(f"not a condition: {text!r}")
