"""What TorchScript modules overwrite, and in which order their tensors lie in memory: never a matter of results."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn

from detc.backends.torchscript import TorchScriptRuntime, emit
from detc.backends.torchscript.memory import plan_memory
from detc.backends.torchscript.pipeline import LOWER
from detc.ir import Builder, Graph, TensorType, run, symbol
from detc.passes import Pipeline
from detc.passes.presets import FLATTEN, OPTIMIZE
from tests.checks import check_same_results
from tests.strategies import graphs, inputs_for

F32 = torch.float32
N, H, W = symbol("N"), symbol("H", 4), symbol("W", 4)


def convolved(b, x, size=3):
    generator = torch.Generator().manual_seed(size)
    weight = torch.rand(8, x.shape[1], size, size, generator=generator) - 0.5
    name = b.graph.fresh_weight_name("conv.weight")
    return b.aten.conv2d(x, b.graph.add_weight(name, weight), padding=(size // 2, size // 2))


def graph_of(build) -> Graph:
    graph = Graph("small", level="torchscript")
    x = graph.add_input("x", TensorType(F32, (N, 8, H, W)))
    made = build(Builder(graph), x)
    made = made if isinstance(made, tuple) else (made,)
    graph.set_outputs({f"y{number}": value for number, value in enumerate(made)})
    return graph


def shared(b, x, make):
    """Two nodes that read one convolution's result."""
    y = convolved(b, x)
    return make(y), b.aten.sigmoid(y)


CASES = {
    "what a convolution gave": (lambda b, x: b.aten.relu(convolved(b, x)), ["relu_"]),
    "a sum and what it is put through": (
        lambda b, x: b.aten.relu(b.aten.add.Tensor(convolved(b, x), x)),
        ["add_", "relu_"],
    ),
    "the other summand": (lambda b, x: b.aten.add.Tensor(x, convolved(b, x)), ["add_"]),
    "the other summand, scaled": (lambda b, x: b.aten.add.Tensor(x, convolved(b, x), alpha=2), []),
    "what is taken off": (lambda b, x: b.aten.sub.Tensor(x, convolved(b, x)), []),
    "an input": (lambda b, x: b.aten.relu(x), []),
    "read again": (lambda b, x: shared(b, x, b.aten.relu), []),
    "an output": (lambda b, x: (y := convolved(b, x), b.aten.relu(y)), []),
    "both summands": (lambda b, x: b.aten.add.Tensor(y := convolved(b, x), y), []),
    "a view": (lambda b, x: b.aten.relu(b.aten.reshape(convolved(b, x), shape=(N, 8 * H, W))), []),
    "under a view": (lambda b, x: shared(b, b.aten.permute(x, dims=(0, 1, 3, 2)), b.aten.relu), []),
    "a smaller one": (
        lambda b, x: b.aten.add.Tensor(b.aten.mul.Scalar(b.constant([[[2.0]]] * 8, F32), other=3), x),
        [],
    ),
    "another type": (
        lambda b, x: b.aten.mul.Tensor(b.aten.new_zeros(x, size=x.shape, dtype=torch.int64), x),
        [],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_overwritten(name):
    build, expected = CASES[name]
    graph = graph_of(build)
    model = emit(graph)
    found = [name for name in ("add_", "mul_", "sub_", "relu_") if f"aten.{name}(" in model.source]
    assert found == expected
    x = torch.randn(2, 8, 4, 8)
    given_x, weights = x.clone(), {name: w.data.clone() for name, w in graph.weights.items()}
    for _ in range(2):
        check_same_results(run(graph, {"x": x}), TorchScriptRuntime(model).run({"x": x}))
    assert torch.equal(x, given_x)
    assert all(torch.equal(graph.weights[name].data, data) for name, data in weights.items())


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(graph=graphs(max_steps=20))
def test_any_graph_computes_what_the_interpreter_does(graph):
    lowered = Pipeline([*FLATTEN, *OPTIMIZE, *LOWER]).run(graph)
    inputs = inputs_for(graph)
    before = {name: value.clone() for name, value in inputs.items()}
    expected = run(lowered, inputs)
    runtime = TorchScriptRuntime(emit(lowered))
    for _ in range(2):
        check_same_results(expected, runtime.run(inputs))
    assert all(torch.equal(value, before[name]) for name, value in inputs.items())


def test_gradients_pass_through():
    """What autograd keeps for later is not overwritten."""

    def build(b, x):
        y = b.aten.silu(convolved(b, x))
        y = b.aten.mul.Tensor(b.aten.sigmoid(convolved(b, y)), convolved(b, y, 1))
        return b.aten.relu(b.aten.add.Tensor(b.aten.mul.Scalar(b.aten.relu(y), other=2.0), x))

    module = emit(graph_of(build)).module.double()
    assert "silu_" in str(module.inlined_graph)
    for seed in range(3):  # torch.jit compiles after two runs
        x = torch.randn(1, 8, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda x: module(x)[0], x.requires_grad_())


def test_convolutions_weights_have_their_channels_last():
    graph = graph_of(lambda b, x: convolved(b, convolved(b, x, 1)))
    buffer = io.BytesIO()
    torch.jit.save(emit(graph).module, buffer)
    buffer.seek(0)
    module = torch.jit.load(buffer)
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in module.parameters())
    x = torch.randn(2, 8, 12, 8)
    assert module(x)[0].is_contiguous(memory_format=torch.channels_last)
    check_same_results(run(graph, {"x": x}), {"y0": module(x)[0]})
    plain = module.to(memory_format=torch.contiguous_format)
    assert plain(x)[0].is_contiguous()


def test_one_pixel_is_not_copied():
    graph = graph_of(lambda b, x: convolved(b, x, 1))
    (weight,) = emit(graph).module.parameters()
    assert weight.data_ptr() == graph.weights["conv.weight"].data.data_ptr()


def test_where_an_operator_reads_strides_they_stay():
    graph = graph_of(lambda b, x: b.aten.view(convolved(b, x), size=(N, 8 * H, W)))
    assert not plan_memory(graph).channels_last
    x = torch.randn(1, 8, 12, 8)
    check_same_results(run(graph, {"x": x}), TorchScriptRuntime(emit(graph)).run({"x": x}))


def test_group_normalization_stays_precise():
    """In float32, of features far from zero."""
    graph = graph_of(
        lambda b, x: b.aten.group_norm(b.aten.add.Scalar(convolved(b, x), other=50), num_groups=2)
    )
    x = torch.randn(1, 8, 64, 64)
    features = nn.functional.conv2d(x, graph.weights["conv.weight"].data, padding=1) + 50
    exact = nn.functional.group_norm(features.double(), 2).float()
    torch.testing.assert_close(emit(graph).module(x)[0], exact, rtol=1e-5, atol=1e-4)
