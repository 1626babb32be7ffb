"""Value and Node: what a graph is made of, and what a node's attributes and operands may be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from .dims import Dim, Symbol, SymExpr, symbols_of
from .errors import IRError
from .lazy import torch
from .sizes import NO_NAMES, NO_SIZES, Names
from .types import TensorType, Type, substitute_type

if TYPE_CHECKING:
    from .graph import Graph
    from .ops import Op

Attribute: TypeAlias = Union[bool, int, float, str, SymExpr, "torch.dtype", "tuple[Attribute, ...]", None]
Operand: TypeAlias = Union["Value", "tuple[Value | None, ...]", None]

_STRUCTURED = (tuple, SymExpr)
"""The attributes in which sizes may stand."""

LITERAL_LIMIT = 16
"""Constants with at most this many elements may stand in the text form without a name."""


class Value:
    """Something that is used: a node's result, a graph input, or a constant. Compared by identity.

    What uses it: a node that has it as an operand, an output of the graph that it is, and a node that has in an
    attribute a size which comes from it (see `Graph`).
    """

    __slots__ = ("_outputs", "_type", "_users", "graph", "index", "name", "producer")

    def __init__(self, type: Type, name: str = "", producer: Node | None = None, index: int = 0) -> None:
        self._type = type
        self.name = name
        self.producer = producer
        self.index = index
        self.graph: Graph | None = None
        """The graph whose input it is."""
        self._users: dict[Node, int] = {}  # user -> how often it uses this value
        self._outputs = 0

    @property
    def type(self) -> Type:
        """What it is. Setting it tells the graph which sizes are there now."""
        return self._type

    @type.setter
    def type(self, type: Type) -> None:
        before, self._type = self._type, type
        if before.size_names == type.size_names:
            return
        if self.graph is not None:
            self.graph.sizes.update_input(self, before.size_names, type.size_names)
        for node in [self.producer, *self._users]:
            if node is not None and node.graph is not None:
                node.graph.sizes.update(node)

    @property
    def users(self) -> list[Node]:
        """The nodes that have it as an operand, each once, in the order in which they began to."""
        return list(self._users)

    @property
    def size_users(self) -> list[Node]:
        """The nodes that have in an attribute a size which comes from it."""
        return [user for users in self._size_users() for user in users]

    def _size_users(self) -> Iterator[Mapping[Node, None]]:
        """For each size that comes from it and is used: what uses that."""
        graph = self.graph if self.producer is None else self.producer.graph
        names = self._type.size_names if self.producer is None else self.producer._sizes[2]
        if graph is not None and names:
            sizes = graph.sizes
            for name in sorted(names):
                if sizes.users[name] and sizes.origin(name) is self:
                    yield sizes.users[name]

    @property
    def _has_size_users(self) -> bool:
        return any(self._size_users())

    @property
    def is_output(self) -> bool:
        """Whether a graph gives it as an output."""
        return self._outputs > 0

    @property
    def is_used(self) -> bool:
        """Whether anything uses it: a node, an output, a size."""
        return bool(self._users) or self._outputs > 0 or self._has_size_users

    @property
    def only_user(self) -> Node | None:
        """The node that has it as an operand, if nothing else uses it."""
        if len(self._users) != 1 or self._outputs or self._has_size_users:
            return None
        return next(iter(self._users))

    @property
    def tensor_type(self) -> TensorType:
        """Its type, where a tensor is expected. Raises IRError for anything else."""
        if not isinstance(self.type, TensorType):
            raise IRError(f"{self!r} is no tensor")
        return self.type

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor_type.dtype

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.tensor_type.shape

    @property
    def rank(self) -> int:
        return len(self.tensor_type.shape)

    def __repr__(self) -> str:
        origin = f" of {self.producer.op.name}" if self.producer else ""
        return f"<Value %{self.name or '?'}: {self.type}{origin}>"


class Constant(Value):
    """A value known when compiling. A named one is a weight and shares storage with the model."""

    __slots__ = ("data",)

    def __init__(self, data: torch.Tensor, name: str = "") -> None:
        super().__init__(TensorType.of(data), name)
        self.data = data

    @property
    def is_literal(self) -> bool:
        """Whether the text form can show it in full: no name, few elements."""
        return not self.name and self.data.numel() <= LITERAL_LIMIT


class Node:
    """One operation: operands and attributes in, one or more values out.

    Attributes:
        attributes: by name. A change of them is a change of the sizes that the node uses.
        size_names: the names of the sizes in its attributes.
        source: the module path in the model that it comes from, such as `backbone.bottom_up.stem.conv1`.
        created_by: the name of the pass that made it, or `capture`.
    """

    __slots__ = (
        "_next",
        "_operands",
        "_order",
        "_previous",
        "_sizes",
        "attributes",
        "created_by",
        "graph",
        "op",
        "results",
        "size_names",
        "source",
    )

    def __init__(
        self,
        op: Op,
        operands: Sequence[Operand],
        attributes: Mapping[str, Attribute],
        result_types: Sequence[Type],
        *,
        source: str = "",
        created_by: str = "",
    ) -> None:
        self.op = op
        self.attributes = Attributes(attributes)
        self.attributes._node = self
        self.size_names = self.attributes.size_names()
        self.results = [Value(t, "", self, i) for i, t in enumerate(result_types)]
        self.source = source
        self.created_by = created_by
        self.graph: Graph | None = None
        self._operands: tuple[Operand, ...] = tuple(operands)
        self._order = 0  # grows along the graph, with gaps
        self._previous: Node | None = None
        self._next: Node | None = None
        self._sizes = NO_SIZES
        """What its graph's index of sizes knows of it: the names that it uses, carries, and brings in."""

    def copy(self, operands: Sequence[Operand]) -> Node:
        """A node like this one on other operands, in no graph yet."""
        types = [result.type for result in self.results]
        return Node(self.op, operands, self.attributes, types, source=self.source, created_by=self.created_by)

    @property
    def operands(self) -> tuple[Operand, ...]:
        """One entry per operand position: a value, None where it is left out, a tuple where it is a list."""
        return self._operands

    @property
    def operand_values(self) -> Iterator[Value]:
        """Every value it uses, lists flattened, with repetitions."""
        for operand in self._operands:
            if isinstance(operand, Value):
                yield operand
            elif operand is not None:
                for item in operand:
                    if item is not None:
                        yield item

    @property
    def uses(self) -> Iterator[Value]:
        """Every value that it uses, with repetitions: operands, and what the sizes in its attributes come from."""
        yield from self.operand_values
        if self.graph is not None:
            for name in sorted(self.size_names):
                origin = self.graph.sizes.origin(name)
                if origin is not None:
                    yield origin

    @property
    def is_used(self) -> bool:
        """Whether anything uses one of its results."""
        return any(result.is_used for result in self.results)

    @property
    def order(self) -> int:
        """A number that grows along its graph. It says nothing else, and insertions may change it."""
        return self._order

    @property
    def previous(self) -> Node | None:
        """The node right before it in its graph."""
        return self._previous if self.graph is not None else None

    @property
    def next(self) -> Node | None:
        """The node right after it in its graph."""
        return self._next if self.graph is not None else None

    @property
    def result(self) -> Value:
        """Its only result. Raises IRError when there are several."""
        if len(self.results) != 1:
            raise IRError(f"{self.op.name} has {len(self.results)} results, not one")
        return self.results[0]

    def operand(self, index: int) -> Value:
        """The value at one operand position. Raises IRError where a list, nothing, or no operand stands."""
        operand = self._operands[index] if index < len(self._operands) else None
        if not isinstance(operand, Value):
            raise IRError(f"operand {index} of {self.op.name} is no single value")
        return operand

    def operand_or_none(self, index: int) -> Value | None:
        """The value at one operand position, or None where it is left out."""
        return (
            self.operand(index) if index < len(self._operands) and self._operands[index] is not None else None
        )

    def operand_list(self, index: int) -> tuple[Value, ...]:
        """The values of a list operand. Raises IRError when the position holds no list."""
        operand = self._operands[index]
        if not isinstance(operand, tuple):
            raise IRError(f"operand {index} of {self.op.name} is no list")
        return tuple(v for v in operand if v is not None)

    def set_operands(self, operands: Sequence[Operand]) -> None:
        """Replace all operands."""
        self._drop_uses()
        self._operands = tuple(operands)
        if self.graph is not None:
            self._take_uses()
            self.graph.sizes.update(self)

    def replace_operand(self, old: Value, new: Value) -> None:
        """Use `new` wherever this node used `old`."""
        self._operands = tuple([_swap(operand, old, new) for operand in self._operands])
        if self.graph is not None and self in old._users:
            uses = old._users.pop(self)
            new._users[self] = new._users.get(self, 0) + uses
            if old._type.size_names != new._type.size_names:
                self.graph.sizes.update(self)

    def substitute_sizes(self, sizes: Mapping[str, Dim]) -> None:
        """Put other sizes for the named ones, in the attributes and in the results' types."""
        if not self.size_names.isdisjoint(sizes):
            self.attributes.update({n: substitute_attribute(a, sizes) for n, a in self.attributes.items()})
        for result in self.results:
            result.type = substitute_type(result.type, sizes)

    def _take_uses(self) -> None:
        for value in self.operand_values:
            users = value._users
            users[self] = users.get(self, 0) + 1

    def _drop_uses(self) -> None:
        for value in self.operand_values:
            value._users.pop(self, None)

    def __repr__(self) -> str:
        where = f" at {self.source}" if self.source else ""
        return f"<Node {self.op.name}{where}>"


def _telling(change: Callable[..., Any]) -> Callable[..., Any]:
    """The method of a dict that changes it, after which the node knows its sizes."""

    @wraps(change)
    def changed(self: Attributes, *args: Any, **kwargs: Any) -> Any:
        result = change(self, *args, **kwargs)
        node = self._node
        node.size_names = self.size_names()
        if node.graph is not None:
            node.graph.sizes.update(node)
        return result

    return changed


class Attributes(dict[str, Attribute]):
    """A node's attributes. A change of them may be a change of what the node uses, and is noted."""

    __slots__ = ("_node",)
    _node: Node

    def size_names(self) -> frozenset[str]:
        """The names of the sizes in them."""
        names = NO_NAMES
        for value in self.values():
            if isinstance(value, _STRUCTURED):
                names |= attribute_names(value)
        return names

    __setitem__ = _telling(dict.__setitem__)
    __delitem__ = _telling(dict.__delitem__)
    __ior__ = _telling(dict.__ior__)
    clear = _telling(dict.clear)
    pop = _telling(dict.pop)
    popitem = _telling(dict.popitem)
    setdefault = _telling(dict.setdefault)
    update = _telling(dict.update)


def _swap(operand: Operand, old: Value, new: Value) -> Operand:
    if isinstance(operand, tuple):
        return tuple(new if item is old else item for item in operand)
    return new if operand is old else operand


def attribute_names(attribute: Attribute) -> Names:
    """The names of the symbolic sizes in an attribute."""
    if isinstance(attribute, SymExpr):
        return attribute.names
    if isinstance(attribute, tuple):
        return NO_NAMES.union(*map(attribute_names, attribute))
    return NO_NAMES


def attribute_symbols(attribute: Attribute) -> Iterator[Symbol]:
    """Every symbolic size in an attribute, with repetitions."""
    if isinstance(attribute, SymExpr):
        yield from symbols_of(attribute)
    elif isinstance(attribute, tuple):
        for item in attribute:
            yield from attribute_symbols(item)


def substitute_attribute(attribute: Attribute, sizes: Mapping[str, Dim]) -> Attribute:
    """The attribute with other sizes for the named ones."""
    if isinstance(attribute, SymExpr):
        return attribute.substitute(sizes)
    if isinstance(attribute, tuple):
        return tuple(substitute_attribute(item, sizes) for item in attribute)
    return attribute


def map_operands(operands: Iterable[Operand], function: Callable[[Value], Value]) -> list[Operand]:
    """The operands with every value replaced by `function(value)`, structure kept."""
    mapped: list[Operand] = []
    for operand in operands:
        if isinstance(operand, Value):
            mapped.append(function(operand))
        elif operand is None:
            mapped.append(None)
        else:
            mapped.append(tuple(None if item is None else function(item) for item in operand))
    return mapped
