"""Graph: the IR's mutable core.

SSA: a value is made once, by a node, as an input, or as a constant. Nodes are a doubly linked list, so inserting
and erasing are O(1) and are safe while iterating. A value knows its users, so replacing it costs O(users), and
O(carriers) where sizes get another name by that.
"""

from __future__ import annotations

import copy
import heapq
from collections.abc import Iterator, Mapping
from typing import Any

from .collector import paused_collector
from .dims import Dim
from .errors import IRError
from .lazy import torch
from .node import LITERAL_LIMIT, Constant, Node, Value, map_operands
from .sizes import SizeIndex
from .types import Type, substitute_type

_GAP = 1 << 128
_SHARE = 16
"""Of the numbers between two nodes this part goes to one in between: most follow it there, before the same node."""


class Graph:
    """A list of nodes with inputs, named outputs and named weights.

    Sizes are used like values. A named size comes from the graph inputs that have it in their types, and else from the
    node that brings it in: the name is in a result's type, and neither in an operand's type nor in an attribute.

    - A size in an attribute is a use of the value that the size comes from: it cannot be erased, dead code keeps it,
      `sort` puts it first, `is_used` tells of it. Of several inputs that have a size all but one can be removed.
    - A size in a result's type is none by itself. By the rule above it comes with an operand or with an attribute,
      which are uses, or the node itself brings it in.
    - `replace_uses` makes the sizes of both values the same. A name that a node brought in gives way, the younger of
      two; an input's never does. Where several nodes bring in one size, it comes from the first of them.

    Attributes:
        sizes: where each named size comes from and what uses it.
        name: the graph's name.
        level: which spec it obeys: `captured`, `flat`, `onnx`, `caffe2` or `torchscript`.
        metadata: plain facts about the model (str, numbers, lists, dicts) that artifacts carry along.
    """

    def __init__(self, name: str = "graph", level: str = "captured") -> None:
        self.name = name
        self.level = level
        self.metadata: dict[str, Any] = {}
        self.inputs: list[Value] = []
        self.weights: dict[str, Constant] = {}
        self._outputs: dict[str, Value] = {}
        self._first: Node | None = None
        self._last: Node | None = None
        self._count = 0
        self.sizes = SizeIndex()
        self._symbol_counters: dict[str, int] = {}
        self._weight_counters: dict[str, int] = {}

    # Nodes

    def __iter__(self) -> Iterator[Node]:
        """Nodes in order. They may be erased and inserted meanwhile; new ones further on are visited."""
        node = self._first
        while node is not None:
            # An erased node keeps its link forward, so the walk goes on from where it stood.
            following = node._next
            yield node
            if node.graph is self:
                following = node._next
            else:
                while following is not None and following.graph is not self:
                    following = following._next
            node = following

    def __reversed__(self) -> Iterator[Node]:
        node = self._last
        while node is not None:
            previous = node._previous
            yield node
            if node.graph is self:
                previous = node._previous
            else:
                while previous is not None and previous.graph is not self:
                    previous = previous._previous
            node = previous

    def __len__(self) -> int:
        return self._count

    @property
    def nodes(self) -> list[Node]:
        """A snapshot of the nodes in order."""
        return list(self)

    def append(self, node: Node) -> Node:
        """Put a node at the end."""
        return self._link(node, self._last, None)

    def insert_before(self, anchor: Node, node: Node) -> Node:
        """Put a node right before another."""
        self._own(anchor)
        return self._link(node, anchor._previous, anchor)

    def insert_after(self, anchor: Node, node: Node) -> Node:
        """Put a node right after another."""
        self._own(anchor)
        return self._link(node, anchor, anchor._next)

    def erase(self, node: Node) -> None:
        """Take a node out. Raises IRError while anything still uses its results."""
        self._own(node)
        for result in node.results:
            if result.is_used:
                raise IRError(f"cannot erase {node!r}: {self._use_of(result)}")
        self._unlink(node)
        node._drop_uses()
        self.sizes.update(node)

    def _use_of(self, value: Value) -> str:
        """The first use of a value, in words."""
        if value.users:
            return f"%{value.name} is used by {value.users[0]!r}"
        for name, output in self._outputs.items():
            if output is value:
                return f"it gives the output {name!r}"
        if value.is_output:
            return f"%{value.name} is an output of another graph"
        user = value.size_users[0]
        name = next(n for n in sorted(user.size_names) if self.sizes.origin(n) is value)
        return f"the size {name}, which comes from %{value.name}, is used by {user!r}"

    def move_before(self, anchor: Node, node: Node) -> None:
        """Move a node to right before another."""
        self._own(node)
        self._own(anchor)
        if anchor is node:
            return
        self._unlink(node)
        previous = anchor._previous
        self._place(node, previous, anchor)

    def _own(self, node: Node) -> None:
        if node.graph is not self:
            raise IRError(f"{node!r} is not in this graph")

    def _link(self, node: Node, previous: Node | None, following: Node | None) -> Node:
        if node.graph is not None:
            raise IRError(f"{node!r} is in a graph already")
        self._place(node, previous, following)
        node._take_uses()
        self.sizes.update(node)
        return node

    def _place(self, node: Node, previous: Node | None, following: Node | None) -> None:
        node.graph = self
        node._previous, node._next = previous, following
        node._order = _order_between(previous, following)
        if previous is None:
            self._first = node
        else:
            previous._next = node
        if following is None:
            self._last = node
        else:
            following._previous = node
        self._count += 1
        if previous is not None and node._order == previous._order:
            for place, other in enumerate(self):
                other._order = place * _GAP

    def _unlink(self, node: Node) -> None:
        if node._previous is None:
            self._first = node._next
        else:
            node._previous._next = node._next
        if node._next is None:
            self._last = node._previous
        else:
            node._next._previous = node._previous
        node.graph = None
        self._count -= 1

    # Values

    def add_input(self, name: str, type: Type) -> Value:
        """Add a graph input at the end."""
        if any(v.name == name for v in self.inputs):
            raise IRError(f"there is an input {name!r} already")
        value = Value(type, name)
        value.graph = self
        self.inputs.append(value)
        self.sizes.update_input(value, frozenset(), type.size_names)
        return value

    def input(self, name: str) -> Value:
        """The input of that name. Raises IRError when there is none."""
        for value in self.inputs:
            if value.name == name:
                return value
        raise IRError(f"no input {name!r}; there are {', '.join(v.name for v in self.inputs)}")

    def remove_input(self, value: Value) -> None:
        """Take an unused input away. Raises IRError while it is used."""
        if value.is_used:
            raise IRError(f"cannot remove the input {value.name!r}: {self._use_of(value)}")
        self.inputs = [v for v in self.inputs if v is not value]
        self.sizes.update_input(value, value.type.size_names, frozenset())
        value.graph = None

    def add_weight(self, name: str, data: torch.Tensor) -> Constant:
        """The weight of that name, added if need be. It shares storage with `data`.

        Errors:
            IRError: there is another weight of that name.
        """
        known = self.weights.get(name)
        if known is not None:
            if known.data is not data:
                raise IRError(f"there is another weight called {name!r}")
            return known
        weight = Constant(data, name)
        self.weights[name] = weight
        return weight

    def constant(self, data: torch.Tensor, name: str = "constant") -> Constant:
        """A constant: a literal where it is small, a weight with a fresh name where it is not."""
        if data.numel() <= LITERAL_LIMIT:
            return Constant(data.detach())
        return self.add_weight(self.fresh_weight_name(name), data.detach())

    def fresh_weight_name(self, stem: str) -> str:
        """A name that no weight has yet: `stem`, or `stem_1`, `stem_2`, ..."""
        if stem not in self.weights:
            return stem
        number = self._weight_counters.get(stem, 1)
        while f"{stem}_{number}" in self.weights:
            number += 1
        # A pruned weight's number is not given out again: a dump of all stages keeps them apart.
        self._weight_counters[stem] = number + 1
        return f"{stem}_{number}"

    @property
    def unused_weights(self) -> list[str]:
        """The names of the weights that nothing uses."""
        return [name for name, weight in self.weights.items() if not weight.is_used]

    def prune_weights(self) -> bool:
        """Forget weights that nothing uses. Returns whether there were any."""
        unused = self.unused_weights
        for name in unused:
            del self.weights[name]
        return bool(unused)

    @property
    def outputs(self) -> Mapping[str, Value]:
        """The outputs by name, in order."""
        return self._outputs

    def set_outputs(self, outputs: Mapping[str, Value]) -> None:
        """Replace the outputs."""
        for value in self._outputs.values():
            value._outputs -= 1
        self._outputs = dict(outputs)
        for value in self._outputs.values():
            value._outputs += 1

    def replace_uses(self, old: Value, new: Value) -> None:
        """Use `new` wherever `old` was used, outputs and sizes included. The name moves along if `new` has none."""
        if old is new:
            return
        self.unify_sizes(old, new)
        for user in old.users:
            user.replace_operand(old, new)
        if old.is_output:
            self.set_outputs({name: new if v is old else v for name, v in self._outputs.items()})
        if not new.name and new.producer is not None:
            new.name = old.name

    def may_replace(self, old: Value, new: Value) -> bool:
        """Whether the types differ in nothing but names of sizes that `replace_uses` makes the same."""
        if old.type == new.type:
            return True
        names = self.sizes.unify(old.type, new.type)
        return substitute_type(old.type, names) == substitute_type(new.type, names)

    def unify_sizes(self, old: Value, new: Value) -> None:
        """Give two values that mean the same the same sizes, here and wherever those stand. See `Graph`."""
        if old.type != new.type:
            self.substitute_sizes(self.sizes.unify(old.type, new.type))

    def fresh_symbol(self, stem: str) -> str:
        """A name for a size that no value in the graph has yet: `stem`, or `stem_1`, `stem_2`, ..."""
        name = stem
        while name in self.sizes.known:
            number = self._symbol_counters.get(stem, 1)
            name, self._symbol_counters[stem] = f"{stem}_{number}", number + 1
        self.sizes.meet(name)  # taken from now on, even if no value gets it
        return name

    def values(self) -> Iterator[Value]:
        """Every value: inputs, weights, then each node's results in order."""
        yield from self.inputs
        yield from self.weights.values()
        for node in self:
            yield from node.results

    # Whole-graph operations

    def substitute_sizes(self, sizes: Mapping[str, Dim]) -> None:
        """Put other sizes for the named ones, in all types and attributes."""
        for value in dict.fromkeys(value for name in sizes for value in self.sizes.inputs[name]):
            value.type = substitute_type(value.type, sizes)
        for node in dict.fromkeys(node for name in sizes for node in self.sizes.carriers[name]):
            node.substitute_sizes(sizes)

    def sort(self) -> None:
        """Put the nodes in an order in which each follows what it uses; ties keep their order. O(n log n).

        Errors:
            IRError: there is a cycle.
        """
        nodes = self.nodes
        position = {node: i for i, node in enumerate(nodes)}
        waiting: dict[Node, int] = {}
        followers: dict[Node, list[Node]] = {}
        for node in nodes:
            before = {value.producer for value in node.uses if value.producer is not None}
            waiting[node] = len(before)
            for producer in before:
                followers.setdefault(producer, []).append(node)
        ready = [i for i, node in enumerate(nodes) if not waiting[node]]
        heapq.heapify(ready)
        order: list[Node] = []
        while ready:
            node = nodes[heapq.heappop(ready)]
            order.append(node)
            for user in followers.get(node, ()):
                waiting[user] -= 1
                if not waiting[user]:
                    heapq.heappush(ready, position[user])
        if len(order) != len(nodes):
            stuck = next(node for node in nodes if waiting[node])
            raise IRError(f"the graph has a cycle through {stuck!r}")
        if order != nodes:
            self._first = self._last = None
            self._count = 0
            for node in order:
                node._previous = node._next = None
                self._place(node, self._last, None)

    @paused_collector()
    def clone(self) -> Graph:
        """A copy with its own nodes and values. Weights share storage."""
        other = Graph(self.name, self.level)
        other.metadata = copy.deepcopy(self.metadata)
        other._symbol_counters = dict(self._symbol_counters)
        other._weight_counters = dict(self._weight_counters)
        mapping: dict[Value, Value] = {}
        for value in self.inputs:
            mapping[value] = other.add_input(value.name, value.type)
        for name, weight in self.weights.items():
            mapping[weight] = other.weights[name] = Constant(weight.data, name)

        def copied(value: Value) -> Value:
            if value not in mapping and isinstance(value, Constant):
                mapping[value] = Constant(value.data, value.name)
            return mapping[value]

        twins: dict[Node, Node] = {}
        for node in self:
            twin = twins[node] = node.copy(map_operands(node.operands, copied))
            other._place(twin, other._last, None)
            twin._take_uses()
            for mine, theirs in zip(node.results, twin.results, strict=True):
                theirs.name = mine.name
                mapping[mine] = theirs
        other.sizes = self.sizes.copy(mapping, twins)
        other.set_outputs({name: copied(v) for name, v in self._outputs.items()})
        return other

    def __str__(self) -> str:
        # The printer shows graphs and so imports this module.
        from .printer import print_graph  # noqa: PLC0415

        return print_graph(self)


def _order_between(previous: Node | None, following: Node | None) -> int:
    """A number by which a node's place shows, the left neighbour's where there is none in between."""
    if previous is None:
        return 0 if following is None else following._order - _GAP
    if following is None:
        return previous._order + _GAP
    return previous._order + (following._order - previous._order) // _SHARE
