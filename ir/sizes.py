"""Where each named size of a graph comes from, and what uses it: kept up to date by every change of the graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .dims import Dim, SymExpr, substitute
from .types import Type, dim_pairs

if TYPE_CHECKING:
    from .node import Node, Value

Names = frozenset[str]
Nodes = dict["Node", None]
"""A set in the order of insertion: what walks it must not depend on addresses."""

NO_NAMES: Names = frozenset()
NO_SIZES = (NO_NAMES, NO_NAMES, NO_NAMES)


class SizeIndex:
    """The named sizes of one graph.

    Attributes:
        known: every name that the graph has seen, also those that are gone -> its place in the order of that.
        inputs: name -> the graph inputs that have it.
        makers: name -> the nodes that bring it in: it is in a result's type, and neither in an operand's nor in an
            attribute.
        users: name -> the nodes that have it in an attribute.
        carriers: name -> the nodes that have it in an attribute or in a result's type.
    """

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self.inputs: defaultdict[str, dict[Value, None]] = defaultdict(dict)
        self.users: defaultdict[str, Nodes] = defaultdict(dict)
        self.carriers: defaultdict[str, Nodes] = defaultdict(dict)
        self.makers: defaultdict[str, Nodes] = defaultdict(dict)
        self._nodes = self.users, self.carriers, self.makers

    def copy(self, values: Mapping[Value, Value], nodes: Mapping[Node, Node]) -> SizeIndex:
        """The index of a copy of the graph, which has these values and nodes in place of the graph's."""
        other = SizeIndex()
        other.known.update(self.known)
        for name, inputs in self.inputs.items():
            other.inputs[name] = {values[value]: None for value in inputs}
        for mine, theirs in zip(self._nodes, other._nodes, strict=True):
            for name, kept in mine.items():
                theirs[name] = {nodes[node]: None for node in kept}
        for node, twin in nodes.items():
            twin._sizes = node._sizes
        return other

    def origin(self, name: str) -> Value | None:
        """The value that a size comes from. None where nothing has it, or where several inputs do: any of them will."""
        if inputs := self.inputs[name]:
            return next(iter(inputs)) if len(inputs) == 1 else None
        if not self.makers[name]:
            return None
        maker = min(self.makers[name], key=lambda node: node._order)
        return next(result for result in maker.results if name in result.type.size_names)

    def meet(self, name: str) -> None:
        """The graph has that name from now on."""
        self.known.setdefault(name, len(self.known))

    def update_input(self, value: Value, before: Names, after: Names) -> None:
        """An input has come or gone, or has other sizes."""
        for name in before - after:
            del self.inputs[name][value]
        for name in sorted(after - before):
            self.meet(name)
            self.inputs[name][value] = None

    def update(self, node: Node) -> None:
        """A node has come or gone, or it or an operand has other sizes. O(operands and sizes of the node)."""
        before = node._sizes
        sizes = NO_SIZES if node.graph is None else _sizes_of(node)
        if sizes == before:
            return
        node._sizes = sizes
        for name in sorted(sizes[1].difference(self.known)):
            self.meet(name)
        for was, now, nodes in zip(before, sizes, self._nodes, strict=True):
            if was != now:
                for name in was - now:
                    del nodes[name][node]
                for name in now - was:
                    nodes[name][node] = None

    def unify(self, old: Type, new: Type) -> dict[str, Dim]:
        """What to put for which names, so that the two types have the same sizes in the same places.

        Of two names that nodes gave, the older stays. Where neither size is such a name, the two stay as they are.
        """
        found: dict[str, Dim] = {}
        for pair in dim_pairs(old, new):
            was, now = (substitute(dim, found) for dim in pair)
            if was == now:
                continue
            options = [(a, b) for a, b in ((was, now), (now, was)) if self._may_be(a, b)]
            if options:
                name, dim = max(options, key=lambda option: self.known[str(option[0])])
                found = {known: substitute(d, {str(name): dim}) for known, d in found.items()}
                found[str(name)] = dim
        return found

    def _may_be(self, name: Dim, dim: Dim) -> bool:
        symbol = name.as_symbol if isinstance(name, SymExpr) else None
        if symbol is None or self.inputs[symbol.name] or not self.makers[symbol.name]:
            return False
        return not isinstance(dim, SymExpr) or symbol.name not in dim.names


def _sizes_of(node: Node) -> tuple[Names, Names, Names]:
    """The names that a node uses, carries, and brings in."""
    carried = used = node.size_names
    for result in node.results:
        names = result.type.size_names
        carried = carried | names if carried else names
    made = carried - used if used else carried
    for value in node.operand_values if made else ():
        names = value.type.size_names
        if made <= names:
            return used, carried, NO_NAMES
        made -= names
    return used, carried, made


def matched_sizes(declared: Type, given: Type) -> Mapping[str, Dim]:
    """What each size that is a name in one type is in another, the first place of each name."""
    found: dict[str, Dim] = {}
    for name, dim in dim_pairs(declared, given):
        symbol = name.as_symbol if isinstance(name, SymExpr) else None
        if symbol is not None:
            found.setdefault(symbol.name, dim)
    return found
