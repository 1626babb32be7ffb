"""Fusing neighbouring operations into one that every target has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from typing_extensions import override

from detc.ir import Attribute, Builder, Constant, Graph, Node, Value
from detc.ir.lazy import torch

from ..core.base import Context, NoMatch, Pass, attribute
from ..rewrite.patterns import Each, Match, NodePattern, Pattern, PatternBuilder
from ..rewrite.rules import RewriteRule, apply_rules, summaries
from .batch_norm import (
    AFFINE_RULES,
    CONVOLUTIONS,
    LINEAR,
    BatchNormAsAffine,
    add_folded,
    constant,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Fuse(Pass):
    """Fuse constants with constants, and constants and zero padding into convolutions.

    Before:
        %0: f32[N,3,H,W] = aten.mul.Tensor(%x, f32[3,1,1]{0.5, 0.25, 0.5})
        %1: f32[N,3,H+2,W+2] = aten.constant_pad_nd(%0, pad=(1, 1, 1, 1))
        %2: f32[N,8,H,W] = aten.conv2d(%1, @weight:f32[8,3,3,3])
        %3: f32[N,8,H,W] = aten.mul.Tensor(%2, other=2.0)
    After:
        %3: f32[N,8,H,W] = aten.conv2d(%x, @weight_folded:f32[8,3,3,3], @bias_folded:f32[8], padding=(1, 1))

    Attributes:
        merge_parallel: also make one convolution or linear layer of two that have the same operand and settings,
            and split its result. Worth it where calls cost more than copying the result in two.
    """

    merge_parallel: bool = False

    @property
    @override
    def rules(self) -> Mapping[str, str]:
        return summaries(self._rules())

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        changed = apply_rules(graph, self._rules(), context)
        return context.prune_weights(graph) or changed

    def _rules(self) -> list[RewriteRule]:
        rules = [*FUSE_RULES, *(rule for rule in AFFINE_RULES if not isinstance(rule, BatchNormAsAffine))]
        return [*rules, MergeParallel()] if self.merge_parallel else rules


class _MergeConstants(RewriteRule):
    """Base of the rules that combine two constants of one kind of operation."""

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        if m.inner.result.type != m.root.result.type or not m.root.result.dtype.is_floating_point:
            raise NoMatch("the first operation has another type")
        merged = self._combine(m.c.data.double(), m.d.data.double())
        if merged.numel() > max(m.c.data.numel(), m.d.data.numel()):
            raise NoMatch("the two constants together are larger")
        dtype = torch.promote_types(m.c.dtype, m.d.dtype)
        name = f"{m.root.source}.constant".lstrip(".")
        return b.call(m.root.op, m.x, b.graph.constant(merged.to(dtype), name))

    def _combine(self, c: Tensor, d: Tensor) -> Tensor:
        raise NotImplementedError


class MergeFactors(_MergeConstants):
    """(x * c) * d  ->  x * (c * d)"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern, c: Pattern, d: Pattern) -> NodePattern:
        inner = p.aten.mul.Tensor(x, p.constant(c)).commutative().single_use().named("inner")
        return p.aten.mul.Tensor(inner, p.constant(d)).commutative()

    @override
    def _combine(self, c: Tensor, d: Tensor) -> Tensor:
        return c * d


class MergeSummands(_MergeConstants):
    """(x + c) + d  ->  x + (c + d)"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern, c: Pattern, d: Pattern) -> NodePattern:
        inner = p.aten.add.Tensor(x, p.constant(c), alpha=1).commutative().single_use().named("inner")
        return p.aten.add.Tensor(inner, p.constant(d), alpha=1).commutative()

    @override
    def _combine(self, c: Tensor, d: Tensor) -> Tensor:
        return c + d


class MergeNumbers(RewriteRule):
    """(x * 2.0) * 3.0  ->  x * 6.0, and so for +"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        ops = ("aten.mul.Tensor", "aten.mul.Scalar", "aten.add.Tensor", "aten.add.Scalar")
        inner = p.any_of(*ops)(x, other=p.attribute("c", _is_number)).single_use().named("inner")
        return p.any_of(*ops)(inner, other=p.attribute("d", _is_number))

    @override
    def check(self, m: Match) -> None:
        if m.inner.op is not m.root.op:
            raise NoMatch("they are different operations")
        if any("alpha" in node.attributes for node in (m.inner, m.root)):
            raise NoMatch("the number is scaled")
        if m.inner.result.type != m.root.result.type or not m.root.result.dtype.is_floating_point:
            raise NoMatch("the first operation has another type")

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        c, d = float(m.c), float(m.d)
        merged = c * d if ".mul." in m.root.op.name else c + d
        return b.call(m.root.op, m.x, other=merged)


class PadIntoConvolution(RewriteRule):
    """conv2d(pad(x, (l, l, t, t)), padding=(a, b))  ->  conv2d(x, padding=(a + t, b + l))"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern, w: Pattern, bias: Pattern) -> NodePattern:
        pads = p.any_of("aten.constant_pad_nd", "aten.pad")(x, value=_is_zero).named("pad")
        return p.any_of("aten.conv1d", "aten.conv2d", "aten.conv3d")(pads, w, p.optional(bias))

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        if m.pad.op.name == "aten.pad" and attribute(m.pad, "mode") != "constant":
            raise NoMatch("the padding is not with zeros")
        spatial = m.w.rank - 2
        pads = _numbers(attribute(m.pad, "pad"))
        if len(pads) % 2 or len(pads) > 2 * spatial or any(size < 0 for size in pads):
            raise NoMatch("the padding is not of the spatial axes")
        if pads[0::2] != pads[1::2]:
            raise NoMatch("the padding differs between the two sides")
        # The pads run from the last axis to the first.
        extra = (*(0 for _ in range(spatial - len(pads) // 2)), *pads[0::2][::-1])
        own = _numbers(attribute(m.root, "padding")) or (0,)
        if len(own) == 1:
            own = own * spatial
        padding = tuple(a + e for a, e in zip(own, extra, strict=True))
        return b.call(m.root.op, m.x, m.w, m.bias, **{**m.root.attributes, "padding": padding})


class ScaleIntoProducer(RewriteRule):
    """conv(x * c, w, b)  ->  conv(x, w * c, b), c being one number or one for each channel of x"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern, c: Pattern) -> NodePattern:
        scaled = p.aten.mul.Tensor(x, p.constant(c)).commutative().single_use().named("scaled")
        weight = p.constant(p.anything())
        return p.any_of(*CONVOLUTIONS, LINEAR)(scaled, weight, p.optional(p.anything()))

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        node: Node = m.root
        if m.x.type != m.scaled.result.type or not m.x.dtype.is_floating_point:
            raise NoMatch("the constant changes the type")
        weight = constant(node.operand(1))
        rank = m.x.rank
        if node.op.name != LINEAR and weight.rank != rank:
            raise NoMatch("the convolution takes one image, not a batch")
        axis = rank - 1 if node.op.name == LINEAR else 1
        shape = [1] * (rank - m.c.data.ndim) + list(m.c.data.shape)
        if any(size != 1 for i, size in enumerate(shape) if i != axis):
            raise NoMatch("the constant differs along another axis than the channels")
        groups = 1 if node.op.name == LINEAR else attribute(node, "groups")
        if not isinstance(groups, int):
            raise NoMatch("the number of groups is symbolic")
        data = weight.data.double()
        # Row i of the weight belongs to group i // (rows / groups), and sees that group's channels only.
        factor = m.c.data.double().reshape(-1).expand(data.shape[1] * groups)
        factor = factor.reshape(groups, 1, data.shape[1], *(1 for _ in data.shape[2:]))
        folded = (data.reshape(groups, -1, *data.shape[1:]) * factor).reshape(data.shape)
        new = add_folded(b.graph, weight.name or f"{node.source}.weight", folded.to(weight.dtype))
        return b.call(node.op, m.x, new, node.operand_or_none(2), **node.attributes)


class MergeParallel(RewriteRule):
    """conv(x, w1, b1), conv(x, w2, b2), ...  ->  split(conv(x, cat(w1, w2, ...), cat(b1, b2, ...)))"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern, weights: Pattern) -> Each:
        bias = p.optional(p.constant(p.anything()))
        layer = p.any_of(*CONVOLUTIONS, LINEAR)(x, p.constant(weights), bias).named("layers")
        return p.each(layer.having("settings", _settings), same=("x", "settings"), at_least=2)

    @override
    def check(self, m: Match) -> None:
        if m.root.op.name != LINEAR and attribute(m.root, "groups") != 1:
            raise NoMatch("the convolution has groups")

    @override
    def rewrite(self, b: Builder, m: Match) -> Sequence[Value]:
        rows = [weight.data.shape[0] for weight in m.weights]
        stem = (m.weights[0].name or f"{m.root.source}.weight").removesuffix(".weight")
        weight = add_folded(b.graph, f"{stem}.weight", torch.cat([w.data for w in m.weights]))
        bias: Constant | None = None
        if any(layer.operand_or_none(2) is not None for layer in m.layers):
            bias = add_folded(b.graph, f"{stem}.bias", torch.cat([_bias(layer) for layer in m.layers]))
        made = b.call(m.root.op, m.x, weight, bias, **m.root.attributes)
        axis = made.rank - 1 if m.root.op.name == LINEAR else 1
        return b.aten.split_with_sizes(made, split_sizes=rows, dim=axis)


def _bias(layer: Node) -> Tensor:
    bias = layer.operand_or_none(2)
    weight = constant(layer.operand(1)).data
    return weight.new_zeros(weight.shape[0]) if bias is None else constant(bias).data


def _settings(layer: Node) -> object:
    """What layers must have in common to be computed as one."""
    weight = constant(layer.operand(1)).data
    return layer.op.name, layer.attributes, weight.shape[1:], weight.dtype


def _is_number(value: Attribute) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_zero(value: Attribute) -> bool:
    return value is None or value == 0


def _numbers(value: Attribute) -> tuple[int, ...]:
    items = value if isinstance(value, tuple) else (value,)
    return tuple(item if isinstance(item, int) else -1 for item in items)


FUSE_RULES: tuple[RewriteRule, ...] = (
    MergeFactors(),
    MergeSummands(),
    MergeNumbers(),
    PadIntoConvolution(),
    ScaleIntoProducer(),
)
