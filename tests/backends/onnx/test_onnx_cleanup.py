"""Clean-up of onnx graphs: each rule rewrites what it is for, refuses what it must, and keeps the meaning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import detc.backends.onnx.dialect  # noqa: F401  (registers the dialect)
from detc.backends.onnx.cleanup import CleanUpOnnx
from detc.ir import Builder, Graph, parse_type, run, verify
from detc.passes.core.base import Context

IMAGE = "f32[N,8,H,W]"


def cleaned(type: str, make: Callable[..., Any], data: torch.Tensor) -> list[str]:
    """The ops that are left, after checking that both graphs compute the same."""
    graph = Graph("test", "onnx")
    x = graph.add_input("x", parse_type(type))
    b = Builder(graph)
    outputs = make(b, x)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    graph.set_outputs({f"y{i}": y for i, y in enumerate(outputs)})
    verify(graph)
    expected = run(graph, {"x": data})
    changed = CleanUpOnnx().apply(graph, Context("clean-up-onnx"))
    verify(graph, after="clean-up-onnx")
    for name, value in run(graph, {"x": data}).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
    ops = [node.op.name.removeprefix("onnx.") for node in graph]
    assert changed or len(ops) > 0
    assert not CleanUpOnnx().apply(graph, Context("clean-up-onnx"))
    return ops


def ints(b: Builder, *values: int) -> Any:
    return b.constant(torch.tensor(values, dtype=torch.int64))


def transposes(b, x):
    return b.onnx.Transpose(b.onnx.Transpose(x, perm=(0, 2, 3, 1)), perm=(0, 3, 1, 2))


CASES = {
    "identity": (lambda b, x: b.onnx.Relu(b.onnx.Identity(x)), ["Relu"]),
    "cast": (lambda b, x: b.onnx.Relu(b.onnx.Cast(x, to=torch.float32)), ["Relu"]),
    "casts-away": (
        lambda b, x: b.onnx.Relu(b.onnx.Cast(b.onnx.Cast(x, to=torch.float64), to=torch.float32)),
        ["Relu"],
    ),
    "casts-joined": (
        lambda b, x: b.onnx.Cast(
            b.onnx.Cast(b.onnx.Greater(x, b.constant(0.0)), to=torch.int32), to=torch.float32
        ),
        ["Greater", "Cast"],
    ),
    "casts-that-round": (
        lambda b, x: b.onnx.Cast(b.onnx.Cast(x, to=torch.int64), to=torch.float32),
        ["Cast", "Cast"],
    ),
    "transposes-away": (lambda b, x: b.onnx.Relu(transposes(b, x)), ["Relu"]),
    "transposes-joined": (
        lambda b, x: b.onnx.Transpose(b.onnx.Transpose(x, perm=(0, 2, 3, 1)), perm=(1, 0, 2, 3)),
        ["Transpose"],
    ),
    "reshape": (lambda b, x: b.onnx.Relu(b.onnx.Reshape(x, ints(b, 0, 8, -1, 4))), ["Reshape", "Relu"]),
    "reshape-open": (
        lambda b, x: b.onnx.Relu(b.onnx.Reshape(b.onnx.Flatten(x, axis=1), ints(b, 0, -1))),
        ["Flatten", "Relu"],
    ),
    "reshapes-joined": (
        lambda b, x: b.onnx.Reshape(b.onnx.Reshape(x, ints(b, 0, 8, -1)), ints(b, 0, -1)),
        ["Reshape"],
    ),
    "reshape-of-flatten": (
        lambda b, x: b.onnx.Reshape(b.onnx.Flatten(x, axis=1), ints(b, 0, 4, -1)),
        ["Reshape"],
    ),
    "reshape-of-unsqueeze": (
        lambda b, x: b.onnx.Reshape(b.onnx.Unsqueeze(x, ints(b, 1)), ints(b, 0, -1)),
        ["Reshape"],
    ),
    "reshape-that-copies": (
        lambda b, x: b.onnx.Reshape(b.onnx.Reshape(x, ints(b, 0, 4, -1)), ints(b, 0, 0, 2, -1)),
        ["Reshape", "Reshape"],
    ),
    "reshape-to-computed": (
        lambda b, x: b.onnx.Reshape(
            b.onnx.Reshape(x, ints(b, 0, 8, -1)),
            b.onnx.Concat([ints(b, -1, 4), b.onnx.Shape(x, start=3)], axis=0),
        ),
        ["Shape", "Concat", "Reshape"],
    ),
    "unsqueeze-squeeze": (
        lambda b, x: b.onnx.Relu(b.onnx.Squeeze(b.onnx.Unsqueeze(x, ints(b, -1)), ints(b, 4))),
        ["Relu"],
    ),
    "squeeze-unsqueeze": (
        lambda b, x: b.onnx.Relu(
            b.onnx.Unsqueeze(b.onnx.Squeeze(b.onnx.ReduceMax(x, ints(b, 1)), ints(b, 1)), ints(b, 1))
        ),
        ["ReduceMax", "Relu"],
    ),
    "squeeze-other": (
        lambda b, x: b.onnx.Unsqueeze(
            b.onnx.Squeeze(b.onnx.ReduceMax(x, ints(b, 1)), ints(b, 1)), ints(b, 0)
        ),
        ["ReduceMax", "Squeeze", "Unsqueeze"],
    ),
    "shape": (lambda b, x: b.onnx.Tile(x, b.onnx.Shape(b.onnx.ReduceMax(x, ints(b, 0, 1, 2, 3)))), ["Tile"]),
    "shape-part": (
        lambda b, x: b.onnx.Add(b.onnx.Shape(x), b.onnx.Shape(x, start=1, end=2)),
        ["Shape", "Add"],
    ),
    "expand": (lambda b, x: b.onnx.Relu(b.onnx.Expand(x, ints(b, 1, 8, 1, 1))), ["Relu"]),
    "expand-more": (lambda b, x: b.onnx.Expand(x, ints(b, 2, 1, 1, 1, 1)), ["Expand"]),
    "concat": (lambda b, x: b.onnx.Relu(b.onnx.Concat([x], axis=1)), ["Relu"]),
    "concat-two": (lambda b, x: b.onnx.Concat([x, x], axis=1), ["Concat"]),
}


@pytest.mark.parametrize("name", list(CASES))
def test_rules(name):
    make, left = CASES[name]
    assert cleaned(IMAGE, make, torch.randn(2, 8, 3, 4)) == left


def test_expand_of_known_sizes_goes():
    assert cleaned(
        "f32[3,4]", lambda b, x: b.onnx.Relu(b.onnx.Expand(x, ints(b, 3, 4))), torch.randn(3, 4)
    ) == ["Relu"]


def test_an_output_that_becomes_an_input_stays_named():
    graph = Graph("test", "onnx")
    x = graph.add_input("x", parse_type("f32[N,3]"))
    graph.set_outputs({"y": Builder(graph).onnx.Identity(x)})
    assert CleanUpOnnx().apply(graph, Context("clean-up-onnx"))
    verify(graph)
    assert list(graph.outputs) == ["y"]
    assert len(graph) == 0
