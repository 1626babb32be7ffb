"""The pattern language: patterns over the IR in builder syntax.

A pattern is built by calling ops on a `PatternBuilder`, as a `Builder` builds nodes:

    conv = p.aten.conv2d(x, weight, p.optional(bias), groups=1).single_use().named("conv")
    return p.any_of("aten.relu", "aten.relu_")(conv)

Variables (`x`, `weight`, `bias`) match any value; one that stands in several places must be the same value in
all of them. Attributes that the pattern does not name are free. Matching tries every alternative (the two
orders of a commutative op, `either`) and backtracks; what it got deepest with is kept as the nearest miss.

Of what stands in any number, `each` is the pattern of one. As an operand it matches a list, as a root all nodes that
share what `same` names. Its variables, labels and captured attributes are tuples afterwards:

    grid = p.det.anchors(maps, cells, stride=p.attribute("strides"), offset=p.attribute("offset"))
    return p.det.rpn_proposals(logits, deltas, p.each(grid, same="offset"), im_info)  # m.strides[i], one m.offset

    logits, deltas = p.each(p.aten.conv2d(maps, v), p.aten.conv2d(maps, w))  # lists in step: m.maps[i] feeds both

    return p.each(p.aten.linear(x, weights).named("layers"), same="x")  # all linear layers on one x

`patterns` has the builder, `node_patterns` and `list_patterns` what it builds, `match` what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

from detc.ir import IRError

from .list_patterns import Each, ListOf
from .match import Lists, Match
from .node_patterns import (
    Anything,
    AttributeCapture,
    Either,
    LeftOut,
    NodePattern,
    Optional,
    Pattern,
    Variable,
    is_known,
)

__all__ = ["Each", "Match", "NodePattern", "Pattern", "PatternBuilder", "Variable"]


class PatternBuilder:
    """Builds patterns: `p.<dialect>.<op>(operands..., attribute=expected)`.

    An operand is a pattern, a list of patterns (a list operand of that length) or None (left out). A variable
    in a list operand's place matches the whole list. An expected attribute is a value, a predicate, or
    `p.attribute`.
    """

    def __init__(self) -> None:
        self.count = 0
        """How many nodes it has made patterns for: no pattern of its reaches further."""

    def __getattr__(self, dialect: str) -> _Name:
        if dialect.startswith("_"):
            raise AttributeError(dialect)
        return _Name(self, dialect)

    def any_of(self, *ops: str) -> Callable[..., NodePattern]:
        """A node of any of these ops: `p.any_of("aten.relu", "aten.relu_")(x)`."""

        def make(*operands: Any, **attributes: Any) -> NodePattern:
            self.count += 1
            return NodePattern(ops, [_operand_pattern(o) for o in operands], attributes)

        return make

    def optional(self, pattern: Pattern) -> Pattern:
        """An operand that may be left out; a variable is None then, anything else unbound."""
        return Optional(pattern)

    def either(self, *alternatives: Pattern) -> Pattern:
        """Any of several patterns, tried in order."""
        return Either(alternatives)

    def anything(self) -> Pattern:
        """Any operand, left out or not."""
        return Anything()

    @overload
    def each(self, item: Pattern, /, *, same: str | Sequence[str] = (), at_least: int = 1) -> Each: ...
    @overload
    def each(
        self, *items: Pattern, same: str | Sequence[str] = (), at_least: int = 1
    ) -> tuple[Each, ...]: ...
    def each(
        self, *items: Pattern, same: str | Sequence[str] = (), at_least: int = 1
    ) -> Each | tuple[Each, ...]:
        """Lists of any length, each of whose items matches; several lists are matched in step.

        As a root: all nodes that match, of which `same` must name an operand.

        Args:
            same: the names that stand for one thing in all items. Any other is `m.<name>`, a tuple.
            at_least: how many items there must be.
        """
        lists = Lists((same,) if isinstance(same, str) else same)
        made = tuple(Each(item, lists, at_least) for item in items)
        return made[0] if len(made) == 1 else made

    def constant(self, pattern: Pattern) -> Pattern:
        """A constant whose data is at hand."""
        return pattern.where(is_known, "expected a constant with data")

    def attribute(self, name: str, predicate: Callable[[Any], bool] | None = None) -> AttributeCapture:
        """For an attribute's place: keep its value as `m.<name>`, if the predicate accepts it."""
        return AttributeCapture(name, predicate)


class _Name:
    def __init__(self, builder: PatternBuilder, name: str) -> None:
        self._builder = builder
        self._name = name

    def __getattr__(self, part: str) -> _Name:
        if part.startswith("__"):
            raise AttributeError(part)
        return _Name(self._builder, f"{self._name}.{part}")

    def __call__(self, *operands: Any, **attributes: Any) -> NodePattern:
        return self._builder.any_of(self._name)(*operands, **attributes)


def _operand_pattern(operand: Any) -> Pattern:
    if isinstance(operand, Pattern):
        return operand
    if operand is None:
        return LeftOut()
    if isinstance(operand, list | tuple):
        return ListOf([_operand_pattern(item) for item in operand])
    raise IRError(f"an operand of a pattern must be a pattern, a list or None, not {type(operand).__name__}")
