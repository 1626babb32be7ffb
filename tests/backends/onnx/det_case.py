"""What the tests of the det ops' lowerings share: a graph is lowered once and run everywhere, on all inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from detc.backends.onnx import OnnxRuntimeModel, OpenVinoModel, emit
from detc.backends.onnx.lower import LowerToOnnx
from detc.backends.onnx.lower.det import TABLE as RULES
from detc.ir import Builder, Graph, TensorType, run, symbol, verify
from detc.passes import Decompose, Pipeline

F32, I64 = torch.float32, torch.int64
N, H, W, R = (symbol(name) for name in "NHWR")
Inputs = dict[str, torch.Tensor]


def f32(*shape: object) -> TensorType:
    return TensorType(F32, shape)


def i64(*shape: object) -> TensorType:
    return TensorType(I64, shape)


@dataclass
class Case:
    """A graph of det ops, and what it is run on.

    Attributes:
        build: makes the graph's results from a builder and the inputs.
        inputs: the inputs' types.
        runs: the inputs themselves, one entry per run.
    """

    build: Callable[..., object]
    inputs: dict[str, TensorType]
    runs: list[Inputs]

    def graph(self) -> Graph:
        graph = Graph("case", level="flat")
        values = [graph.add_input(name, type) for name, type in self.inputs.items()]
        made = self.build(Builder(graph), *values)
        results = made if isinstance(made, tuple) else (made,)
        graph.set_outputs({f"out{i}": value for i, value in enumerate(results)})
        verify(graph)
        return graph


def boxes(count: int, size: float = 100.0) -> torch.Tensor:
    corner = torch.rand(count, 2) * size
    return torch.cat([corner, corner + torch.rand(count, 2) * size + 1], 1)


def info(*sizes: tuple[float, float]) -> torch.Tensor:
    return torch.tensor([[*size, 1.0] for size in sizes])


CELLS = [[-8.0, -8, 8, 8], [-4, -16, 4, 16], [-16, -4, 16, 4]]
"""Three anchors of one position, about the origin."""


def assert_same(expected: dict[str, torch.Tensor], actual: dict[str, object], where: str) -> None:
    for name, want in expected.items():
        got = torch.as_tensor(np.asarray(actual[name]))
        assert got.shape == want.shape, f"{where}: {name} is {list(got.shape)}, not {list(want.shape)}"
        assert got.dtype == want.dtype, f"{where}: {name} is {got.dtype}, not {want.dtype}"
        torch.testing.assert_close(
            got, want, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{where}: {n}: {m}"
        )


def check(make: Callable[[], Case]) -> None:
    """Run the case: the op's own body, then the lowered graph, the file in onnxruntime, and in OpenVINO."""
    torch.manual_seed(7)
    case = make()
    graph = case.graph()
    lowered = Pipeline([Decompose(kept=tuple(RULES)), LowerToOnnx()]).run(graph)
    content = emit(lowered).to_bytes()
    session = OnnxRuntimeModel(content)
    openvino = OpenVinoModel(content, threads=2)
    for number, inputs in enumerate(case.runs):
        expected = run(graph, inputs)
        assert_same(expected, run(lowered, inputs), f"interpreter, inputs {number}")
        assert_same(expected, session.run(inputs), f"onnxruntime, inputs {number}")
        if not all(torch.isfinite(v).all() for v in inputs.values()):
            continue  # OpenVINO's comparisons hold for NaN too: it promises nothing for such numbers
        assert_same(expected, openvino.run(inputs), f"openvino, inputs {number}")
