"""Rules for operations that only view a tensor differently: all become `aten.reshape` and `aten.permute`."""

from __future__ import annotations

from collections.abc import Iterable

from typing_extensions import override

from detc.ir import Attribute, Builder, Dim, Graph, IRError, Node, SymExpr, Value
from detc.ir.types import tensors_of

from ..core.base import NoMatch, attribute
from ..rewrite.patterns import Match, NodePattern, Pattern, PatternBuilder
from ..rewrite.rules import RewriteRule


class ToOperand(RewriteRule):
    """Base of the rules that put the operand `x` in the place of an op that changes nothing."""

    @override
    def check(self, m: Match) -> None:
        if m.x.type != m.root.result.type:
            raise NoMatch("the type changes")
        if any(user.op.has_effects for value in (m.x, m.root.result) for user in value.users):
            raise NoMatch("an op with effects uses one of the two")

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        x: Value = m.x
        return x


def readable_sizes(graph: Graph) -> frozenset[str]:
    """The symbolic sizes that a running graph can read off a tensor: whole dimensions."""
    types = {value.type for value in graph.values()}
    dims = {dim for type in types for tensor in tensors_of(type) for dim in tensor.shape}
    symbols = [dim.as_symbol for dim in dims if isinstance(dim, SymExpr)]
    return frozenset(symbol.name for symbol in symbols if symbol is not None)


RESHAPES = (
    "aten.reshape",
    "aten.view",
    "aten._unsafe_view",
    "aten.view_copy",
    "aten.flatten.using_ints",
    "aten.unflatten.int",
    "aten.squeeze",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
    "aten.unsqueeze",
)


def _reshaped(p: PatternBuilder, x: Pattern) -> NodePattern:
    """A reshape of x; what x is a reshape of counts as x."""
    view = p.any_of(*RESHAPES)
    return view(p.either(view(x), x))


class AsReshape(RewriteRule):
    """flatten, view, squeeze, unsqueeze, unflatten, reshape  ->  aten.reshape(x, shape=its own shape)

    A size that the running graph cannot read off any tensor is written -1, if all others are numbers.
    """

    def __init__(self, readable: frozenset[str] = frozenset()) -> None:
        self._readable = readable

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return _reshaped(p, x)

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        shape = self._shape(m.root.result.shape)
        if m.root.operands == (m.x,) and m.root.attributes == {"shape": shape}:
            raise NoMatch("it is in normal form")
        return b.aten.reshape(m.x, shape=shape)

    def _shape(self, dims: Iterable[Dim]) -> tuple[Dim, ...]:
        shape = tuple(-1 if isinstance(d, SymExpr) and not d.names <= self._readable else d for d in dims)
        if -1 in shape and (shape.count(-1) > 1 or any(not isinstance(dim, int) or not dim for dim in shape)):
            # Where another size may be 0, torch cannot tell what -1 stands for.
            raise NoMatch("a size cannot be read off")
        return shape


class MergeReshapes(RewriteRule):
    """reshape(reshape(x, shape=a), shape=b)  ->  reshape(x, shape=b)"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.aten.reshape(p.aten.reshape(x))

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        return b.aten.reshape(m.x, shape=attribute(m.root, "shape"))


class DropReshape(ToOperand):
    """reshape(x), or reshape(reshape(x)), that has x's own shape  ->  x, and so for the other views"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return _reshaped(p, x)


class AsPermute(RewriteRule):
    """t, transpose, movedim, permute with negative axes  ->  aten.permute(x, dims=axes from 0 up)"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.any_of(
            "aten.permute",
            "aten.t",
            "aten.numpy_T",
            "aten.transpose.int",
            "aten.swapaxes",
            "aten.swapdims",
            "aten.movedim.int",
            "aten.movedim.intlist",
        )(x)

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        dims = permutation(m.root)
        if m.root.op.name == "aten.permute" and attribute(m.root, "dims") == dims:
            raise NoMatch("it is in normal form")
        return b.aten.permute(m.x, dims=dims)


class MergePermutes(RewriteRule):
    """permute(permute(x, dims=a), dims=b)  ->  permute(x, dims=a[b])"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.aten.permute(p.aten.permute(x).named("inner"))

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        inner = permutation(m.inner)
        return b.aten.permute(m.x, dims=tuple(inner[i] for i in permutation(m.root)))


class DropPermute(ToOperand):
    """permute(x, dims=(0, 1, 2))  ->  x"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.aten.permute(x)

    @override
    def check(self, m: Match) -> None:
        dims = permutation(m.root)
        if dims != tuple(range(len(dims))):
            raise NoMatch("the axes change")
        super().check(m)


def permutation(node: Node) -> tuple[int, ...]:
    """Which axis of the operand each axis of the result is, for an op that only reorders axes."""
    rank = node.operand(0).rank
    axes = list(range(rank))
    match node.op.name:
        case "aten.permute":
            return tuple(axis % rank for axis in _ints(attribute(node, "dims")))
        case "aten.t" | "aten.numpy_T":
            return tuple(reversed(axes))
        case "aten.transpose.int" | "aten.swapaxes" | "aten.swapdims":
            names = ("axis0", "axis1") if node.op.name == "aten.swapaxes" else ("dim0", "dim1")
            first, second = (_ints(attribute(node, name))[0] for name in names)
            if rank:
                axes[first], axes[second] = axes[second], axes[first]
            return tuple(axes)
        case "aten.movedim.int" | "aten.movedim.intlist":
            sources = [axis % rank for axis in _ints(attribute(node, "source"))]
            targets = [axis % rank for axis in _ints(attribute(node, "destination"))]
            moved = dict(zip(targets, sources, strict=True))
            others = iter(axis for axis in axes if axis not in sources)
            return tuple(moved[axis] if axis in moved else next(others) for axis in axes)
    raise IRError(f"{node.op.name} does not reorder axes")


def _ints(value: Attribute) -> tuple[int, ...]:
    items = value if isinstance(value, tuple) else (value,)
    return tuple(item for item in items if isinstance(item, int))


VIEW_RULES: tuple[RewriteRule, ...] = (
    DropReshape(),
    MergeReshapes(),
    DropPermute(),
    MergePermutes(),
    AsPermute(),
)
"""The rules without `AsReshape`, which needs to know the graph's sizes."""
