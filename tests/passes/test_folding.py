"""FoldBatchNorm and Fuse: the text before and after, the numbers, and what must not be folded."""

from __future__ import annotations

import pytest
import torch

from detc.ir import Builder, Graph, TensorType, run, symbol, verify
from detc.passes import Canonicalize, Context, FoldBatchNorm, FoldConstants, Fuse, Pipeline
from tests.checks import body_of, check_pass, check_rewrite, graph_of, joined, random_inputs

OPTIONS = "training=False, momentum=0.1, eps=0.001, cudnn_enabled=True"
STATISTICS = "@n.weight:f64[4], @n.bias:f64[4], @n.mean:f64[4], @n.var:f64[4]"
SIZES = {"N": 2, "H": 5, "W": 6}

PRODUCERS = {
    "convolution": (
        "f64[N,3,H,W]",
        "f64[N,4,H,W]",
        "aten.conv2d({}@c.weight:f64[4,3,3,3]{}, padding=(1, 1))",
    ),
    "with groups": ("f64[N,6,H,W]", "f64[N,4,H,W]", "aten.conv2d({}@c.weight:f64[4,3,1,1]{}, groups=2)"),
    "same padding": (
        "f64[N,3,H,W]",
        "f64[N,4,H,W]",
        'aten.conv2d.padding({}@c.weight:f64[4,3,3,3]{}, padding="same")',
    ),
    "one dimension": ("f64[N,3,H]", "f64[N,4,H]", "aten.conv1d({}@c.weight:f64[4,3,1]{})"),
    "transposed": ("f64[N,3,H,W]", "f64[N,4,H,W]", "aten.conv_transpose2d.input({}@c.weight:f64[3,4,1,1]{})"),
    "transposed with groups": (
        "f64[N,6,H,W]",
        "f64[N,4,H,W]",
        "aten.conv_transpose2d.input({}@c.weight:f64[6,2,1,1]{}, groups=2)",
    ),
    "linear": ("f64[N,3]", "f64[N,4]", "aten.linear({}@c.weight:f64[4,3]{})"),
}


@pytest.mark.parametrize("bias", ["", ", @c.bias:f64[4]"], ids=["no bias", "bias"])
@pytest.mark.parametrize(("given", "type", "call"), PRODUCERS.values(), ids=PRODUCERS)
def test_batch_norm_goes_into_what_comes_before(given: str, type: str, call: str, bias: str) -> None:
    before = f"""
        input %x: {given}
        %a: {type} = {call.format("%x, ", bias)}
        %b: {type} = aten.batch_norm(%a, {STATISTICS}, {OPTIONS})
        return out=%b"""
    folded = call.replace("@c.weight", "@c.weight_folded").format("%x, ", ", @c.bias_folded:f64[4]")
    after = f"""
        input %x: {given}
        %b: {type} = {folded}
        return out=%b"""
    check_rewrite(FoldBatchNorm(), joined(before), joined(after), **SIZES)


OPERATIONS = [
    "aten.mul.Tensor(%a, @k:f64[4,1,1])",
    "aten.mul.Tensor(@k:f64[1,4,1,1], %a)",
    "aten.mul.Tensor(%a, f64[]{3.0})",
    "aten.div.Tensor(%a, @k:f64[4,1,1])",
    "aten.add.Tensor(%a, @k:f64[4,1,1])",
    "aten.add.Tensor(@k:f64[4,1,1], %a)",
    "aten.sub.Tensor(%a, f64[1]{3.0})",
    "aten.mul.Scalar(%a, other=2)",
    "aten.div.Tensor(%a, other=2.0)",
    "aten.add.Tensor(%a, other=0.5)",
    "aten.sub.Scalar(%a, other=0.5)",
]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("item", [FoldBatchNorm(), Fuse()], ids=lambda item: item.name)
def test_constants_go_into_the_convolution(item: FoldBatchNorm | Fuse, operation: str) -> None:
    before = f"""
        input %x: f64[N,3,H,W]
        %a: f64[N,4,H,W] = aten.conv2d(%x, @c.weight:f64[4,3,3,3], @c.bias:f64[4], padding=(1, 1))
        %b: f64[N,4,H,W] = {operation}
        return out=%b"""
    after = """
        input %x: f64[N,3,H,W]
        %b: f64[N,4,H,W] = aten.conv2d(%x, @c.weight_folded:f64[4,3,3,3], @c.bias_folded:f64[4],
            padding=(1, 1))
        return out=%b"""
    check_rewrite(item, joined(before), joined(after), **SIZES)


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        ("aten.mul.Tensor(%a, @k:f64[6])", "the constant differs along another axis than the channels"),
        ("aten.mul.Tensor(%a, @k:f64[2,1,4,1,1])", None),
        ("aten.sub.Tensor(@k:f64[4,1,1], %a)", None),
        ("aten.div.Tensor(@k:f64[4,1,1], %a)", None),
        ("aten.add.Tensor(%a, @k:f64[4,1,1], alpha=2)", "alpha=2 of aten.add.Tensor is refused"),
        ("aten.add.Tensor(%a, other=1.0, alpha=2)", "alpha is not 1"),
        ("aten.mul.Tensor(%a, %a)", "expected a constant with data"),
    ],
)
def test_what_is_not_affine_in_the_channels_stays(operation: str, why: str | None) -> None:
    type = "f64[2,N,4,H,6]" if "[2,1" in operation else "f64[N,4,H,6]"
    text = joined(f"""
        input %x: f64[N,3,H,6]
        %a: f64[N,4,H,6] = aten.conv2d(%x, @c.weight:f64[4,3,1,1])
        %b: {type} = {operation}
        return out=%b""")
    graph = graph_of(text)
    context = Context()
    assert not FoldBatchNorm().apply(graph, context)
    assert body_of(graph) == text
    reasons = {reason for count in context.rules.values() for reason in count.refused}
    assert why is None or why in reasons


def test_a_result_that_is_used_elsewhere_is_not_folded() -> None:
    before = joined(f"""
        input %x: f64[N,3,H,W]
        %a: f64[N,4,H,W] = aten.conv2d(%x, @c.weight:f64[4,3,1,1])
        %b: f64[N,4,H,W] = aten.batch_norm(%a, {STATISTICS}, {OPTIONS})
        return out=%b, conv=%a""")
    graph = graph_of(before)
    context = Context()
    FoldBatchNorm().apply(graph, context)
    verify(graph)
    assert [n.op.name for n in graph] == ["aten.conv2d", "aten.mul.Tensor", "aten.add.Tensor"]
    refused = context.rules["", "BatchNormIntoProducer"].refused
    assert refused == {"the result of aten.conv2d is used elsewhere": 1}


def test_batch_norm_alone_becomes_a_product_and_a_sum() -> None:
    before = f"""
        input %x: f64[N,4,H,W]
        %b: f64[N,4,H,W] = aten.batch_norm(%x, none, none, @n.mean:f64[4], @n.var:f64[4], {OPTIONS})
        return out=%b"""
    after = """
        input %x: f64[N,4,H,W]
        %0: f64[N,4,H,W] = aten.mul.Tensor(%x, @batch_norm.weight_folded:f64[1,4,1,1])
        %b: f64[N,4,H,W] = aten.add.Tensor(%0, @batch_norm.bias_folded:f64[1,4,1,1])
        return out=%b"""
    check_rewrite(FoldBatchNorm(), joined(before), joined(after), **SIZES)


def test_batch_norm_along_another_axis_than_the_linear_layers() -> None:
    text = f"""
        input %x: f64[N,4,3]
        %a: f64[N,4,4] = aten.linear(%x, @c.weight:f64[4,3])
        %b: f64[N,4,4] = aten.batch_norm(%a, {STATISTICS}, {OPTIONS})
        return out=%b"""
    graph = graph_of(joined(text))
    check_pass(FoldBatchNorm(), graph, random_inputs(graph, {"N": 2}))


def test_batch_norm_in_training_stays() -> None:
    text = f"""
        input %x: f64[N,3,H,W]
        %a: f64[N,4,H,W] = aten.conv2d(%x, @c.weight:f64[4,3,1,1])
        %b: f64[N,4,H,W] = aten.batch_norm(%a, {STATISTICS}, {OPTIONS.replace("False", "True", 1)})
        return out=%b"""
    graph = graph_of(joined(text))
    assert not FoldBatchNorm().apply(graph, Context())


def test_a_frozen_batch_norm_that_is_written_out() -> None:
    # detectron2's FrozenBatchNorm2d: scale = weight * rsqrt(var + eps); x * scale + (bias - mean * scale)
    text = """
        input %x: f64[N,3,H,W]
        %a: f64[N,4,H,W] = aten.conv2d(%x, @c.weight:f64[4,3,1,1])
        %e: f64[4] = aten.add.Tensor(@n.var:f64[4], other=1e-05)
        %r: f64[4] = aten.rsqrt(%e)
        %s: f64[4] = aten.mul.Tensor(@n.weight:f64[4], %r)
        %m: f64[4] = aten.mul.Tensor(@n.mean:f64[4], %s)
        %t: f64[4] = aten.sub.Tensor(@n.bias:f64[4], %m)
        %sv: f64[1,4,1,1] = aten.view(%s, size=(1, -1, 1, 1))
        %tv: f64[1,4,1,1] = aten.view(%t, size=(1, -1, 1, 1))
        %p: f64[N,4,H,W] = aten.mul.Tensor(%a, %sv)
        %q: f64[N,4,H,W] = aten.add.Tensor(%p, %tv)
        return out=%q"""
    graph = graph_of(joined(text))
    result = Pipeline([Canonicalize(), FoldConstants(), FoldBatchNorm()]).run(graph)
    assert [node.op.name for node in result] == ["aten.conv2d"]
    inputs = random_inputs(graph, SIZES)
    torch.testing.assert_close(run(result, inputs)["out"], run(graph, inputs)["out"], rtol=1e-12, atol=1e-12)


def test_two_convolutions_that_share_a_weight_get_one_each() -> None:
    text = f"""
        input %x: f64[N,4,H,W]
        %a: f64[N,4,H,W] = aten.conv2d(%x, @c.weight:f64[4,4,1,1])
        %b: f64[N,4,H,W] = aten.batch_norm(%a, {STATISTICS}, {OPTIONS})
        %c: f64[N,4,H,W] = aten.conv2d(%b, @c.weight:f64[4,4,1,1])
        %d: f64[N,4,H,W] = aten.batch_norm(%c, {STATISTICS.replace("@n", "@m")}, {OPTIONS})
        %e: f64[N,4,H,W] = aten.conv2d(%d, @c.weight:f64[4,4,1,1])
        return out=%e"""
    graph = graph_of(joined(text))
    result = check_pass(FoldBatchNorm(), graph, random_inputs(graph, SIZES))
    assert list(result.weights) == [
        "c.weight",
        "c.weight_folded",
        "c.bias_folded",
        "c.weight_folded_1",
        "c.bias_folded_1",
    ]
    assert result.weights["c.weight"].data is graph.weights["c.weight"].data


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_fold_is_in_float64_and_the_result_in_the_weights_dtype(dtype: torch.dtype) -> None:
    graph = Graph("half")
    x = graph.add_input("x", TensorType(dtype, (symbol("N"), 2, 1, 1)))
    b = Builder(graph)
    weight = torch.tensor([[1.0, 3.0]], dtype=dtype).reshape(1, 2, 1, 1)
    var = torch.tensor([3.0], dtype=dtype)
    statistics = [
        graph.add_weight(f"n.{name}", data)
        for name, data in (("weight", var), ("bias", var), ("mean", var), ("var", var))
    ]
    a = b.aten.conv2d(x, graph.add_weight("c.weight", weight))
    out = b.aten.batch_norm(a, *statistics, training=False, momentum=0.1, eps=0.0, cudnn_enabled=True)
    graph.set_outputs({"out": out})
    FoldBatchNorm().apply(graph, Context())
    folded = graph.weights["c.weight_folded"].data
    exact = weight.double() * (3.0 / torch.tensor(3.0, dtype=torch.float64).sqrt())
    assert folded.dtype is dtype
    assert torch.equal(folded, exact.to(dtype))


def test_a_weight_without_data_is_not_folded() -> None:
    text = f"""
        input %x: f64[N,3,H,W]
        %a: f64[N,4,H,W] = aten.conv2d(%x, @c.weight:f64[4,3,1,1])
        %b: f64[N,4,H,W] = aten.batch_norm(%a, {STATISTICS}, {OPTIONS})
        return out=%b"""
    graph = graph_of(joined(text))
    for weight in graph.weights.values():
        weight.data = weight.data.to("meta")
    assert not FoldBatchNorm().apply(graph, Context())
    assert not FoldConstants().apply(graph, Context())


# Fuse

FUSED = {
    "factors": (
        "%a: f64[N,4,H,W] = aten.mul.Tensor(%x, @k:f64[4,1,1])\n"
        "%b: f64[N,4,H,W] = aten.mul.Tensor(f64[]{2.0}, %a)",
        "%b: f64[N,4,H,W] = aten.mul.Tensor(%x, {four})",
    ),
    "summands": (
        "%a: f64[N,4,H,W] = aten.add.Tensor(f64[]{1.5}, %x)\n"
        "%b: f64[N,4,H,W] = aten.add.Tensor(%a, f64[1]{2.0})",
        "%b: f64[N,4,H,W] = aten.add.Tensor(%x, f64[1]{3.5})",
    ),
    "numbers": (
        "%a: f64[N,4,H,W] = aten.mul.Tensor(%x, other=3)\n%b: f64[N,4,H,W] = aten.mul.Tensor(%a, other=0.5)",
        "%b: f64[N,4,H,W] = aten.mul.Tensor(%x, other=1.5)",
    ),
    "padding": (
        "%a: f64[N,4,H+4,W+2] = aten.constant_pad_nd(%x, pad=(1, 1, 2, 2))\n"
        "%b: f64[N,2,H+4,W+2] = aten.conv2d(%a, @c.weight:f64[2,4,3,3], padding=(1, 1))",
        "%b: f64[N,2,H+4,W+2] = aten.conv2d(%x, @c.weight:f64[2,4,3,3], padding=(3, 2))",
    ),
    "padding of the last axis": (
        '%a: f64[N,4,H,W+2] = aten.pad(%x, pad=(1, 1), mode="constant")\n'
        "%b: f64[N,2,H,W+2] = aten.conv2d(%a, @c.weight:f64[2,4,1,1])",
        "%b: f64[N,2,H,W+2] = aten.conv2d(%x, @c.weight:f64[2,4,1,1], padding=(0, 1))",
    ),
    "scale before": (
        "%a: f64[N,4,H,W] = aten.mul.Tensor(%x, @k:f64[4,1,1])\n"
        "%b: f64[N,2,H,W] = aten.conv2d(%a, @c.weight:f64[2,2,3,3], padding=(1, 1), groups=2)",
        "%b: f64[N,2,H,W] = aten.conv2d(%x, @c.weight_folded:f64[2,2,3,3], padding=(1, 1), groups=2)",
    ),
    "scale before a linear layer": (
        "%a: f64[N,4,H,W] = aten.mul.Tensor(%x, f64[]{2.0})\n"
        "%b: f64[N,4,H,2] = aten.linear(%a, @c.weight:f64[2,6], @c.bias:f64[2])",
        "%b: f64[N,4,H,2] = aten.linear(%x, @c.weight_folded:f64[2,6], @c.bias:f64[2])",
    ),
}


@pytest.mark.parametrize(("before", "after"), FUSED.values(), ids=FUSED)
def test_fuse(before: str, after: str) -> None:
    x = "input %x: f64[N,4,H,W]\n"
    if "linear" in before:
        x, before, after = (text.replace("W]", "6]") for text in (x, before, after))
    graph = graph_of(x + before + "\nreturn out=%b")
    result = check_pass(Fuse(), graph, random_inputs(graph, SIZES))
    line = body_of(result).splitlines()[1]
    head, _, tail = after.partition("{four}")
    assert line.startswith(head)
    assert line.endswith(tail)
    assert len(result) == 1


NOT_FUSED = {
    "one-sided padding": (
        "%a: f64[N,4,H,W+1] = aten.constant_pad_nd(%x, pad=(0, 1))\n"
        "%b: f64[N,2,H,W+1] = aten.conv2d(%a, @c.weight:f64[2,4,1,1])",
        "the padding differs between the two sides",
    ),
    "padding of the channels": (
        "%a: f64[N,6,H,W] = aten.constant_pad_nd(%x, pad=(0, 0, 0, 0, 1, 1))\n"
        "%b: f64[N,2,H,W] = aten.conv2d(%a, @c.weight:f64[2,6,1,1])",
        "the padding is not of the spatial axes",
    ),
    "padding with ones": (
        "%a: f64[N,4,H,W+2] = aten.constant_pad_nd(%x, pad=(1, 1), value=1.0)\n"
        "%b: f64[N,2,H,W+2] = aten.conv2d(%a, @c.weight:f64[2,4,1,1])",
        "value=1.0 of aten.constant_pad_nd is refused",
    ),
    "padding with copies": (
        '%a: f64[N,4,H,W+2] = aten.pad(%x, pad=(1, 1, 0, 0), mode="replicate")\n'
        "%b: f64[N,2,H,W+2] = aten.conv2d(%a, @c.weight:f64[2,4,1,1])",
        "the padding is not with zeros",
    ),
    "constants that are larger together": (
        "%a: f64[N,4,6,W] = aten.mul.Tensor(%x, @k:f64[4,1,1])\n"
        "%b: f64[N,4,6,W] = aten.mul.Tensor(%a, @l:f64[6,1])",
        "the two constants together are larger",
    ),
    "a product and a sum": (
        "%a: f64[N,4,H,W] = aten.mul.Tensor(%x, other=2.0)\n"
        "%b: f64[N,4,H,W] = aten.add.Tensor(%a, other=2.0)",
        "they are different operations",
    ),
}


@pytest.mark.parametrize(("lines", "why"), NOT_FUSED.values(), ids=NOT_FUSED)
def test_what_fuse_refuses(lines: str, why: str) -> None:
    x = "input %x: f64[N,4,H,W]\n"
    if "larger" in why:
        x = x.replace("H", "6")
    graph = graph_of(x + lines + "\nreturn out=%b")
    context = Context()
    assert not Fuse().apply(graph, context)
    assert why in {reason for count in context.rules.values() for reason in count.refused}


def test_parallel_convolutions_are_merged_when_asked_for() -> None:
    before = """
        input %x: f64[N,3,H,W]
        %a: f64[N,4,H,W] = aten.conv2d(%x, @a.weight:f64[4,3,1,1], @a.bias:f64[4])
        %b: f64[N,2,H,W] = aten.conv2d(%x, @b.weight:f64[2,3,1,1])
        %c: f64[N,2,H,W] = aten.conv2d(%x, @c.weight:f64[2,3,3,3], padding=(1, 1))
        return a=%a, b=%b, c=%c"""
    after = """
        input %x: f64[N,3,H,W]
        %0: f64[N,6,H,W] = aten.conv2d(%x, @a.weight_folded:f64[6,3,1,1], @a.bias_folded:f64[6])
        %a: f64[N,4,H,W], %b: f64[N,2,H,W] = aten.split_with_sizes(%0, split_sizes=(4, 2), dim=1)
        %c: f64[N,2,H,W] = aten.conv2d(%x, @c.weight:f64[2,3,3,3], padding=(1, 1))
        return a=%a, b=%b, c=%c"""
    check_rewrite(Fuse(merge_parallel=True), joined(before), joined(after), **SIZES)
    graph = graph_of(joined(before))
    assert not Fuse().apply(graph, Context())


def test_parallel_linear_layers_too() -> None:
    before = """
        input %x: f64[N,3]
        %a: f64[N,5] = aten.linear(%x, @a.weight:f64[5,3])
        %b: f64[N,2] = aten.linear(%x, @b.weight:f64[2,3])
        %c: f64[N,2] = aten.linear(%x, @c.weight:f64[2,3])
        return a=%a, b=%b, c=%c"""
    graph = graph_of(joined(before))
    result = check_pass(Fuse(merge_parallel=True), graph, random_inputs(graph, SIZES))
    assert sum(node.op.name == "aten.linear" for node in result) == 1
