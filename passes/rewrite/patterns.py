"""Patterns over the IR in builder syntax, and matching them against nodes.

A pattern is built by calling ops on a `PatternBuilder`, as a `Builder` builds nodes:

    conv = p.aten.conv2d(x, weight, p.optional(bias), groups=1).single_use().named("conv")
    return p.any_of("aten.relu", "aten.relu_")(conv)

Variables (`x`, `weight`, `bias`) match any value; one that stands in several places must be the same value in
all of them. Attributes that the pattern does not name are free. Matching tries every alternative (the two
orders of a commutative op, `either`) and backtracks; what it got deepest with is kept as the nearest miss.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from typing_extensions import override

from detc.ir import (
    Attribute,
    Constant,
    Graph,
    IRError,
    Node,
    Operand,
    Value,
    attribute_key,
)

from ..core.base import attribute


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
        if self.name not in match.bindings:
            match.bindings[self.name] = operand
            yield
            del match.bindings[self.name]
        elif _same(match.bindings[self.name], operand):
            yield
        else:
            match.miss(f"{self.name} is not the same value in all its places")


class NodePattern(Pattern):
    """A node of one of several ops. As an operand it is the node's first result, `pattern[i]` another."""

    def __init__(
        self, ops: tuple[str, ...], operands: Sequence[Any], attributes: dict[str, Any], *, index: int = 0
    ) -> None:
        self.ops = ops
        self.operands = [_operand_pattern(o) for o in operands]
        self.attributes = attributes
        self.label = ""
        self._swap = False
        self._once = False
        self._index = index

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

    def __getitem__(self, index: int) -> Pattern:
        return _Result(self, index)

    @override
    def match(self, operand: Operand, match: Match) -> Iterator[None]:
        return self.match_result(operand, self._index, match)

    def match_result(self, operand: Operand, index: int, match: Match) -> Iterator[None]:
        """Match a value that is one result of such a node."""
        if not isinstance(operand, Value) or operand.producer is None:
            match.miss(f"expected {self}, found {_described(operand)}")
        elif operand.index != index:
            match.miss(f"expected result {index} of {self}, found result {operand.index}")
        else:
            yield from self.match_node(operand.producer, match)

    def match_node(self, node: Node, match: Match) -> Iterator[None]:
        """Match a node."""
        known = match.nodes.get(self)
        if known is not None:
            if known is node:
                yield
            else:
                match.miss(f"{self} is not the same node in all its places")
            return
        if node.op.name not in self.ops:
            match.miss(f"expected {self}, found {node.op.name}")
            return
        if self._once and not _used_once(node):
            match.miss(f"the result of {node.op.name} is used elsewhere")
            return
        match.nodes[self] = node
        for _ in self._match_attributes(node, list(self.attributes.items()), match):
            yield from self._match_all_operands(node, match)
        del match.nodes[self]

    def _match_attributes(self, node: Node, wanted: list[tuple[str, Any]], match: Match) -> Iterator[None]:
        if not wanted:
            yield
            return
        (name, expected), *rest = wanted
        if name not in node.attributes and name not in node.op.attributes:
            match.miss(f"{node.op.name} has no attribute {name!r} here")
            return
        value = attribute(node, name)
        if isinstance(expected, AttributeCapture):
            if not expected.accepts(value):
                match.miss(f"{name}={value} of {node.op.name} is refused")
                return
            known = match.bindings.get(expected.name, value)
            if attribute_key(known) != attribute_key(value):
                match.miss(f"{expected.name} is not the same in all its places")
                return
            fresh = expected.name not in match.bindings
            match.bindings[expected.name] = value
            yield from self._match_attributes(node, rest, match)
            if fresh:
                del match.bindings[expected.name]
        elif expected(value) if callable(expected) else _equal_attribute(expected, value):
            yield from self._match_attributes(node, rest, match)
        else:
            match.miss(f"{name}={value} of {node.op.name} is refused")

    def _match_all_operands(self, node: Node, match: Match) -> Iterator[None]:
        given = list(node.operands)
        if any(operand is not None for operand in given[len(self.operands) :]):
            match.miss(f"{node.op.name} has more operands than the pattern")
            return
        given += [None] * (len(self.operands) - len(given))
        yield from _match_in_order(self.operands, given, match)
        if self._swap:
            yield from _match_in_order(self.operands, [given[1], given[0], *given[2:]], match)

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
            yield from self._inner.match(operand, match)
        else:
            match.miss(self._why)


class _Named(Pattern):
    def __init__(self, inner: Pattern, name: str) -> None:
        self._inner = inner
        self._variable = Variable(name)

    @override
    def match(self, operand: Operand, match: Match) -> Iterator[None]:
        for _ in self._inner.match(operand, match):
            yield from self._variable.match(operand, match)


class _Anything(Pattern):
    @override
    def match(self, operand: Operand, match: Match) -> Iterator[None]:
        yield


class _Optional(Pattern):
    def __init__(self, inner: Pattern) -> None:
        self._inner = inner

    @override
    def match(self, operand: Operand, match: Match) -> Iterator[None]:
        if operand is not None:
            yield from self._inner.match(operand, match)
        elif isinstance(self._inner, Variable):
            yield from self._inner.match(None, match)
        else:
            yield


class _Either(Pattern):
    def __init__(self, alternatives: Sequence[Pattern]) -> None:
        self._alternatives = alternatives

    @override
    def match(self, operand: Operand, match: Match) -> Iterator[None]:
        for alternative in self._alternatives:
            yield from alternative.match(operand, match)


class _List(Pattern):
    def __init__(self, items: Sequence[Pattern]) -> None:
        self._items = items

    @override
    def match(self, operand: Operand, match: Match) -> Iterator[None]:
        if not isinstance(operand, tuple) or len(operand) != len(self._items):
            match.miss(f"expected a list of {len(self._items)}, found {_described(operand)}")
        else:
            yield from _match_in_order(self._items, operand, match)


class AttributeCapture:
    """An attribute that the match keeps under a name."""

    def __init__(self, name: str, predicate: Callable[[Any], bool] | None) -> None:
        self.name = name
        self._predicate = predicate

    def accepts(self, value: Attribute) -> bool:
        return self._predicate is None or self._predicate(value)


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
            return NodePattern(ops, operands, attributes)

        return make

    def optional(self, pattern: Pattern) -> Pattern:
        """An operand that may be left out; a variable is None then, anything else unbound."""
        return _Optional(pattern)

    def either(self, *alternatives: Pattern) -> Pattern:
        """Any of several patterns, tried in order."""
        return _Either(alternatives)

    def anything(self) -> Pattern:
        """Any operand, left out or not."""
        return _Anything()

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


class Match:
    """What a pattern matched. Variables, named nodes and captured attributes are attributes of it.

    Attributes:
        roots: the matched roots, in the pattern's order; `root` is the first.
        bindings: everything by name.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.bindings: dict[str, Any] = {}
        self.nodes: dict[NodePattern, Node] = {}
        self.roots: tuple[Node, ...] = ()
        self._miss: tuple[int, str] = (-1, "")

    def __getattr__(self, name: str) -> Any:
        bindings = self.__dict__.get("bindings", {})
        if name in bindings:
            return bindings[name]
        raise AttributeError(f"the pattern has no {name!r}; there are {', '.join(bindings)}")

    @property
    def root(self) -> Node:
        return self.roots[0]

    @property
    def nearest_miss(self) -> str:
        """Why the attempt that got deepest did not match."""
        return self._miss[1]

    def miss(self, reason: str) -> None:
        """Note a reason not to match. The one with the most nodes matched before it is kept."""
        if len(self.nodes) > self._miss[0]:
            self._miss = (len(self.nodes), reason)

    def is_single_use(self, value: Value) -> bool:
        """Whether one node uses the value, and nothing else."""
        return value.only_user is not None


def match_roots(roots: Sequence[NodePattern], node: Node, graph: Graph) -> tuple[Match, bool]:
    """Match the roots of a pattern, the first one at `node`. Returns the match and whether it is one."""
    match = Match(graph)
    for _ in _match_roots(roots, node, match):
        match.roots = tuple(match.nodes[root] for root in roots)
        for pattern, matched in match.nodes.items():
            if pattern.label:
                match.bindings[pattern.label] = matched
        # The generators are dropped here, before they undo the bindings.
        return match, True
    return match, False


def _match_roots(roots: Sequence[NodePattern], node: Node, match: Match) -> Iterator[None]:
    first, *rest = roots
    taken = [match.nodes[root] for root in roots if root in match.nodes]
    if node in taken:
        return
    for _ in first.match_node(node, match):
        if not rest:
            yield
            continue
        for candidate in _candidates(rest[0], match):
            yield from _match_roots(rest, candidate, match)


def _candidates(root: NodePattern, match: Match) -> list[Node]:
    """Where a further root may match: users of a value that it shares with the roots before it."""
    taken = set(match.nodes.values())
    for operand in root.operands:
        value = match.bindings.get(operand.name) if isinstance(operand, Variable) else None
        if isinstance(value, Value):
            found = [user for user in value.users if user.op.name in root.ops and user not in taken]
            if not found:
                match.miss(f"no second {root} uses the same {operand.name}")  # type: ignore[attr-defined]
            return found
    raise IRError(f"the root {root} has no variable in common with the roots before it")


def _match_in_order(patterns: Sequence[Pattern], operands: Sequence[Operand], match: Match) -> Iterator[None]:
    if not patterns:
        yield
        return
    for _ in patterns[0].match(operands[0], match):
        yield from _match_in_order(patterns[1:], operands[1:], match)


def _operand_pattern(operand: Any) -> Pattern:
    if isinstance(operand, Pattern):
        return operand
    if operand is None:
        return _LeftOut()
    if isinstance(operand, list | tuple):
        return _List([_operand_pattern(item) for item in operand])
    raise IRError(f"an operand of a pattern must be a pattern, a list or None, not {type(operand).__name__}")


class _LeftOut(Pattern):
    @override
    def match(self, operand: Operand, match: Match) -> Iterator[None]:
        if operand is None:
            yield
        else:
            match.miss("an operand is given that the pattern leaves out")


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


def _equal_attribute(expected: Any, value: Attribute) -> bool:
    if isinstance(expected, tuple) and not isinstance(value, tuple):
        # torch takes one number for a list of equal ones: stride=2 is stride=(2, 2).
        return all(item == value for item in expected)
    return bool(expected == value)


def _used_once(node: Node) -> bool:
    users = {result.only_user for result in node.results if result.is_used}
    return len(users) == 1 and None not in users


def _described(operand: Operand) -> str:
    if operand is None:
        return "nothing"
    if isinstance(operand, tuple):
        return f"a list of {len(operand)}"
    if isinstance(operand, Constant):
        return "a constant"
    return operand.producer.op.name if operand.producer else "an input"
