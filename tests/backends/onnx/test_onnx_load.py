"""Reading ONNX files back into graphs: detc's own, and ordinary ones."""

from __future__ import annotations

import io

import onnx
import pytest
import torch
from lowering import Case, build, example, lower, same, weight
from onnx import TensorProto, helper

from detc.backends.onnx.emit import emit
from detc.backends.onnx.load import import_model, load
from detc.backends.onnx.runtime import OnnxRuntimeModel
from detc.ir import InputError, UnsupportedError, difference, parse_graph, print_graph, run, verify
from detc.ir import symbol as size

H = size("H")


def network(b, x):
    y = b.aten.relu(b.aten.conv2d(x, weight(b, 8, 3, 3, 3), weight(b, 8), stride=(2, 2), padding=(1, 1)))
    y = b.aten.batch_norm(
        y,
        *[weight(b, 8, low=0.5) for _ in range(4)],
        training=False,
        momentum=0.1,
        eps=1e-5,
        cudnn_enabled=False,
    )
    best, where = b.aten.topk(b.aten.flatten.using_ints(y, start_dim=2), k=3)
    joined = b.aten.cat([b.aten.mean.dim(y, dim=(2, 3)), b.aten.amax(y, dim=(2, 3))], dim=1)
    return [
        best,
        where,
        b.aten.linear(joined, weight(b, 5, 16), weight(b, 5)),
        *b.aten.split.Tensor(y, split_size=4, dim=1),
    ]


CASE = Case("network", ["f32[N,3,H,W]"], network, ({"N": 2, "H": 9, "W": 12},))


def test_round_trip(tmp_path):
    graph = build(CASE)
    lowered = lower(graph)
    lowered.metadata = {"class_names": ["cat"], "meanings": {"y0": "the best"}, "size_divisibility": 1}
    path = tmp_path / "m.onnx"
    emit(lowered).save(path)
    loaded = load(path)
    verify(loaded)
    assert loaded.level == "onnx"
    assert loaded.metadata == lowered.metadata
    assert [str(v.type) for v in loaded.inputs] == ["f32[N,3,H,W]"]
    assert [n.op.name for n in loaded] == [n.op.name for n in lowered]
    assert {n.source for n in loaded} == {"model.layer"}
    assert set(loaded.weights) <= set(lowered.weights)  # equal small ones are stored once
    assert [str(v.type) for v in loaded.outputs.values()] == [str(v.type) for v in lowered.outputs.values()]
    data = example(graph, CASE.sizes[0], CASE)
    same(run(loaded, data), run(graph, data), "the loaded graph")
    # And once more: what was loaded is emitted as the same model.
    again = emit(loaded)
    assert again.to_proto().graph.node == emit(lowered).to_proto().graph.node
    same(OnnxRuntimeModel(again.to_bytes()).run(data), run(graph, data), "the model emitted again")


def test_loaded_graphs_have_a_text_form(tmp_path):
    emit(lower(build(CASE))).save(tmp_path / "m.onnx")
    loaded = load(tmp_path / "m.onnx")
    parsed = parse_graph(print_graph(loaded), {name: w.data for name, w in loaded.weights.items()})
    assert difference(loaded, parsed) is None


class Plain(torch.nn.Module):
    """What someone else might export: another opset, Constant nodes, sizes computed with Shape and Gather."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.fc = torch.nn.Linear(4, 2)

    def forward(self, x):
        y = torch.relu(self.conv(x))
        y = torch.nn.functional.interpolate(y, size=(x.shape[2] * 2, x.shape[3]), mode="bilinear")
        return self.fc(y.mean((2, 3))), y.view(y.shape[0], 4, -1)


@pytest.mark.filterwarnings("ignore")
def test_ordinary_file_of_another_opset(tmp_path):
    model = Plain().eval()
    path = tmp_path / "plain.onnx"
    axes = {"x": {0: "batch size", 2: "h", 3: "w"}}
    torch.onnx.export(
        model, torch.randn(1, 3, 6, 8), path, input_names=["x"], output_names=["a", "b"], dynamic_axes=axes,
        opset_version=16, dynamo=False,
    )  # fmt: skip
    graph = load(path)
    verify(graph)
    assert str(graph.inputs[0].type) == "f32[batch_size,3,h,w]"
    x = torch.randn(2, 3, 5, 7)
    with torch.no_grad():
        a, b = model(x)
    same(run(graph, {"x": x}), {"a": a, "b": b}, "the loaded graph")
    same(OnnxRuntimeModel(emit(graph).to_bytes()).run({"x": x}), {"a": a, "b": b}, "the model emitted again")


def model_of(nodes, *, opset=20, domains=(), inputs=None, initializers=()):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    y = onnx.ValueInfoProto(name="y")
    graph = helper.make_graph(nodes, "g", inputs or [x], [y], initializer=list(initializers))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def test_unknown_operators_are_listed_together():
    nodes = [
        helper.make_node("EfficientNMS_TRT", ["x"], ["a"], domain="trt"),
        helper.make_node("FusedConv", ["a"], ["b"], domain="com.microsoft"),
        helper.make_node("FusedConv", ["b"], ["c"], domain="com.microsoft"),
        helper.make_node("Nonsense", ["c"], ["y"]),
    ]
    with pytest.raises(UnsupportedError) as caught:
        import_model(model_of(nodes, domains=("trt", "com.microsoft")))
    message = str(caught.value)
    assert "Nonsense (1), com.microsoft::FusedConv (2), trt::EfficientNMS_TRT (1)" in message


def test_optional_inputs_and_outputs():
    nodes = [
        helper.make_node("Clip", ["x", "", "most"], ["c"]),
        helper.make_node("Dropout", ["c"], ["d", ""]),
        helper.make_node("LayerNormalization", ["d", "scale"], ["e", "", "inverse"], axis=-1),
        helper.make_node("Add", ["e", "inverse"], ["y"]),
    ]
    constants = [
        helper.make_tensor("most", TensorProto.FLOAT, [], [0.5]),
        helper.make_tensor("scale", TensorProto.FLOAT, [4], [1.0, 2.0, 3.0, 4.0]),
    ]
    model = model_of(nodes, initializers=constants)
    content = model.SerializeToString()
    graph = import_model(model)
    verify(graph)
    x = torch.randn(3, 4)
    expected = OnnxRuntimeModel(content).run({"x": x})
    same(expected, run(graph, {"x": x}), "the loaded graph")
    same(OnnxRuntimeModel(emit(graph).to_bytes()).run({"x": x}), run(graph, {"x": x}), "emitted again")


def test_files_that_are_no_models(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        load(tmp_path / "none.onnx")
    for name, content in (("text.onnx", b"not a model at all"), ("empty.onnx", b"")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError, match="is no ONNX model"):
            load(path)
    whole = io.BytesIO(emit(lower(build(CASE))).to_bytes()).getvalue()
    path = tmp_path / "cut.onnx"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is no ONNX model"):
        load(path)


def test_values_that_are_no_tensors_are_refused():
    strings = helper.make_tensor_value_info("x", TensorProto.STRING, ["N", 4])
    with pytest.raises(UnsupportedError, match="the input 'x' is no tensor of numbers"):
        import_model(model_of([helper.make_node("Identity", ["x"], ["y"])], inputs=[strings]))
    with pytest.raises(InputError, match="the value 'missing' is used before it is defined"):
        import_model(model_of([helper.make_node("Add", ["x", "missing"], ["y"])]))
