"""Emitting: names, shared constants, metadata, checker, the file written without copies, and its runtimes."""

from __future__ import annotations

import json
import sys

import numpy as np
import onnx
import pytest
import torch

import detc.backends.onnx.dialect  # noqa: F401  (registers the dialect)
from detc.backends.onnx.emit import OnnxModel, emit
from detc.backends.onnx.openvino import OpenVinoModel
from detc.backends.onnx.runtime import OnnxRuntimeModel
from detc.ir import Builder, Graph, InputError, IRError, TensorType, run, symbol, verify

N, H, W = symbol("N"), symbol("H", 4), symbol("W", 4)
RUNTIMES = (OnnxRuntimeModel, OpenVinoModel)


def small_graph() -> Graph:
    graph = Graph("small", "onnx")
    x = graph.add_input("data", TensorType(torch.float32, (N, 3, H, W)))
    weight = torch.randn(40, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    b = Builder(graph)
    with b.at("stem.conv1"):
        y = b.onnx.Conv(x, graph.add_weight("stem.conv1.weight", weight), strides=(2, 2))
    with b.at("stem.conv2"):
        z = b.onnx.Conv(x, graph.add_weight("stem.conv2.weight", weight), strides=(2, 2))
    with b.at("head"):
        y = b.onnx.Reshape(b.onnx.Add(y, z), b.constant([0, 40, -1]))
        y = b.onnx.Reshape(y, b.constant([0, 40, -1]))
        best, rows = b.onnx.TopK(y, b.constant([3]))
    graph.set_outputs({"best": best, "rows": rows, "again": best, "image": x, "three": b.constant([3])})
    graph.metadata = {
        "class_names": ["cat", "dog"],
        "score_thresh": 0.05,
        "meanings": {"best": "the best of each channel"},
    }
    verify(graph)
    return graph


def test_model_is_valid_and_named():
    model = emit(small_graph())
    proto = model.to_proto()
    onnx.checker.check_model(proto, full_check=True)
    assert [node.name for node in proto.graph.node][:4] == [
        "stem.conv1/Conv", "stem.conv2/Conv", "head/Add", "head/Reshape",
    ]  # fmt: skip
    assert "head/Reshape_1" in [node.name for node in proto.graph.node]
    assert [i.name for i in proto.graph.input] == ["data"]
    assert [o.name for o in proto.graph.output] == ["best", "rows", "again", "image", "three"]
    assert [d.dim_param or d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim] == [
        "N",
        3,
        "H",
        "W",
    ]
    # One tensor under two names, and equal literals, are stored once.
    assert len([i for i in proto.graph.initializer if list(i.dims) == [40, 3, 2, 2]]) == 1
    assert len([i for i in proto.graph.initializer if list(i.dims) == [3]]) == 1
    assert proto.producer_name == "detc"
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 20)]


def test_metadata_is_json():
    model = emit(small_graph()).to_proto()
    said = {p.key: json.loads(p.value) for p in model.metadata_props}
    assert said["class_names"] == ["cat", "dog"]
    assert said["score_thresh"] == 0.05
    assert said["schema"]["inputs"] == [{"name": "data", "type": "f32[N,3,H,W]"}]
    assert said["schema"]["outputs"][0]["meaning"] == "the best of each channel"
    assert said["schema"]["multiples"] == {"H": 4, "W": 4}
    assert "detc_version" in said


def test_file_is_what_protobuf_would_write(tmp_path):
    model = emit(small_graph())
    path = tmp_path / "model.onnx"
    model.save(path)
    content = path.read_bytes()
    assert content == model.to_bytes()
    assert onnx.load_from_string(content) == model.to_proto()
    assert len(content) <= model.size <= len(content) + 20
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_weights_are_not_copied():
    graph = small_graph()
    model = emit(graph)
    (stored,) = model.weights.values()
    assert stored.data_ptr() == graph.weights["stem.conv1.weight"].data.data_ptr()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kind", RUNTIMES)
def test_runs(tmp_path, kind, batch):
    graph = small_graph()
    emit(graph).save(tmp_path / "m.onnx")
    runtime = kind(tmp_path / "m.onnx", threads=1)
    data = torch.randn(batch, 3, 8, 12)
    expected = run(graph, {"data": data})
    found = runtime.run({"data": data})
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value.numpy(), rtol=1e-5, atol=1e-5)
    assert runtime.metadata["class_names"] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "missing: data"),
        ({"data": np.zeros((1, 3, 4, 4), np.float32), "x": np.zeros(1)}, "not among the inputs: x"),
        ({"data": np.zeros((1, 3, 4, 4))}, "is of float64, not float32"),
        ({"data": np.zeros((3, 4, 4), np.float32)}, "has 3 dimensions, not 4"),
        ({"data": np.zeros((1, 4, 4, 4), np.float32)}, "dimension 1 of the input 'data' is 4, not 3"),
        ({"data": np.zeros((1, 3, 4, 5), np.float32)}, r"\(W\) is 5, which is no multiple of 4"),
    ],
)
@pytest.mark.parametrize("kind", RUNTIMES)
def test_bad_inputs_are_named(kind, inputs, message):
    runtime = kind(emit(small_graph()).to_bytes(), threads=1)
    with pytest.raises(InputError, match=message):
        runtime.run(inputs)


@pytest.mark.parametrize("kind", RUNTIMES)
def test_bad_files_are_named(tmp_path, kind):
    with pytest.raises(InputError, match="there is no file"):
        kind(tmp_path / "none.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(InputError, match=r"(onnxruntime|OpenVINO) cannot load"):
        kind(broken)


def test_a_runtime_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"pip install 'detc\[openvino\]'"):
        OpenVinoModel(emit(small_graph()).to_bytes())


def test_failed_save_keeps_the_old_file(tmp_path):
    model = emit(small_graph())
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match="does not exist"):
        model.save(tmp_path / "nowhere" / "m.onnx")
    # One number that claims to be a billion: what is too large is found before anything is written.
    huge = OnnxModel(model.skeleton, {"huge": torch.zeros(1).expand(2**20, 2**10)})
    with pytest.raises(InputError, match=r"takes 4\.0 GiB; an ONNX file holds at most 2 GiB"):
        huge.save(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_other_levels_are_refused():
    with pytest.raises(IRError, match="only graphs of the level 'onnx'"):
        emit(Graph("g", "captured"))
