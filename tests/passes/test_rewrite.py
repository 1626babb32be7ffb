"""Patterns and the driver: what matches, what is refused and why, and what the driver guarantees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from detc.ir import Builder, Graph, IRError, TensorType, Value, verify
from detc.passes import (
    Context,
    Match,
    NodePattern,
    NoMatch,
    Pattern,
    PatternBuilder,
    RewriteRule,
    apply_rules,
    attribute,
)
from detc.passes.core.base import integer, integers, number, numbers
from tests.checks import body_of, check_use_lists, graph_of, joined

X = "input %x: f32[N,4]\ninput %y: f32[N,4]\n"


class Rule(RewriteRule):
    """A rule of functions: a pattern, and a rewrite that marks the match with `neg` of its first variable."""

    def __init__(
        self,
        pattern: Callable[..., Any],
        rewrite: Callable[[Builder, Match], Any] | None = None,
        check: Callable[[Match], None] | None = None,
    ) -> None:
        self.pattern = pattern
        self._rewrite = rewrite or (lambda b, m: b.aten.neg(next(iter(m.bindings.values()))))
        self._check = check or (lambda m: None)
        self.found: list[Match] = []

    def check(self, m: Match) -> None:
        self._check(m)

    def rewrite(self, b: Builder, m: Match) -> Value | Sequence[Value | None]:
        self.found.append(m)
        result: Value | Sequence[Value | None] = self._rewrite(b, m)
        return result


def apply(rule: RewriteRule, lines: str, inputs: str = X) -> tuple[Graph, Context, bool]:
    graph = graph_of(inputs + joined(lines))
    context = Context("the-pass")
    changed = apply_rules(graph, [rule], context)
    verify(graph)
    check_use_lists(graph)
    return graph, context, changed


def refusals(rule: RewriteRule, lines: str, inputs: str = X) -> dict[str, int]:
    """Why the rule did not match."""
    _, context, changed = apply(rule, lines, inputs)
    assert not changed
    return dict(context.rules["the-pass", rule.name].refused)


def test_new_nodes_know_who_made_them_and_where_they_come_from() -> None:
    rule = Rule(lambda p, x: p.aten.relu(x))
    graph, context, changed = apply(rule, "%a: f32[N,4] = aten.relu(%x)  # head.relu\nreturn out=%a")
    (node,) = graph
    assert changed
    assert (node.op.name, node.source, node.created_by) == ("aten.neg", "head.relu", "the-pass")
    assert node.result.name == "a"
    count = context.rules["the-pass", "Rule"]
    assert (count.tried, count.matched, count.refused) == (1, 1, {})


def test_variables_that_stand_twice_must_be_the_same_value() -> None:
    rule = Rule(lambda p, x: p.aten.add.Tensor(x, x))
    assert apply(rule, "%a: f32[N,4] = aten.add.Tensor(%x, %x)\nreturn out=%a")[2]
    reasons = refusals(rule, "%a: f32[N,4] = aten.add.Tensor(%x, %y)\nreturn out=%a")
    assert reasons == {"x is not the same value in all its places": 1}


def test_equal_small_constants_are_the_same_value() -> None:
    rule = Rule(lambda p, x, c: p.aten.mul.Tensor(p.aten.add.Tensor(x, c), c), lambda b, m: b.aten.neg(m.x))
    lines = """
        %a: f32[N,4] = aten.add.Tensor(%x, f32[]{{2.0}})
        %b: f32[N,4] = aten.mul.Tensor(%a, f32[]{{{}}})
        return out=%b"""
    assert apply(rule, lines.format("2.0"))[2]
    assert not apply(rule, lines.format("3.0"))[2]


def test_commutative_patterns_try_both_orders() -> None:
    def pattern(p: PatternBuilder, x: Pattern, y: Pattern) -> NodePattern:
        return p.aten.add.Tensor(p.aten.relu(x), y).commutative()

    for operands in ("%r, %y", "%y, %r"):
        rule = Rule(pattern)
        lines = f"%r: f32[N,4] = aten.relu(%x)\n%a: f32[N,4] = aten.add.Tensor({operands})\nreturn out=%a"
        graph, _, changed = apply(rule, lines)
        assert changed
        assert rule.found[0].y is graph.input("y")


def test_matching_backtracks_over_earlier_choices() -> None:
    # The first order of the inner sum matches by itself, but not together with what follows.
    def pattern(p: PatternBuilder, x: Pattern, y: Pattern) -> NodePattern:
        return p.aten.sub.Tensor(p.aten.add.Tensor(x, y).commutative(), p.aten.relu(x))

    lines = """
        %a: f32[N,4] = aten.add.Tensor(%x, %y)
        %r: f32[N,4] = aten.relu(%y)
        %s: f32[N,4] = aten.sub.Tensor(%a, %r)
        return out=%s"""
    rule = Rule(pattern)
    graph, _, changed = apply(rule, lines)
    assert changed
    assert rule.found[0].x is graph.input("y")


def test_optional_operands() -> None:
    rule = Rule(lambda p, x, w, b: p.aten.linear(x, w, p.optional(b)))
    for bias in ("", ", @b:f32[4]"):
        rule.found.clear()
        assert apply(rule, f"%a: f32[N,4] = aten.linear(%x, @w:f32[4,4]{bias})\nreturn out=%a")[2]
        assert (rule.found[0].b is None) == (not bias)


def test_an_operand_that_the_pattern_does_not_have_refuses() -> None:
    lines = "%a: f32[N,4] = aten.linear(%x, @w:f32[4,4], @b:f32[4])\nreturn out=%a"
    assert refusals(Rule(lambda p, x, w: p.aten.linear(x, w)), lines) == {
        "aten.linear has more operands than the pattern": 1
    }
    assert refusals(Rule(lambda p, x, w: p.aten.linear(x, w, None)), lines) == {
        "an operand is given that the pattern leaves out": 1
    }


def test_list_operands() -> None:
    lines = "%a: f32[N,8] = aten.cat([%x, %y], dim=1)\n%b: f32[N,8] = aten.relu(%a)\nreturn out=%b"
    whole = Rule(lambda p, parts: p.aten.relu(p.aten.cat(parts)), lambda b, m: b.aten.cat(m.parts, dim=1))
    assert apply(whole, lines)[2]
    assert [v.name for v in whole.found[0].parts] == ["x", "y"]
    two = Rule(lambda p, x, y: p.aten.relu(p.aten.cat([x, y])), lambda b, m: b.aten.cat([m.y, m.x], dim=1))
    assert apply(two, lines)[2]
    three = Rule(lambda p, x, y, z: p.aten.cat([x, y, z]))
    assert refusals(three, lines) == {"expected a list of 3, found a list of 2": 1}


def test_attributes_are_compared_asked_or_kept() -> None:
    lines = "%a: f32[N] = aten.sum.dim_IntList(%x, dim=(1,))\nreturn out=%a"

    def made(b: Builder, m: Match) -> Value:
        result: Value = b.aten.amax(m.x, dim=(1,))
        return result

    assert apply(Rule(lambda p, x: p.aten.sum.dim_IntList(x, dim=(1,)), made), lines)[2]
    assert apply(Rule(lambda p, x: p.aten.sum.dim_IntList(x, keepdim=False), made), lines)[2]
    assert apply(Rule(lambda p, x: p.aten.sum.dim_IntList(x, dim=lambda d: len(d) == 1), made), lines)[2]
    kept = Rule(lambda p, x: p.aten.sum.dim_IntList(x, dim=p.attribute("axes")), made)
    assert apply(kept, lines)[2]
    assert kept.found[0].axes == (1,)


def test_attributes_are_read_by_type() -> None:
    pad = graph_of(X + "%a: f32[N,6] = aten.constant_pad_nd(%x, pad=(1, 1), value=2.0)\nreturn out=%a").nodes[
        0
    ]
    assert (
        number(pad, "value") == 2.0 and integers(pad, "pad") == (1, 1) and numbers(pad, "pad") == (1.0, 1.0)
    )
    assert isinstance(integer(pad, "value"), int)
    pad.attributes["value"] = 0.5
    with pytest.raises(
        IRError, match=r"'value' of aten.constant_pad_nd holds 0.5 where a whole number must stand"
    ):
        integer(pad, "value")
    with pytest.raises(IRError, match=r"holds \(1, 1\) where a number must stand"):
        number(pad, "pad")
    with pytest.raises(IRError, match=r"'value' of aten.constant_pad_nd is 0.5, not a row"):
        numbers(pad, "value")


def test_a_refused_attribute_says_so() -> None:
    lines = "%a: f32[N] = aten.sum.dim_IntList(%x, dim=(1,))\nreturn out=%a"
    refused = {"dim=(1,) of aten.sum.dim_IntList is refused": 1}
    assert refusals(Rule(lambda p, x: p.aten.sum.dim_IntList(x, dim=(0,))), lines) == refused
    assert refusals(Rule(lambda p, x: p.aten.sum.dim_IntList(x, dim=lambda d: False)), lines) == refused
    captured = Rule(lambda p, x: p.aten.sum.dim_IntList(x, dim=p.attribute("d", lambda d: False)))
    assert refusals(captured, lines) == refused


def test_an_attribute_kept_twice_must_be_the_same() -> None:
    def pattern(p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.aten.softmax.int(p.aten.softmax.int(x, dim=p.attribute("d")), dim=p.attribute("d"))

    lines = """
        %a: f32[N,4] = aten.softmax.int(%x, dim=1)
        %b: f32[N,4] = aten.softmax.int(%a, dim={})
        return out=%b"""
    assert apply(Rule(pattern, lambda b, m: b.aten.neg(m.x)), lines.format(1))[2]
    assert "d is not the same in all its places" in refusals(Rule(pattern), lines.format(0))


def test_alternatives_of_ops_and_of_patterns() -> None:
    rule = Rule(lambda p, x: p.any_of("aten.relu", "aten.relu_")(x), lambda b, m: b.aten.neg(m.x))
    for op in ("relu", "relu_"):
        assert apply(rule, f"%a: f32[N,4] = aten.{op}(%x)\nreturn out=%a")[2]
    either = Rule(
        lambda p, x: p.aten.abs(p.either(p.aten.relu(x), p.aten.sigmoid(x))), lambda b, m: b.aten.neg(m.x)
    )
    for op in ("relu", "sigmoid"):
        assert apply(either, f"%a: f32[N,4] = aten.{op}(%x)\n%b: f32[N,4] = aten.abs(%a)\nreturn out=%b")[2]
    assert not apply(either, "%a: f32[N,4] = aten.tanh(%x)\n%b: f32[N,4] = aten.abs(%a)\nreturn out=%b")[2]


def test_several_results() -> None:
    def pattern(p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.aten.neg(p.aten.sort(x)[1])

    lines = "%v: f32[N,4], %i: i64[N,4] = aten.sort(%x)\n%a: {} = aten.neg({})\nreturn out=%a"
    rule = Rule(pattern, lambda b, m: b.aten.argsort(m.x))
    assert apply(rule, lines.format("i64[N,4]", "%i"))[2]
    assert refusals(rule, lines.format("f32[N,4]", "%v")) == {
        "expected result 1 of aten.sort, found result 0": 1
    }


def test_single_use() -> None:
    rule = Rule(lambda p, x: p.aten.abs(p.aten.relu(x).single_use()), lambda b, m: b.aten.neg(m.x))
    lines = "%a: f32[N,4] = aten.relu(%x)\n%b: f32[N,4] = aten.abs(%a)\n"
    assert apply(rule, lines + "return out=%b")[2]
    why = {"the result of aten.relu is used elsewhere": 1}
    assert refusals(rule, lines + "return out=%b, also=%a") == why
    assert refusals(rule, lines + "%c: f32[N,4] = aten.neg(%a)\nreturn out=%b, c=%c") == why


def test_a_use_that_goes_away_gives_another_rule_its_chance() -> None:
    # `abs` may fold only when it is the last user of `relu`, which it is once `neg` has been rewritten.
    fold = Rule(lambda p, x: p.aten.abs(p.aten.relu(x).single_use()), lambda b, m: b.aten.tanh(m.x))

    class Free(RewriteRule):
        def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
            return p.aten.neg(p.aten.relu(x))

        def rewrite(self, b: Builder, m: Match) -> Value:
            result: Value = b.aten.sigmoid(m.x)
            return result

    lines = """
        %a: f32[N,4] = aten.relu(%x)
        %b: f32[N,4] = aten.abs(%a)
        %c: f32[N,4] = aten.neg(%a)
        return b=%b, c=%c"""
    graph = graph_of(X + joined(lines))
    apply_rules(graph, [fold, Free()], Context())
    assert sorted(node.op.name for node in graph) == ["aten.sigmoid", "aten.tanh"]


def test_conditions_on_values_and_names_for_them() -> None:
    def pattern(p: PatternBuilder, x: Pattern) -> NodePattern:
        summed = p.aten.add.Tensor(x, p.anything()).named("sum")
        return p.aten.relu(summed.where(lambda v: v.rank == 2, "not a matrix").named("value"))

    lines = "%a: f32[{0}] = aten.add.Tensor(%x, %x)\n%b: f32[{0}] = aten.relu(%a)\nreturn out=%b"
    rule = Rule(pattern, lambda b, m: b.aten.neg(m.x))
    assert apply(rule, lines.format("N,4"))[2]
    match = rule.found[0]
    assert match.sum.op.name == "aten.add.Tensor"
    assert match.value.name == "a"
    assert match.root.op.name == "aten.relu"
    with pytest.raises(AttributeError, match="no 'nothing'"):
        match.nothing  # noqa: B018
    assert refusals(rule, lines.format("N"), "input %x: f32[N]\n") == {"not a matrix": 1}


def test_the_nearest_miss_is_the_deepest_one() -> None:
    def pattern(p: PatternBuilder, x: Pattern) -> NodePattern:
        deep = p.aten.abs(p.aten.neg(p.aten.relu(x)))
        return p.aten.add.Tensor(deep, p.anything()).commutative()

    lines = """
        %a: f32[N,4] = aten.sigmoid(%x)
        %b: f32[N,4] = aten.neg(%a)
        %c: f32[N,4] = aten.abs(%b)
        %d: f32[N,4] = aten.add.Tensor(%c, %y)
        return out=%d"""
    assert refusals(Rule(pattern), lines) == {"expected aten.relu, found aten.sigmoid": 1}


def test_several_roots() -> None:
    def pattern(p: PatternBuilder, x: Pattern, v: Pattern, w: Pattern) -> tuple[NodePattern, NodePattern]:
        return p.aten.linear(x, v), p.aten.linear(x, w)

    def rewrite(b: Builder, m: Match) -> tuple[Value, Value]:
        weight = b.constant(torch.cat([m.v.data, m.w.data]))
        both: tuple[Value, Value] = b.aten.split_with_sizes(
            b.aten.linear(m.x, weight), split_sizes=(2, 3), dim=1
        )
        return both

    lines = """
        %a: f32[N,2] = aten.linear(%x, @v:f32[2,4])
        %u: f32[N,2] = aten.relu(%a)
        %b: f32[N,3] = aten.linear(%x, @w:f32[3,4])
        return u=%u, b=%b"""
    graph, _, changed = apply(Rule(pattern, rewrite), lines)
    assert changed
    assert [n.op.name for n in graph] == ["aten.linear", "aten.split_with_sizes", "aten.relu"]
    alone = "%a: f32[N,2] = aten.linear(%x, @v:f32[2,4])\nreturn a=%a"
    assert refusals(Rule(pattern, rewrite), alone) == {"no second aten.linear uses the same x": 1}


def test_roots_of_which_one_needs_the_other_are_refused_and_all_is_taken_back() -> None:
    def pattern(p: PatternBuilder, x: Pattern, v: Pattern, w: Pattern) -> tuple[NodePattern, NodePattern]:
        return p.aten.linear(x, v), p.aten.mul.Tensor(x, w)

    def rewrite(b: Builder, m: Match) -> tuple[Value, Value]:
        b.graph.add_weight("new", torch.zeros(3))
        return b.aten.neg(m.x), b.aten.abs(m.w)

    lines = """
        %a: f32[N,4] = aten.linear(%x, @v:f32[4,4])
        %s: f32[N,4] = aten.sigmoid(%a)
        %b: f32[N,4] = aten.mul.Tensor(%x, %s)
        return a=%a, b=%b"""
    rule = Rule(pattern, rewrite)
    graph, context, changed = apply(rule, lines)
    assert not changed
    assert body_of(graph) == (X + joined(lines)).strip()
    assert list(graph.weights) == ["v"]
    refused = context.rules["the-pass", rule.name].refused
    assert refused == {"an operand of one root is computed after another root": 1}


def test_what_a_refusing_rule_has_built_is_taken_back() -> None:
    def rewrite(b: Builder, m: Match) -> Value:
        b.aten.neg(b.aten.abs(m.x))
        b.graph.add_weight("new", torch.zeros(3))
        raise NoMatch("on second thoughts")

    lines = "%a: f32[N,4] = aten.relu(%x)\nreturn out=%a"
    rule = Rule(lambda p, x: p.aten.relu(x), rewrite)
    graph, context, changed = apply(rule, lines)
    assert not changed
    assert body_of(graph) == (X + lines).strip()
    assert not graph.weights
    assert context.rules["the-pass", rule.name].refused == {"on second thoughts": 1}


def test_a_check_refuses() -> None:
    def check(m: Match) -> None:
        raise NoMatch("not today")

    rule = Rule(lambda p, x: p.aten.relu(x), None, check)
    assert refusals(rule, "%a: f32[N,4] = aten.relu(%x)\nreturn out=%a") == {"not today": 1}


def test_another_shape_is_refused_another_dtype_is_an_error() -> None:
    lines = "%a: f32[N,4] = aten.relu(%x)\nreturn out=%a"
    shape = Rule(lambda p, x: p.aten.relu(x), lambda b, m: b.aten.cat([m.x, m.x], dim=1))
    assert refusals(shape, lines) == {"the type would be f32[N,8], not f32[N,4]": 1}
    dtype = Rule(lambda p, x: p.aten.relu(x), lambda b, m: b.aten.to.dtype(m.x, dtype=torch.float64))
    with pytest.raises(IRError, match=r"gave f64\[N,4\] for f32\[N,4\]"):
        apply(dtype, lines)


def test_a_wrong_number_of_values_is_an_error() -> None:
    rule = Rule(lambda p, x: p.aten.relu(x), lambda b, m: (m.x, m.x))
    with pytest.raises(IRError, match="2 values for 1 results"):
        apply(rule, "%a: f32[N,4] = aten.relu(%x)\nreturn out=%a")


def test_a_value_that_is_computed_later_is_an_error() -> None:
    lines = "%a: f32[N,4] = aten.relu(%x)\n%b: f32[N,4] = aten.tanh(%x)\nreturn out=%a, b=%b"
    for rewrite in (
        lambda b, m: b.aten.neg(list(b.graph)[-1].result),
        lambda b, m: list(b.graph)[-1].result,
    ):
        with pytest.raises(IRError, match="before it is computed"):
            apply(Rule(lambda p, x: p.aten.relu(x), rewrite), lines)


def test_rules_without_end_are_an_error() -> None:
    there = Rule(lambda p, x: p.aten.relu(x), lambda b, m: b.aten.tanh(m.x))
    back = Rule(lambda p, x: p.aten.tanh(x), lambda b, m: b.aten.relu(m.x))
    graph = graph_of(X + "%a: f32[N,4] = aten.relu(%x)\nreturn out=%a")
    with pytest.raises(IRError, match="no end"):
        apply_rules(graph, [there, back], Context())


def test_rewrites_make_way_for_others_upstream_and_downstream() -> None:
    # Each rewrite of the chain makes the next one possible, three nodes further down.
    rule = Rule(lambda p, x: p.aten.abs(p.aten.neg(p.aten.relu(x))), lambda b, m: b.aten.relu(m.x))
    lines = ["%v0: f32[N,4] = aten.relu(%x)"]
    for i in range(20):
        lines += [
            f"%n{i}: f32[N,4] = aten.neg(%v{i})",
            f"%v{i + 1}: f32[N,4] = aten.abs(%n{i})",
        ]
    graph, context, _ = apply(rule, "\n".join([*lines, "return out=%v20"]))
    assert len(graph) == 1
    assert context.rules["the-pass", rule.name].matched == 20


def test_what_lies_downstream_of_a_late_rewrite_is_looked_at_again() -> None:
    # `neg` is visited while it follows `abs`; its turn comes when `abs`, a new node itself, has become `tanh`.
    class First(RewriteRule):
        def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
            return p.aten.relu(x)

        def rewrite(self, b: Builder, m: Match) -> Value:
            result: Value = b.aten.abs(m.x)
            return result

    second = Rule(lambda p, x: p.aten.abs(x), lambda b, m: b.aten.tanh(m.x))
    third = Rule(lambda p, x: p.aten.neg(p.aten.tanh(x)), lambda b, m: b.aten.sigmoid(m.x))
    lines = """
        %a: f32[N,4] = aten.relu(%x)
        %b: f32[N,4] = aten.neg(%a)
        %c: f32[N,4] = aten.cos(%x)
        return b=%b, c=%c"""
    graph = graph_of(X + joined(lines))
    apply_rules(graph, [First(), second, third], Context())
    assert [node.op.name for node in graph] == ["aten.sigmoid", "aten.cos"]


def test_many_insertions_at_one_place_keep_the_order() -> None:
    # Between two nodes there is room for about twenty halvings before all are numbered anew.
    def rewrite(b: Builder, m: Match) -> Value:
        left = int(str(attribute(m.root, "p")))
        if left == 1:
            raise NoMatch("done")
        value: Value = b.aten.renorm(b.aten.neg(m.x), p=left - 1, dim=0, maxnorm=1.0)
        return value

    rule = Rule(lambda p, x: p.aten.renorm(x), rewrite)
    graph, context, _ = apply(rule, "%a: f32[N,4] = aten.renorm(%x, p=60, dim=0, maxnorm=1.0)\nreturn out=%a")
    assert context.rules["the-pass", rule.name].matched == 59
    assert len(graph) == 60


def test_malformed_patterns_are_errors() -> None:
    graph = Graph("g")
    graph.add_input("x", TensorType(torch.float32, (2,)))
    for pattern, message in (
        (lambda p, x: x, "must have a node as its root, not a pattern of a value"),
        (lambda p, x: None, "not NoneType"),
        (lambda p, x: p.aten.relu(3), "must be a pattern, a list or None, not int"),
        (lambda p, x: p.aten.relu(x).commutative(), "needs two operands"),
    ):
        with pytest.raises(IRError, match=message):
            apply_rules(graph, [Rule(pattern)], Context())


def test_roots_without_a_common_variable_are_an_error() -> None:
    rule = Rule(lambda p, x, y: (p.aten.relu(x), p.aten.tanh(y)))
    with pytest.raises(IRError, match="no variable in common"):
        apply(rule, "%a: f32[N,4] = aten.relu(%x)\nreturn out=%a")
