"""DeadCode, CommonSubexpressions, FoldConstants: what goes, and what must stay."""

from __future__ import annotations

import pytest
import torch

from detc.ir import print_graph, run
from detc.passes import CommonSubexpressions, Context, DeadCode, FoldConstants, Pipeline
from tests.checks import body_of, check_pass, check_rewrite, graph_of, joined, random_inputs

X = "input %x: f64[N,4]\n"


def test_dead_chains_and_weights_go() -> None:
    before = """
        input %x: f64[N,4]
        input %unused: f64[N]
        %a: f64[N,4] = aten.relu(%x)
        %b: f64[N,4] = aten.mul.Tensor(%a, @k:f64[4])
        %c: f64[N,4] = aten.neg(%b)
        return out=%a"""
    after = """
        input %x: f64[N,4]
        input %unused: f64[N]
        %a: f64[N,4] = aten.relu(%x)
        return out=%a"""
    result = check_rewrite(DeadCode(), joined(before), joined(after), N=2)
    assert not result.weights


def test_a_node_with_effects_stays() -> None:
    text = X + "%a: f64[N,4] = aten.relu_(%x)\nreturn out=%x"
    graph = graph_of(text)
    assert not DeadCode().apply(graph, Context())
    assert body_of(graph) == text


def test_a_node_with_one_used_result_stays() -> None:
    text = X + "%a: f64[N,4], %i: i64[N,4] = aten.sort(%x)\nreturn out=%i"
    graph = graph_of(text)
    assert not DeadCode().apply(graph, Context())


def test_the_node_stays_whose_size_another_needs() -> None:
    text = """
        input %x: f64[N,4]
        %mask: bool[N,4] = aten.gt.Scalar(%x, other=0.0)
        %places: i64[found,2] = aten.nonzero(%mask)
        %row: i64[found] = aten.arange(end=found, dtype=dtype.i64)
        return out=%row"""
    graph = graph_of(joined(text))
    assert not DeadCode().apply(graph, Context())
    assert run(graph, {"x": torch.tensor([[1.0, 0, 0, 0], [0, 1, 1, 0]], dtype=torch.float64)})[
        "out"
    ].tolist() == [0, 1, 2]
    graph.set_outputs({"out": graph.inputs[0]})
    assert DeadCode().apply(graph, Context())
    assert len(graph) == 0


def test_equal_nodes_become_one() -> None:
    before = """
        input %x: f64[N,4]
        %a: f64[N,4] = aten.mul.Tensor(%x, f64[]{2.0})
        %b: f64[N,4] = aten.mul.Tensor(%x, f64[]{2.0})
        %c: f64[N,4] = aten.relu(%a)
        %d: f64[N,4] = aten.relu(%b)
        %e: f64[N,8] = aten.cat([%c, %d], dim=1)
        return out=%e, d=%d"""
    after = """
        input %x: f64[N,4]
        %a: f64[N,4] = aten.mul.Tensor(%x, f64[]{2.0})
        %c: f64[N,4] = aten.relu(%a)
        %e: f64[N,8] = aten.cat([%c, %c], dim=1)
        return out=%e, d=%c"""
    check_rewrite(CommonSubexpressions(), joined(before), joined(after), N=2)


DIFFERENT = {
    "attributes": ("aten.sum.dim_IntList(%x, dim=(0,))", "aten.sum.dim_IntList(%x, dim=(1,))"),
    "an int and a float": ("aten.mul.Scalar(%i, other=2)", "aten.mul.Scalar(%i, other=2.0)"),
    "zero and minus zero": ("aten.div.Tensor(%x, f64[]{0.0})", "aten.div.Tensor(%x, f64[]{-0.0})"),
    "the dtypes of constants": ("aten.mul.Tensor(%i, i64[]{2})", "aten.mul.Tensor(%i, f32[]{2.0})"),
    "the shapes of constants": ("aten.mul.Tensor(%x, f64[]{2.0})", "aten.mul.Tensor(%x, f64[1,1]{2.0})"),
    "the order of operands": ("aten.sub.Tensor(%x, %y)", "aten.sub.Tensor(%y, %x)"),
    "weights": ("aten.mul.Tensor(%x, @a:f64[4])", "aten.mul.Tensor(%x, @b:f64[4])"),
    "random numbers": ("aten.rand_like(%x)", "aten.rand_like(%x)"),
    "changes in place": ("aten.relu_(%x)", "aten.relu_(%x)"),
}


@pytest.mark.parametrize(("first", "second"), DIFFERENT.values(), ids=DIFFERENT)
def test_nodes_that_differ_stay_two(first: str, second: str) -> None:
    def type_of(call: str) -> str:
        if "sum" in call:
            return "f64[4]" if "(0,)" in call else "f64[N]"
        if "%i" in call:
            return "i64[N,4]" if "i64" in call or "=2)" in call else "f32[N,4]"
        return "f64[N,4]"

    text = X + (
        "input %y: f64[N,4]\ninput %i: i64[N,4]\n"
        f"%a: {type_of(first)} = {first}\n%b: {type_of(second)} = {second}\nreturn a=%a, b=%b"
    )
    graph = graph_of(text)
    assert not CommonSubexpressions().apply(graph, Context())
    assert body_of(graph) == text


def test_copies_of_which_one_is_changed_in_place_stay_two() -> None:
    text = X + (
        "%a: f64[N,4] = aten.clone(%x)\n"
        "%b: f64[N,4] = aten.clone(%x)\n"
        "%c: f64[N,4] = aten.relu_(%a)\n"
        "return b=%b, c=%c"
    )
    graph = graph_of(text)
    assert not CommonSubexpressions().apply(graph, Context())


def test_a_size_that_the_data_decides_gets_one_name() -> None:
    before = """
        input %boxes: f64[R,4]
        %a: i64[kept] = det.nonempty(%boxes)
        %b: i64[kept_1] = det.nonempty(%boxes)
        %c: f64[kept,4] = aten.index_select(%boxes, %a, dim=0)
        %d: f64[kept_1,4] = aten.index_select(%boxes, %b, dim=0)
        %e: f64[2*kept_1,2] = aten.reshape(%d, shape=(2*kept_1, 2))
        return c=%c, d=%d, e=%e"""
    after = """
        input %boxes: f64[R,4]
        %a: i64[kept] = det.nonempty(%boxes)
        %c: f64[kept,4] = aten.index_select(%boxes, %a, dim=0)
        %e: f64[2*kept,2] = aten.reshape(%c, shape=(2*kept, 2))
        return c=%c, d=%c, e=%e"""
    check_rewrite(CommonSubexpressions(), joined(before), joined(after), R=6)


def test_constants_are_computed_ahead() -> None:
    before = """
        input %x: f64[N,4]
        %a: f64[4] = aten.add.Tensor(@k:f64[4], f64[]{1.0})
        %b: f64[4] = aten.mul.Tensor(%a, @k:f64[4])
        %c: f64[N,4] = aten.mul.Tensor(%x, %b)
        %d: i64[3] = aten.arange(end=3)
        return out=%c, d=%d"""
    result = check_pass(
        FoldConstants(), graph_of(joined(before)), random_inputs(graph_of(joined(before)), {"N": 2})
    )
    assert [node.op.name for node in result] == ["aten.mul.Tensor"]
    assert "d=i64[3]{0, 1, 2}" in print_graph(result)


def test_large_results_get_a_weights_name() -> None:
    graph = graph_of(
        "input %x: f64[N,20]\n%k: f64[20] = aten.neg(@k:f64[20])\n%y: f64[N,20] = "
        "aten.mul.Tensor(%x, %k)\nreturn out=%y"
    )
    result = Pipeline([FoldConstants()]).run(graph)
    assert list(result.weights) == ["k_1"]


STAYS = {
    "growth": ("f64[1000]", "aten.expand(f64[1]{1.0}, size=(1000,))", "the result is too large"),
    "a random number": (
        "f64[3]",
        "aten.rand_like(f64[3]{1.0, 2.0, 3.0})",
        "aten.rand_like is no function of its operands",
    ),
    "a symbolic attribute": ("f64[N]", "aten.expand(f64[1]{1.0}, size=(N,))", "an attribute is symbolic"),
    "a size of the data": (
        "i64[kept]",
        "det.nonempty(f64[1,4]{0.0, 0.0, 1.0, 1.0})",
        "a result's size is symbolic",
    ),
}


@pytest.mark.parametrize(("type", "call", "why"), STAYS.values(), ids=STAYS)
def test_what_is_not_computed_ahead(type: str, call: str, why: str) -> None:
    text = X + f"%y: {type} = {call}\nreturn x=%x, out=%y"
    graph = graph_of(text)
    context = Context()
    assert not FoldConstants(max_growth=1000).apply(graph, context)
    assert context.rules["", "FoldConstants"].refused == {why: 1}
    assert body_of(graph) == text


def test_what_fails_ahead_is_left_to_fail_when_it_runs() -> None:
    text = X + "%y: f64[1] = aten.index_select(f64[2]{1.0, 2.0}, i64[1]{5}, dim=0)\nreturn x=%x, out=%y"
    graph = graph_of(text)
    context = Context()
    assert not FoldConstants().apply(graph, context)
    (reason,) = context.rules["", "FoldConstants"].refused
    assert reason.startswith("aten.index_select failed: ")
