"""Clean-up of graphs of the level `onnx`: what lowering op by op leaves behind and no general pass can know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from typing_extensions import override

from detc.ir import Builder, Constant, Graph, Node, Value
from detc.ir.lazy import torch
from detc.passes.core.base import Context, NoMatch, Pass
from detc.passes.rewrite.patterns import Match, NodePattern, Pattern, PatternBuilder
from detc.passes.rewrite.rules import RewriteRule, apply_rules, summaries


@cache
def _exact_into() -> dict[torch.dtype, set[torch.dtype]]:
    """Element type -> those that hold each of its numbers exactly."""
    whole = (torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64)
    return {
        torch.bool: {*whole[1:], torch.int8, torch.float32, torch.float64},
        torch.uint8: {*whole[2:], torch.float32, torch.float64},
        torch.int8: {*whole[2:], torch.float32, torch.float64},
        torch.int16: {*whole[3:], torch.float32, torch.float64},
        torch.int32: {torch.int64, torch.float64},
        torch.float16: {torch.float32, torch.float64},
        torch.float32: {torch.float64},
    }


@dataclass(frozen=True)
class CleanUpOnnx(Pass):
    """Take out ONNX nodes that do nothing, and join those that undo or continue each other.

    Before:
        %1: f32[N,H,W,8] = onnx.Transpose(%x, perm=(0, 2, 3, 1))
        %2: f32[N,8,H,W] = onnx.Transpose(%1, perm=(0, 3, 1, 2))
        %3: f32[N,8,H*W] = onnx.Reshape(%2, i64[3]{0, 8, -1})
        %4: f32[N,8*H*W] = onnx.Reshape(%3, i64[2]{0, -1})
    After:
        %4: f32[N,8*H*W] = onnx.Reshape(%x, i64[2]{0, -1})
    """

    @property
    @override
    def rules(self) -> Mapping[str, str]:
        return summaries(RULES)

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        return apply_rules(graph, RULES, context)


def _literal(value: Value | None) -> list[int]:
    """The elements of a small constant. Raises NoMatch for any other value."""
    if not isinstance(value, Constant) or not value.is_literal:
        raise NoMatch("the axes or sizes are not known")
    return [int(x) for x in value.data.reshape(-1).tolist()]


def _permutation(node: Node) -> list[int]:
    perm = node.attributes.get("perm")
    rank = node.operand(0).rank
    return [int(str(axis)) for axis in perm] if isinstance(perm, tuple) else list(reversed(range(rank)))


def _as_root(made: Value, m: Match) -> Value:
    """A new value with the type of what it replaces: its sizes may be known better."""
    made.type = m.root.result.type
    return made


class DropIdentity(RewriteRule):
    """Identity(x)  ->  x"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.onnx.Identity(x)

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        x: Value = m.x
        return x


class DropOnnxCast(RewriteRule):
    """Cast(x, to=x's own element type)  ->  x"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.onnx.Cast(x)

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        value: Value = m.x
        if value.dtype != m.root.result.dtype:
            raise NoMatch("it changes the element type")
        return value


class JoinCasts(RewriteRule):
    """Cast(Cast(x, to=a), to=b)  ->  Cast(x, to=b), where `a` holds x exactly"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.onnx.Cast(p.onnx.Cast(x).named("first"))

    @override
    def check(self, m: Match) -> None:
        if m.first.result.dtype not in _exact_into().get(m.x.dtype, set()):
            raise NoMatch("the first cast may lose something")

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        value: Value = m.x
        if value.dtype == m.root.result.dtype:
            return value
        return _as_root(b.onnx.Cast(value, to=m.root.result.dtype), m)


class DropTranspose(RewriteRule):
    """Transpose(x, perm=(0, 1, ...))  ->  x"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.onnx.Transpose(x)

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        value: Value = m.x
        if _permutation(m.root) != list(range(value.rank)):
            raise NoMatch("it moves an axis")
        return value


class JoinTransposes(RewriteRule):
    """Transpose(Transpose(x, perm=a), perm=b)  ->  Transpose(x, perm=a[b])"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.onnx.Transpose(p.onnx.Transpose(x).named("first"))

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        inner = _permutation(m.first)
        joined = [inner[axis] for axis in _permutation(m.root)]
        return _as_root(b.onnx.Transpose(m.x, perm=joined), m)


class GatherBeforeTranspose(RewriteRule):
    """Gather(Transpose(x), i, axis=1)  ->  Gather(x, i, axis=0), and the other way round, x a matrix and i one index"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern, i: Pattern) -> NodePattern:
        return p.onnx.Gather(p.onnx.Transpose(x).named("turned"), i)

    @override
    def check(self, m: Match) -> None:
        if _permutation(m.turned) != [1, 0] or m.i.rank != 0:
            raise NoMatch("more than one axis stays")

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        axis = m.root.attributes.get("axis", 0)
        assert isinstance(axis, int)
        return _as_root(b.onnx.Gather(m.x, m.i, axis=1 - axis % 2), m)


class DropOnnxReshape(RewriteRule):
    """Reshape(x, shape)  ->  x, where every entry leaves its size as it is"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern, shape: Pattern) -> NodePattern:
        return p.onnx.Reshape(x, shape)

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        value: Value = m.x
        if value.type == m.root.result.type:
            return value
        entries = _literal(m.shape)
        # The size of one axis may be left open: it is what the others leave.
        moved = [e for e, size in zip(entries, value.shape, strict=False) if e not in (size, 0)]
        if len(entries) != value.rank or moved not in ([], [-1]) or m.root.attributes.get("allowzero"):
            raise NoMatch("it changes the shape")
        return value


class JoinReshapes(RewriteRule):
    """Reshape(y, shape), y = Reshape, Flatten, Squeeze or Unsqueeze of x  ->  Reshape(x, shape)"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern, shape: Pattern) -> NodePattern:
        names = ("onnx.Reshape", "onnx.Flatten", "onnx.Squeeze", "onnx.Unsqueeze")
        first = p.either(
            *(p.any_of(name)(x, p.anything()).named("first") for name in names if name != "onnx.Flatten"),
            p.onnx.Flatten(x).named("first"),
        )
        return p.onnx.Reshape(first, shape)

    @override
    def check(self, m: Match) -> None:
        if m.root.attributes.get("allowzero"):
            raise NoMatch("a shape with a size of zero")
        source, between = m.x.shape, m.first.result.shape
        for axis, entry in enumerate(_entries(m.shape)):
            # A 0 copies the size of the tensor in between.
            if entry == 0 and source[axis : axis + 1] != between[axis : axis + 1]:
                raise NoMatch("it copies a size that the first reshape made")

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        return _as_root(b.onnx.Reshape(m.x, m.shape), m)


def _entries(shape: Value) -> list[int | None]:
    """A shape's entries, None for those that are read off a tensor, which are no 0 that copies."""
    producer = shape.producer
    if producer is None:
        return list(_literal(shape))
    if producer.op.name == "onnx.Shape":
        return [None] * int(str(shape.shape[0]))
    if producer.op.name != "onnx.Concat":
        raise NoMatch("a computed shape that may copy sizes")
    return [entry for part in producer.operand_list(0) for entry in _entries(part)]


class UndoUnsqueeze(RewriteRule):
    """Squeeze(Unsqueeze(x, axes), axes)  ->  x"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern, added: Pattern, removed: Pattern) -> NodePattern:
        return p.onnx.Squeeze(p.onnx.Unsqueeze(x, added), removed)

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        return _if_same_axes(m)


class UndoSqueeze(RewriteRule):
    """Unsqueeze(Squeeze(x, axes), axes)  ->  x"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern, added: Pattern, removed: Pattern) -> NodePattern:
        return p.onnx.Unsqueeze(p.onnx.Squeeze(x, removed), added)

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        return _if_same_axes(m)


def _if_same_axes(m: Match) -> Value:
    value: Value = m.x
    rank = max(value.rank, m.root.operand(0).rank)
    if {a % rank for a in _literal(m.added)} != {a % rank for a in _literal(m.removed)}:
        raise NoMatch("other axes")
    return value


class FoldShape(RewriteRule):
    """Shape(x)  ->  a literal, where the sizes are numbers"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.onnx.Shape(x)

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        start, end = m.root.attributes.get("start"), m.root.attributes.get("end")
        bounds = slice(*(bound if isinstance(bound, int) else None for bound in (start, end)))
        sizes: Sequence[object] = m.x.shape[bounds]
        known = [size for size in sizes if isinstance(size, int)]
        if len(known) != len(sizes):
            raise NoMatch("a size that is not known")
        return b.constant(torch.tensor(known, dtype=torch.int64))


class DropOnnxExpand(RewriteRule):
    """Expand(x, shape)  ->  x, where the shape stays"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.onnx.Expand(x, p.anything())

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        value: Value = m.x
        if value.type != m.root.result.type:
            raise NoMatch("it changes the shape")
        return value


class DropConcat(RewriteRule):
    """Concat([x])  ->  x"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.onnx.Concat([x])

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        x: Value = m.x
        return x


RULES: tuple[RewriteRule, ...] = (
    DropIdentity(),
    DropOnnxCast(),
    JoinCasts(),
    DropTranspose(),
    JoinTransposes(),
    GatherBeforeTranspose(),
    DropOnnxReshape(),
    JoinReshapes(),
    UndoUnsqueeze(),
    UndoSqueeze(),
    FoldShape(),
    DropOnnxExpand(),
    DropConcat(),
)
"""In the order in which they are tried: what goes away before what is joined."""
