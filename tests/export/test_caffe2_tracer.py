"""`Caffe2Tracer` with what detectron2's users give it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from torch import nn
from yacs.config import CfgNode

import detc
from detc.backends.arrays import batch_images
from detc.backends.caffe2 import Caffe2Runtime
from detc.backends.caffe2.arguments import run_operator
from detc.backends.caffe2.proto import OperatorDef
from detc.export import Caffe2Model, Caffe2Tracer, add_export_config
from detc.ir import InputError, UnsupportedError
from tests import zoo
from tests.caffe2.compiled import assert_batch, assert_golden, feeds, lowered
from tests.models import loaded
from tests.parity import assert_detections_match, detections

NAME = "mask_rcnn_R_50_FPN"


def config() -> dict[str, Any]:
    return yaml.safe_load(zoo.config_path(NAME).read_text())


@pytest.mark.parametrize("cfg", [lambda: add_export_config(CfgNode(config())), lambda: zoo.config_path(NAME)])
def test_any_kind_of_config(cfg: Any) -> None:
    tracer = Caffe2Tracer(cfg(), loaded(NAME), None)
    assert tracer.export_caffe2().metadata["min_size_test"] == config()["INPUT"]["MIN_SIZE_TEST"]


def test_detectron2s_example(tmp_path: Path) -> None:
    """What detectron2's tools/deploy/export_model.py does."""
    inputs = zoo.single_input(5)  # an image with nothing in it
    tracer = Caffe2Tracer(CfgNode(config()), loaded(NAME), inputs)
    caffe2_model = tracer.export_caffe2()
    caffe2_model.save_protobuf(str(tmp_path / "net"))
    again = Caffe2Model.load_protobuf(str(tmp_path / "net"))
    for scene in (1, 3, 5):
        wanted = detections(zoo.golden(NAME).under(f"image{scene}/output/instances"))
        for caffe2 in (caffe2_model, again):
            found = caffe2(zoo.single_input(scene))[0]["instances"]
            assert_detections_match(detections(found), wanted, thresholds=(0.05,))


def test_a_net_for_as_many_images_as_there_are_inputs() -> None:
    inputs = zoo.batch_input()
    exported = Caffe2Tracer(config(), loaded(NAME), inputs).export_caffe2()
    graph = exported.graph
    assert str(graph.input("data").type).startswith("f32[3,3,")
    assert_batch(NAME, Caffe2Runtime(graph).run(feeds(graph, inputs)), inputs)


def test_stock_onnx(tmp_path: Path) -> None:
    exported = Caffe2Tracer(config(), loaded(NAME)).export_onnx()
    assert isinstance(exported, onnx.ModelProto)
    assert {node.domain for node in exported.graph.node} == {""}
    onnx.save(exported, str(tmp_path / "model.onnx"))
    detector = detc.load_artifact(tmp_path / "model.onnx")
    found = detector(zoo.single_input(3))[0]["instances"]
    assert_detections_match(
        detections(found), detections(zoo.golden(NAME).under("image3/output/instances")), thresholds=(0.05,)
    )
    assert isinstance(onnxruntime.InferenceSession(exported.SerializeToString()), object)


ORIGINAL_COUNTS = {
    "": {"Conv": 79, "Relu": 59, "Gemm": 4, "Flatten": 1, "MaxPool": 2, "Softmax": 1, "Sigmoid": 1},
    "org.pytorch._caffe2": {
        **{"GenerateProposals": 5, "CollectRpnProposals": 1, "DistributeFpnProposals": 2, "RoIAlign": 8},
        **{"BatchPermutation": 2, "BBoxTransform": 1, "BoxWithNMSLimit": 1},
    },
}
"""Counted in the file that detectron2 and torch 1.9.1 wrote for this checkpoint."""


@pytest.fixture(scope="module")
def legacy() -> onnx.ModelProto:
    return Caffe2Tracer(config(), loaded(NAME)).export_onnx(caffe2_ops=True)


def test_legacy_onnx_has_the_original_form(legacy: onnx.ModelProto) -> None:
    graph = legacy.graph
    assert [(o.domain, o.version) for o in legacy.opset_import] == [("", 9), ("org.pytorch._caffe2", 1)]
    assert legacy.ir_version == 6
    assert [value.name for value in graph.input[:2]] == ["data", "im_info"]
    assert {value.name for value in graph.input[2:]} == {tensor.name for tensor in graph.initializer}
    assert [value.name for value in graph.output] == ["bbox_nms", "score_nms", "class_nms", "mask_fcn_probs"]
    counts = Counter((node.domain, node.op_type) for node in graph.node)
    for domain, original in ORIGINAL_COUNTS.items():
        assert {kind: counts[domain, kind] for kind in original} == original


def test_legacy_onnx_has_the_arguments_of_the_original_net(legacy: onnx.ModelProto) -> None:
    nodes = [node for node in legacy.graph.node if node.op_type in ("GenerateProposals", "BoxWithNMSLimit")]
    text = (zoo.ZOO / NAME / "caffe2_original" / "model.pb").read_bytes()
    ops = [
        op
        for op in detc.backends.caffe2.read.read_net(text).op
        if op.type in ("GenerateProposals", "BoxWithNMSLimit")
    ]
    assert len(nodes) == len(ops) == 6
    for node, op in zip(nodes, ops, strict=True):
        assert node.domain == "org.pytorch._caffe2"
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert attributes == {
            a.name: a.f if a.HasField("f") else a.i if a.HasField("i") else a.s for a in op.arg
        }


def test_legacy_onnx_computes_what_the_net_does(legacy: onnx.ModelProto) -> None:
    """Run node by node: Caffe2's operators by their functions here, the others by onnxruntime."""
    graph = lowered(NAME)
    given = feeds(graph, zoo.single_input(3))
    blobs: dict[str, Any] = {t.name: onnx.numpy_helper.to_array(t) for t in legacy.graph.initializer} | given
    for node in legacy.graph.node:
        blobs.update(zip(node.output, _run(node, [blobs[name] for name in node.input]), strict=True))
    assert_golden(NAME, {value.name: blobs[value.name] for value in legacy.graph.output}, 3, "legacy ONNX")


def _run(node: onnx.NodeProto, operands: list[np.ndarray]) -> list[np.ndarray]:
    if node.domain:
        op = OperatorDef(type=node.op_type, input=node.input, output=node.output)
        for attribute in node.attribute:
            detc.backends.caffe2.arguments.set_argument(
                op.arg.add(), attribute.name, onnx.helper.get_attribute_value(attribute)
            )
        return [result.numpy() for result in run_operator(op, [torch.from_numpy(x.copy()) for x in operands])]
    infos = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in dict(zip(node.input, operands, strict=True)).items()
    ]
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output]
    alone = onnx.helper.make_model(
        onnx.helper.make_graph([node], "node", infos, outputs),
        opset_imports=[onnx.helper.make_opsetid("", 9)],
        ir_version=6,
    )
    session = onnxruntime.InferenceSession(alone.SerializeToString())
    return session.run(None, dict(zip(node.input, operands, strict=True)))


def test_a_model_in_training_mode_is_left_in_it() -> None:
    trained = detc.load_model(zoo.config_path(NAME), zoo.weights_path(NAME))
    trained.train()
    trained.backbone.eval()
    modes = [module.training for module in trained.modules()]
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    Caffe2Tracer(config(), trained, None).export_caffe2()
    assert [module.training for module in trained.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.state_dict().items())


@pytest.mark.parametrize(
    ("inputs", "match"),
    [
        ([], "holds no image"),
        ({"image": torch.zeros(3, 8, 8)}, "list of .* not dict"),
        (torch.zeros(1, 3, 8, 8), "list of .* not Tensor"),
        ([torch.zeros(3, 8, 8)], "input 0 is Tensor"),
        ([{"file_name": "a.png"}], "must be a tensor"),
    ],
)
def test_inputs_that_are_none(inputs: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        Caffe2Tracer(config(), loaded(NAME), inputs)


def test_what_is_no_config_or_model() -> None:
    with pytest.raises(InputError, match="not NoneType"):
        Caffe2Tracer(None, loaded(NAME), None)
    with pytest.raises(InputError, match=r"is an nn\.Module"):
        Caffe2Tracer(config(), "model", None)
    with pytest.raises(UnsupportedError, match="no meta-architecture"):
        Caffe2Tracer(config(), nn.Linear(1, 1), None)


# The batch, from the API


def test_batch_from_python(tmp_path: Path) -> None:
    compiled = detc.compile(loaded(NAME), "caffe2", batch=2)
    inputs = zoo.batch_input()  # three: one and a half batches
    compiled.save(tmp_path / "net")
    for detector in (compiled, detc.load_artifact(tmp_path / "net")):
        for image, found in enumerate(detector(inputs)):
            wanted = zoo.golden(NAME).under(f"batch/{image}/output/instances")
            assert_detections_match(detections(found["instances"]), detections(wanted), thresholds=(0.05,))
    graph = detc.pipeline("caffe2", batch=2).run(detc.capture(loaded(NAME)))
    assert batch_images(inputs[:2], 32)["data"].shape[0] == graph.input("data").tensor_type.shape[0] == 2


@pytest.mark.parametrize(
    ("target", "batch", "match"),
    [
        ("onnx", 2, "takes any number of images at once"),
        ("caffe2", 0, "1 or more, not 0"),
        ("caffe2", -1, "1 or more"),
        ("caffe2", 2.0, "1 or more"),
        ("caffe2", True, "1 or more"),
    ],
)
def test_batches_that_cannot_be(target: str, batch: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        detc.pipeline(target, batch=batch)


def test_torchscript(tmp_path: Path) -> None:
    exported = Caffe2Tracer(config(), loaded(NAME), zoo.single_input(5)).export_torchscript()
    assert isinstance(exported, torch.jit.ScriptModule)
    exported.save(str(tmp_path / "model.ts"))
    feed = batch_images(zoo.single_input(3), 32)
    found = torch.jit.load(str(tmp_path / "model.ts"))(feed["data"], feed["im_info"])
    wanted = zoo.golden(NAME).under("image3/raw")
    outputs = {
        "pred_boxes": found.boxes,
        "scores": found.scores,
        "pred_classes": found.classes,
        "pred_masks": found.masks,
    }
    assert_detections_match(detections(outputs), detections(wanted), thresholds=(0.05,))
