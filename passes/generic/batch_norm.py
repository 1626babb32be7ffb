"""Folding batch norm, and multiplications and additions of constants, into the convolution before them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from typing_extensions import override

from detc.ir import Builder, Constant, Graph, IRError, Node, Value
from detc.ir.lazy import torch

from ..core.base import Context, NoMatch, Pass, attribute
from ..rewrite.patterns import Match, NodePattern, Pattern, PatternBuilder
from ..rewrite.rules import RewriteRule, apply_rules, summaries

if TYPE_CHECKING:
    from torch import Tensor

CONVOLUTIONS = (
    "aten.conv1d",
    "aten.conv2d",
    "aten.conv3d",
    "aten.conv1d.padding",
    "aten.conv2d.padding",
    "aten.conv3d.padding",
)
TRANSPOSED = ("aten.conv_transpose1d", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input")
LINEAR = "aten.linear"

_AT_ONCE = 1 << 15
"""Numbers that are scaled at a time: no more than torch gives to one thread, since more would wait for each other."""
_FOLDED = re.compile(r"_folded(_\d+)?$")


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Fold batch norm in eval mode, and constants multiplied or added after it, into a convolution's weights.

    Before:
        %0: f32[N,64,H,W] = aten.conv2d(%x, @conv.weight:f32[64,3,3,3])
        %1: f32[N,64,H,W] = aten.batch_norm(%0, @norm.weight, @norm.bias, @norm.running_mean, @norm.running_var,
            training=False, momentum=0.1, eps=1e-05, cudnn_enabled=True)
    After:
        %1: f32[N,64,H,W] = aten.conv2d(%x, @conv.weight_folded:f32[64,3,3,3], @conv.bias_folded:f32[64])

    Takes convolutions, transposed ones and linear layers whose result nothing else uses; `mul`, `div`, `add`
    and `sub` of constants that are per channel or one number, which is how frozen batch norms are often
    written out. A batch norm that stands alone becomes a multiplication and an addition. The arithmetic is in
    float64, and the result has the weight's dtype. The model's own weights stay as they are.
    """

    @property
    @override
    def rules(self) -> Mapping[str, str]:
        return summaries(AFFINE_RULES)

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        changed = apply_rules(graph, AFFINE_RULES, context)
        return context.prune_weights(graph) or changed


def channel_axis(producer: Node) -> int:
    """The axis of the result that a convolution's or linear layer's weight gives one row each."""
    return producer.results[0].rank - 1 if producer.op.name == LINEAR else 1


def fold_affine(b: Builder, producer: Node, scale: Tensor, shift: Tensor) -> Value:
    """The producer's twin that gives `result * scale + shift`, both f64[C], one number for each channel."""
    weight, bias = constant(producer.operand(1)), producer.operand_or_none(2)
    if producer.op.name != LINEAR and weight.rank != producer.results[0].rank:
        raise NoMatch("the convolution takes one image, not a batch")
    data = weight.data
    if producer.op.name in TRANSPOSED:
        # A transposed convolution's weight is [in, out / groups, ...], the groups being consecutive rows.
        groups = attribute(producer, "groups")
        if not isinstance(groups, int):
            raise IRError(f"the groups of {producer.op.name} are no number")
        scale_of_rows = scale.reshape(groups, 1, -1).expand(-1, data.shape[0] // groups, -1).flatten(0, 1)
    else:
        scale_of_rows = scale.reshape(-1, 1)
    folded = _scaled(data, scale_of_rows)
    shifted = shift if bias is None else constant(bias).data.double() * scale + shift
    stem = _stem(weight, producer)
    new_weight = add_folded(b.graph, f"{stem}.weight", folded)
    new_bias = add_folded(b.graph, f"{stem}.bias", shifted.to(weight.dtype))
    with b.at(producer.source):
        return b.call(producer.op, producer.operand(0), new_weight, new_bias, **producer.attributes)


def _scaled(weight: Tensor, scale: Tensor) -> Tensor:
    """The weight [R, ...] times the scale f64[R,1 or K], K its second dimension, rounded once.

    Some rows at a time: in one go the products' memory would be new to the process, which takes longer than they do.
    """
    scaled = torch.empty_like(weight, memory_format=torch.contiguous_format)
    rows = max(1, _AT_ONCE // max(1, weight[:1].numel()))
    scale = scale.reshape(*scale.shape, *(1 for _ in weight.shape[2:]))
    for start in range(0, len(weight), rows):
        some = slice(start, start + rows)
        scaled[some] = weight[some] * scale[some]
    return scaled


def add_folded(graph: Graph, name: str, data: Tensor) -> Constant:
    """A new weight called `name`_folded, with a number if there is one already."""
    return graph.add_weight(graph.fresh_weight_name(f"{name}_folded"), data)


def constant(value: Value) -> Constant:
    """The value as a constant. Raises IRError if it is none."""
    if not isinstance(value, Constant):
        raise IRError(f"{value!r} is no constant")
    return value


def per_channel(value: Constant, producer: Node) -> Tensor:
    """A constant that is broadcast against the producer's result, as f64[C], one number for each channel.

    Raises NoMatch when it differs along another axis.
    """
    result = producer.results[0]
    axis = channel_axis(producer)
    channels = result.shape[axis]
    shape = [1] * (result.rank - value.data.ndim) + list(value.data.shape)
    if len(shape) != result.rank or any(size != 1 for i, size in enumerate(shape) if i != axis):
        raise NoMatch("the constant differs along another axis than the channels")
    if not isinstance(channels, int) or shape[axis] not in (1, channels):
        raise NoMatch("the constant does not fit the channels")
    return value.data.double().reshape(-1).expand(channels)


def affine_of_batch_norm(node: Node) -> tuple[Tensor, Tensor]:
    """Scale and shift (f64[C]) of a batch norm in eval mode whose operands are constants."""
    gamma, beta, mean, var = (node.operand_or_none(i) for i in range(1, 5))
    if mean is None or var is None:
        raise NoMatch("the batch norm has no running statistics")
    eps = attribute(node, "eps")
    if not isinstance(eps, int | float):
        raise NoMatch("eps is no number")
    scale = (constant(var).data.double() + eps).rsqrt()
    if gamma is not None:
        scale = scale * constant(gamma).data.double()
    shift = -constant(mean).data.double() * scale
    if beta is not None:
        shift = shift + constant(beta).data.double()
    return scale, shift


def _stem(weight: Constant, producer: Node) -> str:
    name = _FOLDED.sub("", weight.name)
    return name.removesuffix(".weight") or producer.source or "constant"


def _producer(p: PatternBuilder) -> NodePattern:
    made = p.any_of(*CONVOLUTIONS, *TRANSPOSED, LINEAR)
    bias = p.optional(p.constant(p.anything()))
    return made(p.anything(), p.constant(p.anything()), bias).single_use().named("producer")


def _batch_norm(p: PatternBuilder, x: Pattern) -> NodePattern:
    known = p.constant(p.anything())
    return p.aten.batch_norm(x, p.optional(known), p.optional(known), known, known, training=False)


class BatchNormIntoProducer(RewriteRule):
    """batch_norm(conv(x, w, b), ...)  ->  conv(x, w * scale, b * scale + shift)"""

    @override
    def pattern(self, p: PatternBuilder) -> NodePattern:
        return _batch_norm(p, _producer(p))

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        if channel_axis(m.producer) != 1:
            raise NoMatch("the batch norm is along another axis than the linear layer's outputs")
        scale, shift = affine_of_batch_norm(m.root)
        return fold_affine(b, m.producer, scale, shift)


class _IntoProducer(RewriteRule):
    """Base of the rules that fold one operation with a constant."""

    @override
    def check(self, m: Match) -> None:
        if m.root.result.type != m.producer.result.type:
            raise NoMatch("the constant changes the type")
        if not m.producer.result.dtype.is_floating_point:
            raise NoMatch("the result is not floating-point")

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        operand = m.bindings.get("c")
        if operand is not None:
            number = per_channel(operand, m.producer)
        else:
            channels = m.producer.result.shape[channel_axis(m.producer)]
            if not isinstance(channels, int):
                raise NoMatch("the number of channels is symbolic")
            number = torch.full((channels,), float(m.number), dtype=torch.float64)
        scale, shift = _EFFECTS[m.root.op.name.split(".")[1]](number)
        return fold_affine(b, m.producer, scale, shift)


_EFFECTS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "mul": lambda c: (c, torch.zeros_like(c)),
    "div": lambda c: (1 / c, torch.zeros_like(c)),
    "add": lambda c: (torch.ones_like(c), c),
    "sub": lambda c: (torch.ones_like(c), -c),
}
"""What an operation with a constant does, as scale and shift."""


class MultiplyIntoProducer(_IntoProducer):
    """conv(x, w, b) * c  ->  conv(x, w * c, b * c)"""

    @override
    def pattern(self, p: PatternBuilder, c: Pattern) -> NodePattern:
        return p.aten.mul.Tensor(_producer(p), p.constant(c)).commutative()


class DivideIntoProducer(_IntoProducer):
    """conv(x, w, b) / c  ->  conv(x, w / c, b / c)"""

    @override
    def pattern(self, p: PatternBuilder, c: Pattern) -> NodePattern:
        return p.aten.div.Tensor(_producer(p), p.constant(c))


class AddIntoProducer(_IntoProducer):
    """conv(x, w, b) + c  ->  conv(x, w, b + c)"""

    @override
    def pattern(self, p: PatternBuilder, c: Pattern) -> NodePattern:
        return p.aten.add.Tensor(_producer(p), p.constant(c), alpha=1).commutative()


class SubtractIntoProducer(_IntoProducer):
    """conv(x, w, b) - c  ->  conv(x, w, b - c)"""

    @override
    def pattern(self, p: PatternBuilder, c: Pattern) -> NodePattern:
        return p.aten.sub.Tensor(_producer(p), p.constant(c), alpha=1)


class NumberIntoProducer(_IntoProducer):
    """conv(x, w, b) * 2.0  ->  conv(x, w * 2.0, b * 2.0), and so div, add and sub of a number"""

    @override
    def pattern(self, p: PatternBuilder) -> NodePattern:
        names = [f"aten.{name}.{kind}" for name in _EFFECTS for kind in ("Tensor", "Scalar")]
        number = p.attribute("number", lambda value: isinstance(value, int | float))
        return p.any_of(*names)(_producer(p), other=number)

    @override
    def check(self, m: Match) -> None:
        super().check(m)
        if "alpha" in m.root.op.attributes and attribute(m.root, "alpha") != 1:
            raise NoMatch("alpha is not 1")


class BatchNormAsAffine(RewriteRule):
    """batch_norm(x, ...)  ->  x * scale + shift"""

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return _batch_norm(p, x)

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        scale, shift = affine_of_batch_norm(m.root)
        shape = (1, -1, *(1 for _ in range(m.x.rank - 2)))
        stem = m.root.source or "batch_norm"
        factor = add_folded(b.graph, f"{stem}.weight", scale.reshape(shape).to(m.x.dtype))
        offset = add_folded(b.graph, f"{stem}.bias", shift.reshape(shape).to(m.x.dtype))
        return b.aten.add.Tensor(b.aten.mul.Tensor(m.x, factor), offset)


AFFINE_RULES: tuple[RewriteRule, ...] = (
    BatchNormIntoProducer(),
    MultiplyIntoProducer(),
    DivideIntoProducer(),
    AddIntoProducer(),
    SubtractIntoProducer(),
    NumberIntoProducer(),
    # After the one that folds: a batch norm comes here only when there is nothing to fold it into.
    BatchNormAsAffine(),
)
