"""Rewrite rules as pattern / check / rewrite, and the driver that applies them until none applies.

    class MergeReshapes(RewriteRule):
        '''%1 = aten.reshape(%0, shape=a); %2 = aten.reshape(%1, shape=b)  ->  %2 = aten.reshape(%0,
        shape=b)'''

        def pattern(self, p, x):
            return p.aten.reshape(p.aten.reshape(x))

        def rewrite(self, b, m):
            return b.aten.reshape(m.x, shape=attribute(m.root, "shape"))

A rule refuses by raising `NoMatch(why)`, in `check` or in `rewrite`; the driver then takes back what was
built.
"""

from __future__ import annotations

import inspect
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from detc.ir import Builder, Graph, IRError, Node, TensorType, Value

from ..core.base import Context, NoMatch, RewriteLimit, RuleCount, erase_if_unused
from .list_patterns import Root, match_roots, root_node
from .patterns import Each, Match, NodePattern, Pattern, PatternBuilder, Variable


class RewriteRule(ABC):
    """One rewrite. Subclasses say what to look for, when to refuse, and what to build instead.

    `pattern(self, p, ...)` returns the root of a pattern, or a tuple of roots; its parameters after `p` are
    the pattern's variables. A root is a node, or `p.each` of one. The first root is the one that the driver looks
    for; each further root must share a variable, as a direct operand, with one before it.
    """

    pattern: Callable[..., Any]

    known: ClassVar[list[type[RewriteRule]]] = []
    """Every rule class that was ever defined."""
    matched: ClassVar[set[type[RewriteRule]]] = set()
    """The rule classes that have rewritten something in this process. The test suite asks that all have."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if not inspect.isabstract(cls) and hasattr(cls, "pattern"):
            RewriteRule.known.append(cls)

    @property
    def name(self) -> str:
        """The class's name."""
        return type(self).__name__

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (type(self).__doc__ or "").strip().split("\n", 1)[0]

    def check(self, m: Match) -> None:  # noqa: B027 (most rules need no check)
        """Refuse, by raising NoMatch(why), what the pattern cannot express."""

    @abstractmethod
    def rewrite(self, b: Builder, m: Match) -> Value | Sequence[Value | None]:
        """Build the replacement before the roots: one value for each result of each root, in order.

        None may stand for a result that nothing uses; where it is used after all, the rule does not apply.

        The builder gives new nodes the first root's source and the pass's name. Operands must be values that
        are computed before all roots: those that the pattern matched are.
        """


def summaries(rules: Iterable[RewriteRule]) -> dict[str, str]:
    """Each rule's name and summary."""
    return {rule.name: rule.summary for rule in rules}


def apply_rules(graph: Graph, rules: Iterable[RewriteRule], context: Context) -> bool:
    """Apply the rules wherever they match, until none does. Returns whether anything changed.

    Nodes are visited in order; of several rules for a node the first that applies is taken. After a rewrite
    only the new nodes, and those downstream whose pattern may reach them, are visited again. Dead operands go
    away.

    Errors:
        IRError: a rule built something wrong (another dtype or rank, an operand that is computed later), or
        the
            rules undo each other without end.
    """
    return _Driver(graph, list(rules), context).run()


@dataclass
class _Compiled:
    rule: RewriteRule
    roots: list[Root]
    count: RuleCount


class _Driver:
    def __init__(self, graph: Graph, rules: list[RewriteRule], context: Context) -> None:
        self._graph = graph
        self._context = context
        self._rules: dict[str, list[_Compiled]] = {}
        self._reach: dict[str, int] = {}
        for rule in rules:
            compiled, reach = _compile(rule, context)
            for name in root_node(compiled.roots[0]).ops:
                self._rules.setdefault(name, []).append(compiled)
                self._reach[name] = max(self._reach.get(name, 0), reach)
        self._queue: deque[Node] = deque()
        self._queued: set[Node] = set()
        self._last: deque[str] = deque(maxlen=4)

    def run(self) -> bool:
        self._queue.extend(node for node in self._graph if node.op.name in self._rules)
        self._queued.update(self._queue)
        rewrites = 0
        limit = 20 * len(self._graph) + 1000
        while self._queue:
            node = self._queue.popleft()
            self._queued.discard(node)
            if node.graph is not self._graph:
                continue
            for compiled in self._rules.get(node.op.name, ()):
                start = time.perf_counter()
                applied = self._apply(compiled, node)
                compiled.count.seconds += time.perf_counter() - start
                if applied:
                    rewrites += 1
                    break
            if rewrites > limit:
                raise IRError(f"the rules come to no end; the last ones were {', '.join(self._last)}")
        return rewrites > 0

    def _apply(self, compiled: _Compiled, node: Node) -> bool:
        graph, rule, count = self._graph, compiled.rule, compiled.count
        count.tried += 1
        match = Match(graph)
        if not match_roots(compiled.roots, node, match):
            count.refused[match.nearest_miss] += 1
            return False
        anchor = match.root if len(match.roots) == 1 else min(match.roots, key=lambda root: root.order)
        before, weights = anchor.previous, len(graph.weights)
        builder = Builder(graph, before=anchor, source=match.root.source, created_by=self._context.pass_name)
        try:
            rule.check(match)
            made = rule.rewrite(builder, match)
            new = _between(before, anchor)
            old = [result for root in match.roots for result in root.results]
            old, values = self._paired(rule, old, [made] if isinstance(made, Value) else list(made))
            _check_types(self._graph, rule, old, values)
            self._check_order(rule, new, values, anchor, several=len(match.roots) > 1)
        except NoMatch as refusal:
            count.refused[refusal.reason] += 1
            self._take_back(before, anchor, weights)
            return False
        try:
            with self._context.rewrite(rule.name):
                for was, value in zip(old, values, strict=True):
                    graph.replace_uses(was, value)
                self._clean_up(match.roots)
        except RewriteLimit:
            self._take_back(before, anchor, weights)
            raise
        count.matched += 1
        RewriteRule.matched.add(type(rule))
        self._last.append(rule.name)
        for made_node in new:
            self._enqueue(made_node)
        self._enqueue_downstream(values)
        return True

    def _paired(
        self, rule: RewriteRule, old: list[Value], made: list[Value | None]
    ) -> tuple[list[Value], list[Value]]:
        """The results that have a replacement, and those replacements."""
        if len(old) != len(made):
            raise IRError(f"the rule {rule.name} gave {len(made)} values for {len(old)} results")
        for was, value in zip(old, made, strict=True):
            if value is None and was.is_used:
                raise NoMatch(f"result {was.index} is used")
        pairs = [(was, value) for was, value in zip(old, made, strict=True) if value is not None]
        return [was for was, _ in pairs], [value for _, value in pairs]

    def _check_order(
        self, rule: RewriteRule, new: list[Node], values: list[Value], anchor: Node, *, several: bool
    ) -> None:
        for node in new:
            for value in node.uses:
                self._check_before(rule, value, node, several)
        for value in values:
            if value.producer is not None and value.producer not in new:
                self._check_before(rule, value, anchor, several)

    def _check_before(self, rule: RewriteRule, value: Value, node: Node, several: bool) -> None:
        producer = value.producer
        if producer is None:
            return
        if producer.graph is self._graph and producer.order < node.order:
            return
        if several:
            raise NoMatch("an operand of one root is computed after another root")
        raise IRError(f"the rule {rule.name} uses {value!r} before it is computed")

    # After a rewrite

    def _take_back(self, before: Node | None, anchor: Node, weights: int) -> None:
        for node in reversed(_between(before, anchor)):
            self._graph.erase(node)
        while len(self._graph.weights) > weights:
            self._graph.weights.popitem()

    def _clean_up(self, roots: Sequence[Node]) -> None:
        """Erase the roots, and what only they used."""
        stack: list[Node] = []
        lonely: dict[Value, None] = {}
        for root in roots:
            used = list(root.uses)
            self._graph.erase(root)
            lonely.update(dict.fromkeys(used))
            stack.extend(v.producer for v in used if v.producer is not None)
        while stack:
            node = stack.pop()
            if node.graph is not self._graph:
                continue
            used = list(node.uses)
            if erase_if_unused(self._graph, node):
                lonely.update(dict.fromkeys(used))
                stack.extend(v.producer for v in used if v.producer is not None)
        # A pattern may ask for a single use: who is left alone with a value is looked at again.
        self._enqueue_downstream([v for v in lonely if v.only_user is not None])

    def _enqueue(self, node: Node) -> None:
        if node not in self._queued and node.op.name in self._rules:
            self._queued.add(node)
            self._queue.append(node)

    def _enqueue_downstream(self, values: Iterable[Value]) -> None:
        """Visit those again from which a pattern reaches one of the values."""
        level = list(dict.fromkeys(values))
        seen: set[Node] = set()
        for distance in range(1, max(self._reach.values(), default=0) + 1):
            users = dict.fromkeys(user for value in level for user in value.users if user not in seen)
            seen.update(users)
            for user in users:
                if self._reach.get(user.op.name, 0) >= distance:
                    self._enqueue(user)
            level = [result for user in users for result in user.results]


def _compile(rule: RewriteRule, context: Context) -> tuple[_Compiled, int]:
    p = PatternBuilder()
    names = list(inspect.signature(rule.pattern).parameters)[1:]
    built = rule.pattern(p, *(Variable(name) for name in names))
    roots: list[Root] = []
    for root in built if isinstance(built, tuple) else (built,):
        if not isinstance(root, NodePattern | Each):
            kind = "a pattern of a value" if isinstance(root, Pattern) else type(root).__name__
            raise IRError(f"the pattern of {rule.name} must have a node as its root, not {kind}")
        roots.append(root)
    return _Compiled(rule, roots, context.count(rule.name)), p.count


def _between(before: Node | None, anchor: Node) -> list[Node]:
    found: list[Node] = []
    node = anchor.previous
    while node is not None and node is not before:
        found.append(node)
        node = node.previous
    return found[::-1]


def _check_types(graph: Graph, rule: RewriteRule, old: list[Value], new: list[Value]) -> None:
    if all(a is b for a, b in zip(old, new, strict=True)):
        raise NoMatch("there is nothing to change")
    for was, value in zip(old, new, strict=True):
        if graph.may_replace(was, value):
            continue
        if isinstance(was.type, TensorType) and isinstance(value.type, TensorType):
            same = (was.dtype, was.rank) == (value.dtype, value.rank)
        else:
            same = type(was.type) is type(value.type)
        if not same:
            raise IRError(f"the rule {rule.name} gave {value.type} for {was.type}")
        raise NoMatch(f"the type would be {value.type}, not {was.type}")
