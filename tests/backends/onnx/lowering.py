"""What the tests of the lowering share: a graph of aten ops is lowered once and run everywhere, at several sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch

from detc.backends.onnx.emit import emit
from detc.backends.onnx.lower import LowerToOnnx
from detc.backends.onnx.openvino import OpenVinoModel
from detc.backends.onnx.runtime import OnnxRuntimeModel
from detc.ir import Builder, Graph, TensorType, evaluate, parse_type, run, verify
from detc.passes.core.base import Context

Make = Callable[..., Any]
Sizes = Mapping[str, int]

RTOL, ATOL = 1e-4, 1e-5


@dataclass(frozen=True)
class Case:
    """One graph and the sizes at which it is run.

    Attributes:
        name: for the test's id.
        inputs: the inputs' types, as text.
        make: builds the graph from a builder and the inputs; returns the outputs.
        sizes: the values of the symbols, one entry per run.
        nodes: how many ONNX nodes it must become at most.
        low, high: the range of the random inputs.
        openvino: whether OpenVINO runs it too; where it does not, the case says why.
        openvino_sizes: the runs that OpenVINO takes part in, all if None.
        multiples: known divisors of symbols.
    """

    name: str
    inputs: Sequence[str]
    make: Make
    sizes: Sequence[Sizes] = ({},)
    nodes: int | None = None
    low: float = -2.0
    high: float = 2.0
    openvino: bool = True
    openvino_sizes: Sequence[Sizes] | None = None
    multiples: Mapping[str, int] = field(default_factory=dict)


def weight(b: Builder, *shape: int, low: float = -1.0, high: float = 1.0) -> Any:
    """A named weight with values that depend on its shape only."""
    generator = torch.Generator().manual_seed(sum(shape))
    data = torch.rand(shape, generator=generator) * (high - low) + low
    return b.graph.add_weight(b.graph.fresh_weight_name("w"), data)


def build(case: Case) -> Graph:
    """The case's graph of aten ops."""
    graph = Graph("case", "flat")
    values = [
        graph.add_input(f"x{i}", parse_type(text, case.multiples)) for i, text in enumerate(case.inputs)
    ]
    b = Builder(graph, source="model.layer")
    outputs = case.make(b, *values)
    outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    graph.set_outputs({f"y{i}": value for i, value in enumerate(outputs)})
    verify(graph)
    return graph


def lower(graph: Graph) -> Graph:
    """The lowered graph, verified."""
    lowered = graph.clone()
    LowerToOnnx().apply(lowered, Context("lower-to-onnx"))
    verify(lowered, after="lower-to-onnx")
    return lowered


def example(graph: Graph, sizes: Sizes, case: Case) -> dict[str, torch.Tensor]:
    """Random inputs of the graph's types at these sizes."""
    generator = torch.Generator().manual_seed(0)
    data: dict[str, torch.Tensor] = {}
    for value in graph.inputs:
        assert isinstance(value.type, TensorType)
        shape = [evaluate(d, sizes) for d in value.type.shape]
        uniform = torch.rand(shape, generator=generator) * (case.high - case.low) + case.low
        if value.type.dtype is torch.bool:
            data[value.name] = uniform > (case.low + case.high) / 2
        elif value.type.dtype.is_floating_point:
            data[value.name] = uniform.to(value.type.dtype)
        else:
            data[value.name] = torch.floor(uniform).to(value.type.dtype)
    return data


def same(found: Mapping[str, Any], expected: Mapping[str, torch.Tensor], where: str) -> None:
    """Compare all outputs: shapes and element types exactly, numbers at the tolerances."""
    for name, want in expected.items():
        got = found[name]
        got = got if isinstance(got, torch.Tensor) else torch.from_numpy(np.array(got))
        torch.testing.assert_close(
            got, want, rtol=RTOL, atol=ATOL, equal_nan=True, msg=lambda text, n=name: f"{where}, {n}: {text}"
        )


def check(case: Case) -> Graph:
    """Run the case at every size: aten, then the lowered graph, the file in onnxruntime, and in OpenVINO."""
    graph = build(case)
    lowered = lower(graph)
    used = [n for n in lowered if n.is_used]
    if case.nodes is not None:
        assert len(used) <= case.nodes, f"{len(used)} nodes:\n{lowered}"
    model = emit(lowered)
    content = model.to_bytes()
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    runtime = OnnxRuntimeModel(content, threads=1)
    runs = []
    for sizes in case.sizes:
        data = example(graph, sizes, case)
        expected = run(graph, data)
        same(run(lowered, data), expected, f"interpreter at {sizes}")
        same(runtime.run(data), expected, f"onnxruntime at {sizes}")
        runs.append((sizes, data, expected))
    if case.openvino:
        compiled = OpenVinoModel(content, threads=2)
        for sizes, data, expected in runs:
            if case.openvino_sizes is None or sizes in case.openvino_sizes:
                same(compiled.run(data), expected, f"openvino at {sizes}")
    return lowered
