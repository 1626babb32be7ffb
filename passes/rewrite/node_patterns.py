"""Patterns of single values and of nodes, and matching them."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from typing_extensions import override

from detc.ir import (
    Attribute,
    Constant,
    IRError,
    Node,
    Operand,
    Value,
    attribute_key,
)
from detc.ir.lazy import torch

from ..core.base import attribute
from .match import Match

ONE_WAY = (None,)
"""The ways to match what binds nothing."""


class Pattern(ABC):
    """Matches one operand: a value, a list of values, or a left-out operand."""

    @abstractmethod
    def match(self, operand: Operand, match: Match) -> Iterator[None]:
        """Bind what it matches and yield, once for each way; on resumption the bindings are undone."""

    def where(self, predicate: Callable[[Value], bool], why: str) -> Pattern:
        """This pattern, for values that fulfil the predicate. `why` is reported where they do not."""
        return _Where(self, predicate, why)

    def named(self, name: str) -> Pattern:
        """This pattern, with what it matches available as `m.<name>`."""
        return _Named(self, name)


class Variable(Pattern):
    """Any operand at all, the same wherever the variable stands."""

    def __init__(self, name: str) -> None:
        self.name = name

    @override
    def match(self, operand: Operand, match: Match) -> Iterator[None]:
        return match.unify(self.name, operand, _same, "value ")


class NodePattern(Pattern):
    """A node of one of several ops. As an operand it is the node's first result, `pattern[i]` another."""

    def __init__(self, ops: tuple[str, ...], operands: Sequence[Pattern], attributes: dict[str, Any]) -> None:
        self.ops = ops
        self.operands = operands
        self.attributes = attributes
        self.label = ""
        self._swap = False
        self._once = False
        self._facts: dict[str, Callable[[Node], Any]] = {}

    @override
    def named(self, name: str) -> NodePattern:
        """The same pattern, with the matched node available as `m.<name>`."""
        self.label = name
        return self

    def commutative(self) -> NodePattern:
        """The same pattern, which also matches with its first two operands exchanged."""
        if len(self.operands) < 2:
            raise IRError("a commutative pattern needs two operands")
        self._swap = True
        return self

    def single_use(self) -> NodePattern:
        """The same pattern, for a node that one other node uses, and no output of the graph."""
        self._once = True
        return self

    def having(self, name: str, fact: Callable[[Node], Any]) -> NodePattern:
        """The same pattern, with `fact(node)` available as `m.<name>`; it must be equal wherever the name stands."""
        self._facts[name] = fact
        return self

    def __getitem__(self, index: int) -> Pattern:
        return _Result(self, index)

    @override
    def match(self, operand: Operand, match: Match) -> Iterator[None]:
        return self.match_result(operand, 0, match)

    def match_result(self, operand: Operand, index: int, match: Match) -> Iterator[None]:
        """Match a value that is one result of such a node."""
        if not isinstance(operand, Value) or operand.producer is None:
            return match.miss("expected ", self, ", found ", described(operand))
        if operand.index != index:
            return match.miss("expected result ", index, " of ", self, ", found result ", operand.index)
        return self.match_node(operand.producer, match)

    def match_node(self, node: Node, match: Match) -> Iterator[None]:
        """Match a node."""
        if node.op.name not in self.ops:
            return match.miss("expected ", self, ", found ", node.op.name)
        if self._once and not _used_once(node):
            return match.miss("the result of ", node.op.name, " is used elsewhere")
        return match.enter(self, node, lambda: self._match_inside(node, match))

    def _match_inside(self, node: Node, match: Match) -> Iterator[None]:
        attributes, facts = list(self.attributes.items()), list(self._facts.items())
        for _ in self._match_attributes(node, attributes, match) if attributes else ONE_WAY:
            for _ in self._match_all_operands(node, match):
                yield from self._match_facts(node, facts, match) if facts else ONE_WAY

    def _match_facts(
        self, node: Node, facts: Sequence[tuple[str, Callable[[Node], Any]]], match: Match
    ) -> Iterator[None]:
        if not facts:
            yield
            return
        (name, fact), *rest = facts
        for _ in match.unify(name, fact(node), operator.eq):
            yield from self._match_facts(node, rest, match)

    def _match_attributes(self, node: Node, wanted: list[tuple[str, Any]], match: Match) -> Iterator[None]:
        if not wanted:
            yield
            return
        (name, expected), *rest = wanted
        if name not in node.attributes and name not in node.op.attributes:
            match.miss(node.op.name, f" has no attribute {name!r} here")
            return
        value = attribute(node, name)
        if isinstance(expected, AttributeCapture):
            if not expected.accepts(value):
                match.miss(f"{name}={value} of {node.op.name} is refused")
                return
            for _ in match.unify(expected.name, value, _same_attribute):
                yield from self._match_attributes(node, rest, match)
        elif expected(value) if callable(expected) else _equal_attribute(expected, value):
            yield from self._match_attributes(node, rest, match)
        else:
            match.miss(f"{name}={value} of {node.op.name} is refused")

    def _match_all_operands(self, node: Node, match: Match) -> Iterator[None]:
        given, wanted = list(node.operands), len(self.operands)
        if len(given) > wanted and any(operand is not None for operand in given[wanted:]):
            match.miss(node.op.name, " has more operands than the pattern")
            return
        given += [None] * (wanted - len(given))
        yield from match_in_order(self.operands, given, match)
        if self._swap:
            yield from match_in_order(self.operands, [given[1], given[0], *given[2:]], match)

    def __str__(self) -> str:
        names = " or ".join(self.ops[:3])
        return names if len(self.ops) <= 3 else f"{names} or {len(self.ops) - 3} others"


class _Result(Pattern):
    def __init__(self, node: NodePattern, index: int) -> None:
        self._node = node
        self._index = index

    @override
    def match(self, operand: Operand, match: Match) -> Iterator[None]:
        return self._node.match_result(operand, self._index, match)


class _Where(Pattern):
    def __init__(self, inner: Pattern, predicate: Callable[[Value], bool], why: str) -> None:
        self._inner = inner
        self._predicate = predicate
        self._why = why

    @override
    def match(self, operand: Operand, match: Match) -> Iterator[None]:
        if isinstance(operand, Value) and self._predicate(operand):
            return self._inner.match(operand, match)
        return match.miss(self._why)


class _Named(Pattern):
    def __init__(self, inner: Pattern, name: str) -> None:
        self._inner = inner
        self._variable = Variable(name)

    @override
    def match(self, operand: Operand, match: Match) -> Iterator[None]:
        for _ in self._inner.match(operand, match):
            yield from self._variable.match(operand, match)


class LeftOut(Pattern):
    """An operand that is not given."""

    @override
    def match(self, operand: Operand, match: Match) -> Iterator[None]:
        if operand is None:
            yield
        else:
            match.miss("an operand is given that the pattern leaves out")


class Anything(Pattern):
    """Any operand, left out or not."""

    @override
    def match(self, operand: Operand, match: Match) -> Iterator[None]:
        yield


class Optional(Pattern):
    """A pattern, or an operand that is not given."""

    def __init__(self, inner: Pattern) -> None:
        self._inner = inner

    @override
    def match(self, operand: Operand, match: Match) -> Iterator[None]:
        if operand is not None:
            return self._inner.match(operand, match)
        if isinstance(self._inner, Variable):
            return self._inner.match(None, match)
        return iter(ONE_WAY)


class Either(Pattern):
    """Any of several patterns, tried in order."""

    def __init__(self, alternatives: Sequence[Pattern]) -> None:
        self._alternatives = alternatives

    @override
    def match(self, operand: Operand, match: Match) -> Iterator[None]:
        for alternative in self._alternatives:
            yield from alternative.match(operand, match)


class AttributeCapture:
    """An attribute that the match keeps under a name."""

    def __init__(self, name: str, predicate: Callable[[Any], bool] | None) -> None:
        self.name = name
        self._predicate = predicate

    def accepts(self, value: Attribute) -> bool:
        return self._predicate is None or self._predicate(value)


def match_in_order(patterns: Sequence[Pattern], operands: Sequence[Operand], match: Match) -> Iterator[None]:
    """Match each pattern with the operand in its place."""
    if not patterns:
        return iter(ONE_WAY)
    if len(patterns) == 1:
        return patterns[0].match(operands[0], match)
    return _match_first(patterns, operands, match)


def _match_first(patterns: Sequence[Pattern], operands: Sequence[Operand], match: Match) -> Iterator[None]:
    for _ in patterns[0].match(operands[0], match):
        yield from match_in_order(patterns[1:], operands[1:], match)


def is_known(value: Value) -> bool:
    """Whether the value is a constant with data (a weight of a parsed text may have none)."""
    return isinstance(value, Constant) and not value.data.is_meta


def _same(left: Any, right: Any) -> bool:
    if left is right:
        return True
    if isinstance(left, Constant) and isinstance(right, Constant) and left.is_literal and right.is_literal:
        return left.type == right.type and torch.equal(left.data, right.data)
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(_same(a, b) for a, b in zip(left, right, strict=True))
    return False


def _same_attribute(left: Attribute, right: Attribute) -> bool:
    return attribute_key(left) == attribute_key(right)


def _equal_attribute(expected: Any, value: Attribute) -> bool:
    if isinstance(expected, tuple) and not isinstance(value, tuple):
        # torch takes one number for a list of equal ones: stride=2 is stride=(2, 2).
        return all(item == value for item in expected)
    return bool(expected == value)


def _used_once(node: Node) -> bool:
    users = {result.only_user for result in node.results if result.is_used}
    return len(users) == 1 and None not in users


def described(operand: Operand) -> str:
    """An operand in the words of a miss."""
    if operand is None:
        return "nothing"
    if isinstance(operand, tuple):
        return f"a list of {len(operand)}"
    if isinstance(operand, Constant):
        return "a constant"
    return operand.producer.op.name if operand.producer else "an input"
