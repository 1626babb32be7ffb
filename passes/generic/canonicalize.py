"""One spelling for what can be spelled in many ways, and away with what does nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from typing_extensions import override

from detc.ir import Attribute, Builder, Constant, Graph, Value
from detc.ir.lazy import torch

from ..core.base import Context, NoMatch, Pass, attribute
from ..rewrite.patterns import Match, NodePattern, Pattern, PatternBuilder
from ..rewrite.rules import RewriteRule, apply_rules, summaries
from .views import VIEW_RULES, AsReshape, ToOperand, permutation, readable_sizes


@dataclass(frozen=True)
class Canonicalize(Pass):
    """Give tensor operations one spelling, and take away those that change nothing.

    Before:
        %0: f32[N,C,1,1] = aten.unsqueeze(%a, dim=-1)
        %1: f32[N,C] = aten.flatten.using_ints(%0, start_dim=1)
        %2: f32[N,C] = aten.dropout(%1, p=0.5, train=False)
        %3: f32[C,N] = aten.t(%2)
        %4: f32[N,K] = aten.addmm(%bias, %2, %wt)            # %wt = aten.t(@weight)
    After:
        %1: f32[N,C] = aten.reshape(%a, shape=(N, C))
        %3: f32[C,N] = aten.permute(%1, dims=(1, 0))
        %4: f32[N,K] = aten.linear(%1, @weight, %bias)

    Views become `aten.reshape` and `aten.permute`, chains of either become one; copies, detaching, dropout in
    eval mode, casts to the same dtype, and arithmetic with 0 or 1 go; convolutions, batch norms, poolings and
    products with a transposed matrix that a tracer has taken apart become `aten.conv2d`, `aten.batch_norm`,
    `aten.max_pool2d` and `aten.linear`.
    """

    @property
    @override
    def rules(self) -> Mapping[str, str]:
        return summaries((*IDENTITY_RULES, *VIEW_RULES, AsReshape(), *FORM_RULES))

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        rules = (*IDENTITY_RULES, *VIEW_RULES, AsReshape(readable_sizes(graph)), *FORM_RULES)
        return apply_rules(graph, rules, context)


class DropCopy(ToOperand):
    """clone, contiguous, detach, alias, lift_fresh_copy of x  ->  x"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.any_of(
            "aten.clone",
            "aten.contiguous",
            "aten.detach",
            "aten.alias",
            "aten.lift_fresh",
            "aten.lift_fresh_copy",
        )(x)


class DropDropout(ToOperand):
    """dropout(x, train=False)  ->  x"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.any_of("aten.dropout", "aten.feature_dropout", "aten.alpha_dropout")(x, train=False)


class DropCast(ToOperand):
    """x.to(x's own dtype)  ->  x"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.any_of("aten.to.dtype", "aten._to_copy", "aten.to.dtype_layout")(x)


class AsCast(RewriteRule):
    """_to_copy(x, dtype=d)  ->  x.to(d)"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.any_of("aten._to_copy", "aten.to.dtype_layout")(x)

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        return b.aten.to.dtype(m.x, dtype=m.root.result.dtype)


class DropExpand(ToOperand):
    """expand, repeat, slice of x that give x's own shape  ->  x"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.any_of("aten.expand", "aten.repeat", "aten.slice.Tensor")(x)


class DropPad(ToOperand):
    """constant_pad_nd(x, pad=(0, 0))  ->  x"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.any_of("aten.constant_pad_nd", "aten.pad")(x, pad=_all_zero)


class DropCat(ToOperand):
    """cat([x])  ->  x"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.aten.cat([x])


_NEUTRAL = {"mul": 1, "div": 1, "add": 0, "sub": 0}


class DropNeutral(ToOperand):
    """x * 1, x / 1, x + 0, x - 0, where the number is a tensor  ->  x"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern, c: Pattern) -> NodePattern:
        return p.any_of(*(f"aten.{name}.Tensor" for name in _NEUTRAL))(x, p.constant(c))

    @override
    def check(self, m: Match) -> None:
        _check_neutral(m)
        super().check(m)


class DropNeutralFirst(ToOperand):
    """1 * x, 0 + x, where the number is a tensor  ->  x"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern, c: Pattern) -> NodePattern:
        return p.any_of("aten.mul.Tensor", "aten.add.Tensor")(p.constant(c), x)

    @override
    def check(self, m: Match) -> None:
        _check_neutral(m)
        if "alpha" in m.root.attributes:
            raise NoMatch("the operand is scaled")
        super().check(m)


class DropNeutralNumber(ToOperand):
    """x * 1, x / 1, x + 0, x - 0, where the number is an attribute  ->  x"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        names = [f"aten.{name}.{kind}" for name in _NEUTRAL for kind in ("Tensor", "Scalar")]
        return p.any_of(*names)(x, other=p.attribute("number"))

    @override
    def check(self, m: Match) -> None:
        if m.number != _NEUTRAL[m.root.op.name.split(".")[1]]:
            raise NoMatch("the number changes the operand")
        super().check(m)


class DropSecondRelu(ToOperand):
    """relu(relu(y))  ->  relu(y)"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.aten.relu(p.aten.relu(p.anything()).named("inner"))

    @override
    def check(self, m: Match) -> None:
        m.bindings["x"] = m.inner.result
        super().check(m)


class AsConvolution(RewriteRule):
    """convolution(x, w, b, transposed=False, ...)  ->  conv2d(x, w, b, ...), by the weight's rank"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern, w: Pattern, bias: Pattern) -> NodePattern:
        return p.aten.convolution(x, w, p.optional(bias))

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        spatial = m.w.rank - 2
        names = ["stride", "padding", "dilation", "groups"]
        if attribute(m.root, "transposed"):
            op = f"aten.conv_transpose{spatial}d" + ("" if spatial == 1 else ".input")
            names.append("output_padding")
        else:
            op = f"aten.conv{spatial}d"
        options = {name: attribute(m.root, name) for name in names}
        return b.call(op, m.x, m.w, m.bias, **options)


class AsBatchNorm(RewriteRule):
    """_native_batch_norm_legit_no_training(x, ...)  ->  batch_norm(x, ..., training=False)"""

    @override
    def pattern(
        self, p: PatternBuilder, x: Pattern, gamma: Pattern, beta: Pattern, mean: Pattern, var: Pattern
    ) -> NodePattern:
        return p.aten._native_batch_norm_legit_no_training(x, p.optional(gamma), p.optional(beta), mean, var)

    @override
    def rewrite(self, b: Builder, m: Match) -> Sequence[Value | None]:
        made = b.aten.batch_norm(
            m.x,
            m.gamma,
            m.beta,
            m.mean,
            m.var,
            training=False,
            momentum=attribute(m.root, "momentum"),
            eps=attribute(m.root, "eps"),
            cudnn_enabled=True,
        )
        return made, None, None


class AsMaxPool(RewriteRule):
    """max_pool2d_with_indices(x), of which only the values are used  ->  max_pool2d(x)"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.aten.max_pool2d_with_indices(x)

    @override
    def rewrite(self, b: Builder, m: Match) -> Sequence[Value | None]:
        made = b.aten.max_pool2d(m.x, **m.root.attributes)
        return made, None


class _ToLinear(RewriteRule):
    @override
    def check(self, m: Match) -> None:
        if m.weight.rank != 2 or permutation(m.transpose) != (1, 0):
            raise NoMatch("the second factor is no transposed matrix")


class AddmmAsLinear(_ToLinear):
    """addmm(bias, x, permute(weight))  ->  linear(x, weight, bias)"""

    @override
    def pattern(self, p: PatternBuilder, bias: Pattern, x: Pattern, weight: Pattern) -> NodePattern:
        return p.aten.addmm(bias, x, p.aten.permute(weight).named("transpose"), beta=1, alpha=1)

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        if m.bias.rank != 1:
            raise NoMatch("the bias is no vector")
        return b.aten.linear(m.x, m.weight, m.bias)


class MatmulAsLinear(_ToLinear):
    """mm(x, permute(weight)), matmul(x, permute(weight))  ->  linear(x, weight)"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern, weight: Pattern) -> NodePattern:
        return p.any_of("aten.mm", "aten.matmul")(x, p.aten.permute(weight).named("transpose"))

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        return b.aten.linear(m.x, m.weight)


def _check_neutral(m: Match) -> None:
    name = m.root.op.name.split(".")[1]
    constant = m.c
    if not isinstance(constant, Constant) or not torch.all(constant.data == _NEUTRAL[name]):
        raise NoMatch("the number changes the operand")


def _all_zero(value: Attribute) -> bool:
    return isinstance(value, tuple) and all(item == 0 for item in value)


IDENTITY_RULES: tuple[RewriteRule, ...] = (
    DropCopy(),
    DropDropout(),
    DropCast(),
    AsCast(),
    DropExpand(),
    DropPad(),
    DropCat(),
    DropNeutral(),
    DropNeutralFirst(),
    DropNeutralNumber(),
    DropSecondRelu(),
)

FORM_RULES: tuple[RewriteRule, ...] = (
    AsConvolution(),
    AsBatchNorm(),
    AsMaxPool(),
    AddmmAsLinear(),
    MatmulAsLinear(),
)
