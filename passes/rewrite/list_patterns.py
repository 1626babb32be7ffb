"""Patterns of lists of operands, and of any number of nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from typing_extensions import override

from detc.ir import IRError, Node, Operand, Value

from .match import Lists, Match
from .node_patterns import NodePattern, Pattern, Variable, described, match_in_order


class ListOf(Pattern):
    """A list with a pattern for each of its items."""

    def __init__(self, items: Sequence[Pattern]) -> None:
        self._items = items

    @override
    def match(self, operand: Operand, match: Match) -> Iterator[None]:
        if not isinstance(operand, tuple) or len(operand) != len(self._items):
            match.miss(f"expected a list of {len(self._items)}, found {described(operand)}")
        else:
            yield from match_in_order(self._items, operand, match)


class Each(Pattern):
    """One pattern for all items of a list of any length; as a root, for any number of nodes."""

    def __init__(self, item: Pattern, lists: Lists, at_least: int) -> None:
        self.item = item
        self._lists = lists
        self._at_least = at_least

    @property
    def node(self) -> NodePattern:
        """The pattern of each node, where it is a root. Raises IRError if it is of something else."""
        if not isinstance(self.item, NodePattern):
            raise IRError("as a root `each` must have the pattern of a node")
        return self.item

    @override
    def match(self, operand: Operand, match: Match) -> Iterator[None]:
        if not isinstance(operand, tuple) or len(operand) < self._at_least:
            match.miss(f"expected a list of {self._at_least} or more, found {described(operand)}")
            return
        for _ in match.length(self._lists, len(operand)):
            yield from self._match_from(0, operand, match)

    def _match_from(self, index: int, operands: Sequence[Value | None], match: Match) -> Iterator[None]:
        if index == len(operands):
            yield
            return
        for _ in match.item(self._lists, index, lambda: self.item.match(operands[index], match)):
            yield from self._match_from(index + 1, operands, match)

    def match_nodes(self, first: Node, taken: Sequence[Node], match: Match) -> Iterator[list[Node]]:
        """All nodes that match together with the first one, except those that are taken."""
        for _ in match.item(self._lists, 0, lambda: self.node.match_node(first, match)):
            further = _candidates(self.node, [*taken, first], match)
            for found in self._match_further([first], further, match):
                if len(found) < self._at_least:
                    match.miss(f"fewer than {self._at_least} {self.node} belong together")
                else:
                    yield from (found for _ in match.length(self._lists, len(found)))

    def _match_further(
        self, found: list[Node], further: Sequence[Node], match: Match
    ) -> Iterator[list[Node]]:
        if not further:
            yield found
            return
        node, *rest = further
        matched = False
        for _ in match.item(self._lists, len(found), lambda: self.node.match_node(node, match)):
            matched = True
            yield from self._match_further([*found, node], rest, match)
        if not matched:
            yield from self._match_further(found, rest, match)


Root: TypeAlias = NodePattern | Each
"""What a pattern may have as a root."""


def root_node(root: Root) -> NodePattern:
    """The pattern of the node, or of each node, that a root matches."""
    return root.node if isinstance(root, Each) else root


def match_roots(roots: Sequence[Root], node: Node, match: Match) -> bool:
    """Match the roots of a pattern, the first one at `node`. Returns whether they do."""
    alone = len(roots) == 1
    for found in _match_root(roots[0], node, [], match) if alone else _match_roots(roots, [node], [], match):
        match.finish(found)
        # The generators are dropped here, before they undo the bindings.
        return True
    return False


def _match_roots(
    roots: Sequence[Root], nodes: Sequence[Node], found: list[Node], match: Match
) -> Iterator[list[Node]]:
    root, *rest = roots
    for node in nodes:
        for taken in _match_root(root, node, found, match):
            matched = [*found, *taken]
            if rest:
                further = _candidates(root_node(rest[0]), matched, match)
                yield from _match_roots(rest, further, matched, match)
            else:
                yield matched


def _match_root(root: Root, node: Node, found: list[Node], match: Match) -> Iterator[list[Node]]:
    if isinstance(root, Each):
        return root.match_nodes(node, found, match)
    return ([node] for _ in root.match_node(node, match))


def _candidates(root: NodePattern, taken: Sequence[Node], match: Match) -> list[Node]:
    """Where a further root may match: users of a value that it shares with the roots before it."""
    for operand in root.operands:
        if isinstance(operand, Variable) and isinstance(value := match.bound(operand.name), Value):
            found = [user for user in value.users if user.op.name in root.ops and user not in taken]
            if not found:
                match.miss(f"no second {root} uses the same {operand.name}")
            return found
    raise IRError(f"the root {root} has no variable in common with the roots before it")
