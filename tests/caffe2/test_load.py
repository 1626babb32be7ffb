"""Nets read into the IR: they verify, run as the real Caffe2 ran them, and refuse what is no net."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from detc.backends.caffe2.arguments import make_operator
from detc.backends.caffe2.infer_shapes import RULES
from detc.backends.caffe2.load import load, load_nets
from detc.backends.caffe2.ops import BODIES
from detc.backends.caffe2.proto import NetDef
from detc.backends.caffe2.read import read_net
from detc.backends.caffe2.runtime import Caffe2Runtime
from detc.ir import Graph, InputError, TensorType, UnsupportedError, difference, parse_graph, symbol

from .outputs import assert_same_outputs
from .zoo import NETS, ZOO, inputs


@functools.cache
def _graph(name: str) -> Graph:
    return load(ZOO / name / "caffe2_original")


def test_every_operator_has_a_rule() -> None:
    assert set(BODIES) - set(RULES) == {name for name in BODIES if name.startswith("GivenTensor")}


@pytest.mark.parametrize("scene", ["scene0", "scene1", "scene2", "scene3", "scene5"])
@pytest.mark.parametrize("name", NETS)
def test_outputs_are_the_real_ones(name: str, scene: str) -> None:
    graph = _graph(name)
    actual = Caffe2Runtime(graph).run(inputs(scene, graph.metadata["size_divisibility"]))
    with np.load(ZOO / name / "caffe2_original" / f"{scene}.npz") as stored:
        assert_same_outputs(actual, {blob: stored[blob] for blob in stored.files})


@pytest.mark.parametrize("name", NETS)
def test_blob_names_and_text(name: str) -> None:
    graph = _graph(name)
    net = read_net(ZOO / name / "caffe2_original" / "model.pb")
    assert list(graph.outputs) == list(net.external_output)
    assert [v.name for v in graph.inputs] == ["data", "im_info"]
    blobs = {name for op in net.op for name in op.output}
    assert blobs <= {result.name for node in graph for result in node.results}
    assert graph.metadata["meta_architecture"] in ("GeneralizedRCNN", "RetinaNet")
    again = parse_graph(str(graph), {n: w.data for n, w in graph.weights.items()})
    assert difference(graph, again) is None


def test_anchors_of_a_retinanet_are_plain_arguments() -> None:
    arguments = _graph("retinanet_R_50_FPN").metadata["net_arguments"]
    assert "serialized_anchor_generator" not in arguments
    assert arguments["anchor_strides"] == [8, 16, 32, 64, 128]
    assert len(arguments["anchors_0"]) % 4 == 0


def _net(*ops: object, outputs: tuple[str, ...] = ("y",)) -> NetDef:
    return NetDef(name="net", op=ops, external_input=["data"], external_output=outputs)


EMPTY = NetDef(name="init")


def test_a_blob_that_is_written_twice() -> None:
    net = _net(
        make_operator("Relu", ["data"], ["x"]),
        make_operator("Negative", ["x"], ["x"]),
        make_operator("Relu", ["x"], ["y"]),
        outputs=("x", "y"),
    )
    data = torch.randn(1, 3, 4, 4)
    outputs = Caffe2Runtime(load_nets(net, EMPTY)).run({"data": data})
    np.testing.assert_array_equal(outputs["x"], -data.relu().numpy())
    np.testing.assert_array_equal(outputs["y"], np.zeros((1, 3, 4, 4), np.float32))


def test_unknown_operators_are_all_listed() -> None:
    net = _net(
        make_operator("Swish", ["data"], ["x"]),
        make_operator("Int8Relu", ["x"], ["z"]),
        make_operator("Swish", ["z"], ["y"]),
    )
    with pytest.raises(UnsupportedError, match=r"Swish \(unknown\)[^\n]* x\n +Int8Relu \(quantized\)"):
        load_nets(net, EMPTY)


def test_missing_blobs_are_all_listed() -> None:
    net = _net(make_operator("Add", ["data", "a"], ["x"]), make_operator("Add", ["x", "b"], ["z"]))
    with pytest.raises(InputError, match="blobs that nothing makes: a, b, y"):
        load_nets(net, EMPTY)


@pytest.mark.parametrize(
    ("op", "match"),
    [
        (make_operator("Relu", [], ["y"]), "Relu that makes y: .*0 operands"),
        (make_operator("Relu", ["data"], ["y"], {"slope": 1.0}), "no argument slope"),
        (make_operator("Relu", ["data"], ["y", "z"]), "2 outputs"),
        (make_operator("Conv", ["data", "data"], ["y"]), "kernel's size is not known"),
        (make_operator("Concat", ["data", "data"], ["y", "z"], {"axis": 7}), "axis 7 of 4"),
        (make_operator("Cast", ["data"], ["y"], {"to": 99}), "type 99"),
        (
            make_operator("DistributeFpnProposals", ["w"], ["y", "z"], {"roi_max_level": 2**62}),
            "roi_max_level 46",
        ),
    ],
)
def test_operators_that_cannot_be(op: object, match: str) -> None:
    weight = make_operator("GivenTensorFill", [], ["w"], {"shape": [1, 5], "values": [0.0] * 5})
    with pytest.raises(InputError, match=match):
        load_nets(_net(op), NetDef(name="init", op=[weight]))


def test_init_nets_hold_weights_only() -> None:
    init = NetDef(name="init", op=[make_operator("Relu", ["data"], ["w"])])
    with pytest.raises(InputError, match="the init net holds the operator Relu"):
        load_nets(_net(make_operator("Relu", ["data"], ["y"])), init)


def test_truncated_and_foreign_files(tmp_path) -> None:
    folder = ZOO / "faster_rcnn_R_50_FPN" / "caffe2_original"
    with pytest.raises(InputError, match=r"lacks model\.pb and model_init\.pb"):
        load(tmp_path)
    (tmp_path / "model_init.pb").write_bytes((folder / "model_init.pb").read_bytes())
    for content in ((folder / "model.pb").read_bytes()[:-7], b"PK\x03\x04 something else", b""):
        (tmp_path / "model.pb").write_bytes(content)
        with pytest.raises(InputError, match=r"model\.pb"):
            load(tmp_path)


def test_inputs_need_a_type() -> None:
    net = NetDef(
        name="n", op=[make_operator("Relu", ["x"], ["y"])], external_input=["x"], external_output=["y"]
    )
    with pytest.raises(InputError, match=r"the init net does not make: x; .* give their types"):
        load_nets(net, EMPTY)
    graph = load_nets(net, EMPTY, inputs={"x": TensorType(torch.float32, (symbol("R"), 4))})
    assert Caffe2Runtime(graph).run({"x": torch.ones(2, 4)})["y"].shape == (2, 4)


@pytest.mark.parametrize(
    ("feeds", "match"),
    [
        ({"data": torch.zeros(1, 3, 32, 32)}, "missing: im_info"),
        ({"data": torch.zeros(3, 32, 32), "im_info": torch.ones(1, 3)}, "the input 'data' is"),
        ({"data": torch.zeros(1, 3, 32, 32).double(), "im_info": torch.ones(1, 3)}, "the input 'data' is"),
        ({"data": torch.zeros(1, 3, 32, 40), "im_info": torch.ones(1, 3)}, "multiple of 32"),
        ({"data": torch.zeros(1, 5, 32, 32), "im_info": torch.ones(1, 3)}, "do not broadcast"),
    ],
)
def test_wrong_inputs(feeds: dict[str, torch.Tensor], match: str) -> None:
    with pytest.raises(InputError, match=match):
        Caffe2Runtime(_graph("faster_rcnn_R_50_FPN")).run(feeds)
