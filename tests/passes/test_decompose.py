"""Det ops written out as what their bodies compute: on every target, and measured against the rules written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import pytest
import torch
from torch import Tensor
from torch.torch_version import TorchVersion

import detc
from detc.backends import onnx, torchscript
from detc.backends.caffe2.runtime import Caffe2Runtime
from detc.backends.onnx import OnnxRuntimeModel
from detc.backends.onnx.cleanup import CleanUpOnnx
from detc.backends.onnx.lower import LowerToOnnx
from detc.backends.onnx.lower import det as onnx_rules
from detc.backends.torchscript import TorchScriptRuntime
from detc.backends.torchscript.lower import LowerToTorchScript
from detc.backends.torchscript.lower import table as torchscript_rules
from detc.backends.torchscript.program import OLDEST_TORCH
from detc.ir import Builder, Constant, Fresh, Graph, TensorType, Value, map_operands, op, run, symbol
from detc.ir.types import Type
from detc.passes import CommonSubexpressions, DeadCode, Decompose, FoldConstants, Pass, Pipeline
from detc.passes.core.base import Context
from detc.passes.rewrite.conversion import Conversion
from tests.backends.onnx import test_det_dense, test_det_lowering, test_det_rotated

N, H, W = symbol("N"), symbol("H", 32), symbol("W", 32)
F32 = torch.float32


@op("det.test_sharpen", infer=lambda data, **_: (data, data))
def sharpen(data: Tensor, *, rounds: int) -> tuple[Tensor, Tensor]:
    """A new op is one function: a map [N,C,H,W] as probabilities, sharpened in rounds, and what is positive of it."""
    sharp = data.sigmoid()
    for _ in range(rounds):
        sharp = sharp * sharp
    return sharp, data.relu()


def _bright_type(data: Type, im_info: Type, **_: object) -> tuple[Type, Type]:
    rows = Fresh("bright")
    return TensorType(torch.int64, (rows,)), TensorType(F32, (rows, 3))


@op("det.test_bright", infer=_bright_type)
def bright(data: Tensor, im_info: Tensor, *, threshold: float) -> tuple[Tensor, Tensor]:
    """Which images of a batch f32[N,3,H,W] are bright, i64[K], and their rows f32[K,3] of im_info."""
    rows = torch.nonzero(data.mean(dim=(1, 2, 3)) > threshold)[:, 0]
    return rows, im_info.index_select(0, rows)


def new_ops(*, sizes_of_data: bool) -> Graph:
    graph = Graph("new_ops")
    data = graph.add_input("data", TensorType(F32, (N, 3, H, W)))
    im_info = graph.add_input("im_info", TensorType(F32, (N, 3)))
    b = Builder(graph)
    with b.at("the.head"):
        sharp, positive = b.det.test_sharpen(data, rounds=2)
        again, _ = b.det.test_sharpen(positive, rounds=2)
        outputs = {"sharp": sharp, "again": again, "size": b.aten.relu(im_info)}
        if sizes_of_data:
            outputs["rows"], outputs["infos"] = b.det.test_bright(data, im_info, threshold=0.5)
    graph.set_outputs(outputs)
    return graph


RUNTIMES = {
    "onnx": lambda graph: OnnxRuntimeModel(onnx.emit(graph).to_bytes()),
    "torchscript": lambda graph: TorchScriptRuntime(torchscript.emit(graph)),
    "torch-export": lambda graph: detc.emit(graph, "torch-export").runtime,
    "caffe2": Caffe2Runtime,
}


@pytest.mark.parametrize("target", RUNTIMES)
def test_a_new_op_is_one_function(target):
    """It compiles for every target without another line, and gives what its body gives."""
    graph = new_ops(sizes_of_data=target != "caffe2")
    lowered = detc.pipeline(target).run(graph)
    assert not any(node.op.dialect == "det" for node in lowered)
    if target == "torch-export" and TorchVersion(torch.__version__) < OLDEST_TORCH:
        with pytest.raises(detc.InputError, match="need torch"):
            RUNTIMES[target](lowered)
        return
    batch = 1 if target == "caffe2" else 3
    torch.manual_seed(5)
    inputs = {"data": torch.rand(batch, 3, 128, 160), "im_info": torch.rand(batch, 3)}
    inputs["data"][-1] += 1
    found = RUNTIMES[target](lowered).run(inputs)
    for name, wanted in run(graph, inputs).items():
        torch.testing.assert_close(torch.as_tensor(found[name]), wanted)


def test_nodes_say_where_they_come_from():
    graph = new_ops(sizes_of_data=True)
    Decompose().apply(graph, Context("decompose"))
    made = [node for node in graph if node.created_by]
    assert made and {(node.source, node.created_by) for node in made} == {("the.head", "decompose")}
    # The sizes that data decides are called as the op called them.
    assert [str(graph.outputs[name].type) for name in ("rows", "infos")] == ["i64[bright]", "f32[bright,3]"]
    # A body is traced once for operands of one type: a relu of its own for each node, and one of im_info.
    assert sum(node.op.name == "aten.relu" for node in graph) == 2 + 1


def test_kept_ops_and_untraceable_ones_stay():
    graph = test_det_lowering.CASES["detections"]().graph()
    before = [node.op.name for node in graph]
    assert not Decompose(kept=("det.apply_deltas",)).apply(graph, Context("decompose"))
    assert [node.op.name for node in graph] == before
    message = r"det\.test_loop at .*: no rule for this op; its body cannot be traced: loop \(.*\) needs the size N as"
    with pytest.raises(detc.UnsupportedError, match=message):
        Pipeline([Decompose(), LowerToOnnx()]).run(new_loop())


@op("det.test_loop", infer=lambda data: data)
def loop(data: Tensor) -> Tensor:
    """What cannot be traced: as many steps as there are images."""
    return torch.stack([image.relu() for image in data])


def new_loop() -> Graph:
    graph = Graph("loop", level="flat")
    data = graph.add_input("data", TensorType(F32, (N, 3, H, W)))
    graph.set_outputs({"out": Builder(graph).det.test_loop(data)})
    return graph


CASES = {
    **test_det_lowering.CASES,
    **test_det_dense.CASES,
    **{f"rotated-{name}": case for name, case in test_det_rotated.CASES.items()},
}


@lru_cache(maxsize=1)
def det_nodes() -> Mapping[str, list[Graph]]:
    """Of each det op the graphs of one node that the lowerings' tests have."""
    found: dict[str, list[Graph]] = {}
    for make in CASES.values():
        for node in make().graph():
            if node.op.dialect != "det":
                continue
            graph = Graph("node", level="flat")
            inputs: dict[Value, Value] = {}

            def own(value: Value, graph: Graph = graph, inputs: dict[Value, Value] = inputs) -> Value:
                if isinstance(value, Constant):
                    return Constant(value.data)
                return inputs.get(value) or inputs.setdefault(
                    value, graph.add_input(f"x{len(inputs)}", value.type)
                )

            types = [result.type for result in node.results]
            twin = Builder(graph).node(node.op, map_operands(node.operands, own), node.attributes, types)
            graph.set_outputs({f"y{i}": result for i, result in enumerate(twin.results)})
            found.setdefault(node.op.name, []).append(graph)
    return found


TARGETS = {
    "onnx": (onnx_rules.TABLE, onnx_rules.SAVES, (LowerToOnnx(), CleanUpOnnx())),
    "torchscript": (torchscript_rules.TABLE, torchscript_rules.SAVES, (LowerToTorchScript(),)),
}


@pytest.mark.parametrize("target", ["onnx", "torchscript", "caffe2"])
def test_what_is_kept_is_what_has_rules(target):
    steps = detc.pipeline(target)
    (decompose,) = (step for step in steps if isinstance(step, Decompose))
    (lowering,) = (step for step in steps if isinstance(step, Conversion))
    ruled = [name for name in lowering.table if name.startswith("det.")]
    assert sorted(decompose.kept) == sorted(ruled)


def saved_nodes(graph: Graph, lower: tuple[Pass, ...]) -> int | None:
    """How many nodes fewer than the op's body the rule by hand gives; None where the body gives no graph."""
    rest = Pipeline([*lower, FoldConstants(), CommonSubexpressions(), DeadCode()])
    written_out = Pipeline([Decompose()]).run(graph)
    if any(node.op.dialect == "det" for node in written_out):
        return None
    try:
        return len(rest.run(written_out)) - len(rest.run(graph))
    except detc.UnsupportedError:
        return None


@pytest.mark.parametrize("target", TARGETS)
def test_rules_by_hand_save_nodes(target):
    """A rule beside a body that can be traced is in the table `SAVES`, with what it saves at most, and saves something."""
    rules, listed, lower = TARGETS[target]
    measured: dict[str, int] = {}
    for name in rules:
        saved = [s for s in (saved_nodes(graph, lower) for graph in det_nodes()[name]) if s is not None]
        if saved:
            measured[name] = max(saved)
    assert measured == listed
    assert all(saved > 0 for saved in measured.values())
