"""Patterns of what stands in any number: lists of operands, lists in step, all nodes on one value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from detc.ir import Builder, IRError, Value
from detc.passes import Context, FuseAnchors, FuseRpnHead, Match, Pass, PatternBuilder
from tests.checks import check_pass, graph_of, joined
from tests.passes.test_rewrite import Rule, apply, refusals

CAT = """
    %a: f32[N,4] = aten.leaky_relu(%x, negative_slope={0})
    %b: f32[N,4] = aten.leaky_relu(%y, negative_slope={1})
    %c: f32[N,8] = aten.cat([%a, %b], dim=1)
    return out=%c"""


def cat_of(b: Builder, m: Match) -> Value:
    made: Value = b.aten.cat(list(m.xs), dim=1)
    return made


def test_each_item_of_a_list() -> None:
    def pattern(p: PatternBuilder, xs: Any) -> Any:
        return p.aten.cat(p.each(p.aten.leaky_relu(xs, negative_slope=p.attribute("slopes")).named("nodes")))

    rule = Rule(pattern, cat_of)
    graph, _, changed = apply(rule, CAT.format(0.5, 0.25))
    assert changed
    (found,) = rule.found
    assert found.xs == (graph.input("x"), graph.input("y"))
    assert found.slopes == (0.5, 0.25)
    assert [node.op.name for node in found.nodes] == ["aten.leaky_relu"] * 2
    assert [node.op.name for node in graph] == ["aten.cat"]
    one = CAT.format(0.5, 0.25).replace("[%a, %b]", "[%a, %x]")
    assert refusals(rule, one) == {"expected aten.leaky_relu, found an input": 1}


def test_what_is_the_same_in_all_items() -> None:
    def pattern(p: PatternBuilder, xs: Any) -> Any:
        item = p.aten.leaky_relu(xs, negative_slope=p.attribute("slope"))
        return p.aten.cat(p.each(item, same="slope"))

    rule = Rule(pattern, cat_of)
    assert apply(rule, CAT.format(0.5, 0.5))[2]
    assert rule.found[0].slope == 0.5
    assert refusals(rule, CAT.format(0.5, 0.25)) == {"slope is not the same in all its places": 1}


def test_the_least_number_of_items() -> None:
    rule = Rule(lambda p, xs: p.aten.cat(p.each(p.aten.relu(xs), at_least=3)))
    assert refusals(rule, CAT.format(0.5, 0.5)) == {"expected a list of 3 or more, found a list of 2": 1}


def test_items_that_match_in_several_ways_are_tried_in_all() -> None:
    # The first sum's operands are bound in the wrong order until the second list is looked at.
    def pattern(p: PatternBuilder, xs: Any, ys: Any) -> Any:
        sums, others = p.each(p.aten.add.Tensor(xs, ys).commutative(), p.aten.neg(xs))
        return p.aten.add.Tensor(p.aten.cat(sums), p.aten.cat(others))

    lines = """
        %s: f32[N,4] = aten.add.Tensor(%x, %y)
        %t: f32[N,4] = aten.add.Tensor(%x, %y)
        %u: f32[N,4] = aten.neg(%y)
        %v: f32[N,4] = aten.neg(%{0})
        %a: f32[N,8] = aten.cat([%s, %t], dim=1)
        %b: f32[N,{1}] = aten.cat([{2}], dim=1)
        %c: f32[N,8] = aten.add.Tensor(%a, %b)
        return c=%c"""
    rule = Rule(pattern, cat_of)
    graph, _, changed = apply(rule, lines.format("x", 8, "%u, %v"))
    assert changed
    assert rule.found[0].xs == (graph.input("y"), graph.input("x"))
    assert rule.found[0].ys == (graph.input("x"), graph.input("y"))


def test_lists_in_step_are_equally_long() -> None:
    def pattern(p: PatternBuilder, xs: Any, ys: Any) -> Any:
        first, second = p.each(p.aten.neg(xs), p.aten.abs(ys))
        return p.aten.add.Tensor(p.aten.cat(first), p.aten.cat(second))

    lines = """
        %s: f32[N,4] = aten.neg(%x)
        %t: f32[N,8] = aten.abs(%z)
        %a: f32[N,8] = aten.cat([%s, %s], dim=1)
        %b: f32[N,8] = aten.cat([%t], dim=1)
        %c: f32[N,8] = aten.add.Tensor(%a, %b)
        return c=%c"""
    inputs = "input %x: f32[N,4]\ninput %z: f32[N,8]\n"
    assert refusals(Rule(pattern), lines, inputs) == {"a list of 1 in step with one of 2": 1}


LINEAR = """
    %a: f32[N,2] = aten.linear(%x, @u:f32[2,4])
    %b: f32[N,3] = aten.linear(%x, @v:f32[3,4])
    %e: f32[N,3] = aten.linear(%y, @v:f32[3,4])
    %c: f32[N,5] = aten.linear(%x, @w:f32[5,4], @bias:f32[5])
    %d: f32[N,1] = aten.linear(%x, @t:f32[1,4])
    return a=%a, b=%b, c=%c, d=%d, e=%e"""


def test_all_nodes_on_one_value() -> None:
    def rewrite(b: Builder, m: Match) -> Any:
        weight = b.constant(torch.cat([w.data for w in m.weights]))
        rows = tuple(len(w.data) for w in m.weights)
        return b.aten.split_with_sizes(b.aten.linear(m.x, weight), split_sizes=rows, dim=1)

    rule = Rule(lambda p, x, weights: p.each(p.aten.linear(x, weights), same="x", at_least=2), rewrite)
    graph, context, changed = apply(rule, LINEAR)
    assert changed
    # The one with a bias is left out, and so is the one on another value.
    assert [w.name for w in rule.found[0].weights] == ["u", "v", "t"]
    assert [node.op.name for node in graph] == ["aten.linear", "aten.split_with_sizes", *["aten.linear"] * 2]
    assert context.rules["the-pass", "Rule"].refused["no second aten.linear uses the same x"] == 1


def test_nodes_with_a_fact_in_common() -> None:
    def pattern(p: PatternBuilder, x: Any) -> Any:
        layer = (
            p.aten.linear(x, p.anything())
            .named("layers")
            .having("even", lambda node: node.result.shape[1] % 2)
        )
        return p.each(layer, same=("x", "even"), at_least=2)

    rule = Rule(
        pattern, lambda b, m: [b.aten.linear(m.x, n.operand(1), n.operand_or_none(2)) for n in m.layers]
    )
    lines = LINEAR.replace("return", "%f: f32[N,4] = aten.linear(%x, @s:f32[4,4])\n    return").replace(
        "e=%e", "e=%e, f=%f"
    )
    with pytest.raises(IRError, match="no end"):
        # Each is replaced by its like.
        apply(rule, lines)
    assert [n.result.shape[1] for n in rule.found[0].layers] == [2, 4]
    assert rule.found[0].even == 0
    lines = LINEAR.replace("%d: f32[N,1] = aten.linear(%x, @t:f32[1,4])", "").replace("d=%d, ", "")
    assert "even is not the same in all its places" in refusals(rule, lines)


def test_too_few_nodes() -> None:
    without_bias = LINEAR.replace(", @bias:f32[5]", "")
    rule = Rule(lambda p, x, weights: p.each(p.aten.linear(x, weights), same="x", at_least=5))
    assert refusals(rule, without_bias)["fewer than 5 aten.linear belong together"] == 4


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (lambda p, x: p.aten.cat(p.each(p.aten.cat(p.each(x)))), "cannot stand in another"),
        (lambda p, x: p.aten.add.Tensor(p.aten.cat(p.each(x)), x), "stands in an `each` and outside of it"),
        (lambda p, x: p.each(x), "must have the pattern of a node"),
        (lambda p, x: p.each(p.aten.linear(x, p.anything())), "no variable in common"),
    ],
)
def test_malformed_lists_are_errors(pattern: Callable[..., Any], message: str) -> None:
    lines = """
        %i: f32[N,4] = aten.cat([%x])
        %a: f32[N,4] = aten.cat([%i])
        %b: f32[N,4] = aten.linear(%x, @u:f32[4,4])
        %c: f32[N,4] = aten.add.Tensor(%a, %b)
        return c=%c"""
    with pytest.raises(IRError, match=message):
        apply(Rule(pattern), lines)


# The passes that are written with them

PROPOSALS = """
    input %m0: f32[N,8,H,W]
    input %m1: f32[N,8,G,K]
    input %im_info: f32[N,3]
    %l0: f32[N,1,H,W] = aten.conv2d(%m0, @l.weight:f32[1,8,1,1], @l.bias:f32[1])
    %d0: f32[N,4,H,W] = aten.conv2d(%m0, @d.weight:f32[4,8,1,1], @d.bias:f32[4])
    %l1: f32[N,1,G,K] = aten.conv2d(%m1, @l.weight:f32[1,8,1,1], @l.bias:f32[1])
    %d1: f32[N,4,G,K] = aten.conv2d(%m1, @d.weight:f32[4,8,1,1], @d.bias:f32[4])
    %a0: f32[H*W,4] = det.anchors(%m0, @c0:f32[1,4], stride=4, offset=0.0)
    %a1: f32[G*K,4] = det.anchors(%m1, @c1:f32[1,4], stride=8, offset=0.0)
    %b: f32[P,4], %s: f32[P], %i: i64[P] = det.rpn_proposals([%l0, %l1], [%d0, %d1], [%a0, %a1], %im_info,
        weights=(1.0, 1.0, 1.0, 1.0), scale_clamp=4.0, nms_thresh=0.7, pre_nms_topk=10, post_nms_topk=5,
        min_box_size=0.0)
    return b=%b, s=%s, i=%i"""


def why(item: Pass, *changes: str, before: Pass | None = None) -> set[str]:
    """Why a pass refuses the proposals with parts of their text changed, given as old, new, old, new, ..."""
    text = joined(PROPOSALS)
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert old in text
        text = text.replace(old, new)
    graph, context = graph_of(text), Context()
    if before is not None:
        assert before.apply(graph, context)
    assert not item.apply(graph, context)
    return {reason for count in context.rules.values() for reason in count.refused}


def test_anchors_and_heads_are_fused_over_all_levels() -> None:
    graph = graph_of(joined(PROPOSALS))
    inputs = {
        "m0": torch.rand(2, 8, 4, 6),
        "m1": torch.rand(2, 8, 2, 3),
        "im_info": torch.tensor([[16.0, 24.0, 1.0], [12.0, 20.0, 1.0]]),
    }
    fused = check_pass(FuseAnchors(), graph, inputs)
    assert fused.nodes[-1].attributes["strides"] == (4, 8)
    result = check_pass(FuseRpnHead(), fused, inputs)
    assert [node.op.name for node in result] == ["aten.conv2d"] * 2 + ["det.dense_proposals"]
    assert sorted(result.weights) == ["c0", "c1", "l.bias_fused", "l.weight_fused"]


def test_why_anchors_stay() -> None:
    assert why(FuseAnchors(), "stride=8, offset=0.0", "stride=8, offset=0.5") == {
        "offset is not the same in all its places"
    }
    assert why(FuseAnchors(), "det.anchors(%m1", "det.anchors(%m0", "G*K,4]", "H*W,4]") == {
        "the anchors are laid over another map than the logits"
    }


def test_levels_with_different_numbers_of_anchors_stay() -> None:
    two = {
        "%l1: f32[N,1,G,K] = aten.conv2d(%m1, @l.weight:f32[1,8,1,1], @l.bias:f32[1])": "%l1: f32[N,2,G,K] = aten.conv2d(%m1, @k.weight:f32[2,8,1,1])",
        "%d1: f32[N,4,G,K] = aten.conv2d(%m1, @d.weight:f32[4,8,1,1], @d.bias:f32[4])": "%d1: f32[N,8,G,K] = aten.conv2d(%m1, @e.weight:f32[8,8,1,1])",
        "%a1: f32[G*K,4] = det.anchors(%m1, @c1:f32[1,4]": "%a1: f32[2*G*K,4] = det.anchors(%m1, @c1:f32[2,4]",
    }
    changes = [text for pair in two.items() for text in pair]
    assert why(FuseAnchors(), *changes) == {"the levels differ in their number of anchors"}


def test_why_heads_stay() -> None:
    def refused(*changes: str) -> set[str]:
        return why(FuseRpnHead(), *changes, before=FuseAnchors())

    head = "%d1: f32[N,4,G,K] = aten.conv2d({}, @d"
    other = "%m2: f32[N,8,G,K] = aten.relu(%m1)\n" + head.format("%m2")
    assert refused(head.format("%m1"), other) == {"maps is not the same value in all its places"}
    assert refused("return b=%b", "return l=%l0, b=%b") == {"the result of aten.conv2d is used elsewhere"}
    groups = "@d.weight:f32[4,8,1,1], @d.bias:f32[4]", "@d.weight:f32[4,4,1,1], @d.bias:f32[4], groups=2"
    assert refused(*groups) == {"groups=2 of aten.conv2d is refused"}
    assert refused(", @l.bias:f32[1]", "") == {"a map comes from no convolution with a constant bias"}
