"""Two passes as a user writes them: one by a rewrite rule, one by walking the graph."""

from __future__ import annotations

from dataclasses import dataclass

from detc.ir import Builder, Graph, InputError, Value
from detc.passes import (
    Context,
    DeadCode,
    Match,
    NodePattern,
    NoMatch,
    Pass,
    Pattern,
    PatternBuilder,
    RewriteRule,
    apply_rules,
)


class HardSwishParts(RewriteRule):
    """hardswish(x)  ->  x * clamp(x + 3, 0, 6) / 6"""

    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.any_of("aten.hardswish", "aten.hardswish_")(x)

    def check(self, m: Match) -> None:
        if not m.x.dtype.is_floating_point:
            raise NoMatch("x holds integers")

    def rewrite(self, b: Builder, m: Match) -> Value:
        gate = b.aten.clamp(b.aten.add.Tensor(m.x, other=3.0), min=0.0, max=6.0)
        return b.aten.mul.Tensor(b.aten.mul.Tensor(m.x, gate), other=1 / 6)


@dataclass(frozen=True)
class ExpandHardSwish(Pass):
    """Replace hard-swish by its parts, for a runtime that lacks it.

    Before:
        %0: f32[N,8] = aten.hardswish(%x)
    After:
        %0: f32[N,8] = aten.add.Tensor(%x, other=3.0)
        %1: f32[N,8] = aten.clamp(%0, min=0.0, max=6.0)
        %2: f32[N,8] = aten.mul.Tensor(%x, %1)
        %3: f32[N,8] = aten.mul.Tensor(%2, other=0.16666666666666666)
    """

    def apply(self, graph: Graph, context: Context) -> bool:
        return apply_rules(graph, [HardSwishParts()], context)


@dataclass(frozen=True)
class DropOutput(Pass):
    """Take an output away, and with it the head that computes it.

    Before:
        return boxes=%b, masks=%m
    After:
        return boxes=%b

    Attributes:
        name_of_output: the output's name.
    """

    name_of_output: str

    def apply(self, graph: Graph, context: Context) -> bool:
        if self.name_of_output not in graph.outputs:
            raise InputError(
                f"there is no output {self.name_of_output!r}; there are {', '.join(graph.outputs)}"
            )
        with context.rewrite(f"the output {self.name_of_output}"):
            graph.set_outputs({name: v for name, v in graph.outputs.items() if name != self.name_of_output})
        return DeadCode().apply(graph, context) or True
