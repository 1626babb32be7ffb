"""Captured detectors as Caffe2 nets: what detectron2's exporter gives, with fewer operators, and the same detections."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import detc
from detc.backends.arrays import batch_images
from detc.backends.caffe2 import Caffe2Runtime, emit, load, load_nets
from detc.backends.caffe2.lower import LowerToCaffe2
from detc.backends.caffe2.pipeline import caffe2_pipeline
from detc.backends.caffe2.proto import NetDef
from detc.backends.caffe2.read import read_net
from detc.ir import Builder, Graph, InputError, TensorType, UnsupportedError, difference, symbol
from detc.passes import Observer, Pipeline
from tests import zoo
from tests.frontend.test_builds import make_fcos
from tests.models import captured, compiled
from tests.parity import assert_detections_match, detections

from .compiled import MODELS, WITH_ORIGINAL, assert_batch, assert_golden, feeds, lowered

DETECTION_OPS = {
    *("GenerateProposals", "CollectRpnProposals", "DistributeFpnProposals", "RoIAlign", "BatchPermutation"),
    *("BBoxTransform", "BoxWithNMSLimit"),
}


def _original(name: str) -> NetDef:
    return read_net(zoo.ZOO / name / "caffe2_original" / "model.pbtxt")


def _arguments(net: NetDef) -> list[tuple[str, bytes]]:
    """The detection operators with their arguments, as comparable bytes, in order."""
    found = []
    for op in net.op:
        if op.type in DETECTION_OPS:
            arguments = sorted(op.arg, key=lambda a: a.name)
            found.append((op.type, b"".join(a.SerializeToString() for a in arguments)))
    return found


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scene", zoo.SCENES)
def test_interpreter_gives_the_goldens(name: str, scene: int) -> None:
    graph = lowered(name)
    outputs = Caffe2Runtime(graph).run(feeds(graph, zoo.single_input(scene)))
    assert_golden(name, outputs, scene, "interpreter")


class _Golden(Observer):
    """After each pass from the renaming of the outputs on, the graph still gives what detectron2 gave."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.checked: list[str] = []

    def after(self, graph, pass_, index, changed) -> None:
        if "bbox_nms" in graph.outputs:
            given = feeds(graph, zoo.single_input(3))
            outputs = detc.ir.run(graph, {name: torch.tensor(value) for name, value in given.items()})
            assert_golden(self.name, outputs, 3, pass_.name)
            self.checked.append(pass_.name)


def test_every_pass_keeps_the_result() -> None:
    name, passes = "mask_rcnn_R_50_FPN", caffe2_pipeline()
    golden = _Golden(name)
    passes.run(captured(name), observers=[golden])
    assert golden.checked == [item.name for item in passes][3:]


@pytest.mark.parametrize("name", WITH_ORIGINAL)
def test_detection_operators_have_the_original_arguments(name: str) -> None:
    assert _arguments(emit(lowered(name)).predict_net) == _arguments(_original(name))


@pytest.mark.parametrize("name", WITH_ORIGINAL)
def test_fewer_operators_and_none_dead(name: str) -> None:
    net, original = emit(lowered(name)).predict_net, _original(name)
    # Zero padding inside of the net takes two operators that the original does not have; the FPN's net has fewer
    # elsewhere.
    assert len(net.op) < len(original.op) + name.endswith("C4")
    wanted = set(net.external_output)
    for op in reversed(net.op):
        assert wanted & set(op.output), f"{op.type} is dead"
        wanted.update(op.input)
    assert set(net.external_input) <= wanted
    types = Counter(op.type for op in net.op)
    assert not {"Cast", "Flatten", "Div"} & set(types)
    assert types["Conv"] == Counter(op.type for op in original.op)["Conv"]


@pytest.mark.parametrize("name", WITH_ORIGINAL)
def test_nets_look_like_the_original_exporter_s(name: str) -> None:
    nets, original = emit(lowered(name)), _original(name)
    net = nets.predict_net
    assert list(net.external_output) == list(original.external_output)
    assert list(net.external_input[:2]) == ["data", "im_info"]
    assert set(net.external_input[2:]) == {blob for op in nets.init_net.op for blob in op.output}
    assert {op.type for op in nets.init_net.op} == {"GivenTensorFill"}
    theirs = {a.name: a.SerializeToString() for a in original.arg}
    ours = {a.name: a.SerializeToString() for a in net.arg}
    assert theirs.items() <= ours.items()
    boxes = next(op for op in net.op if op.type == "BoxWithNMSLimit")
    assert list(boxes.output) == list(next(o for o in original.op if o.type == "BoxWithNMSLimit").output)
    made: set[str] = set()
    for op in net.op:
        # No blob is written twice but by what can overwrite it.
        if not made.isdisjoint(op.output):
            assert op.type in ("Relu", "Add", "Sigmoid")
            assert list(op.output) == [op.input[0]]
        made.update(op.output)
    assert "rpn_rois" in made


@pytest.mark.parametrize("name", MODELS)
def test_emitted_nets_read_back(name: str) -> None:
    graph = lowered(name)
    nets = emit(graph)
    again = load_nets(nets.predict_net.SerializeToString(), nets.init_net.SerializeToString())
    assert [str(v.type) for v in again.inputs] == [str(v.type) for v in graph.inputs]
    assert again.metadata["pixel_mean"] == graph.metadata["pixel_mean"]
    given = feeds(graph, zoo.single_input(3))
    first, second = Caffe2Runtime(graph).run(given), Caffe2Runtime(again).run(given)
    for blob in first:
        np.testing.assert_array_equal(first[blob], second[blob])
    # From here on nothing changes any more.
    third = emit(again)
    assert third.predict_net.op == nets.predict_net.op
    assert load_nets(third.predict_net, third.init_net).metadata == again.metadata


@pytest.mark.parametrize("name", ["keypoint_rcnn_R_50_FPN", "retinanet_R_50_FPN", "faster_rcnn_R_50_C4"])
def test_original_nets_are_emitted_as_they_were(name: str) -> None:
    folder = zoo.ZOO / name / "caffe2_original"
    graph = load(folder)
    nets, net = emit(graph), read_net(folder / "model.pb")
    assert [(op.type, *op.input) for op in nets.predict_net.op] == [(op.type, *op.input) for op in net.op]
    assert [list(op.output) for op in nets.predict_net.op] == [list(op.output) for op in net.op]
    assert list(nets.predict_net.external_output) == list(net.external_output)
    again = load_nets(nets.predict_net, nets.init_net)
    assert difference(graph, again) is None


@pytest.mark.parametrize("name", ["faster_rcnn_R_50_FPN", "mask_rcnn_R_50_FPN"])
def test_several_images(name: str) -> None:
    graph = lowered(name, 3)
    inputs = zoo.batch_input()
    outputs = Caffe2Runtime(graph).run(feeds(graph, inputs))
    assert list(outputs["batch_index"]) == sorted(outputs["batch_index"])
    assert_batch(name, outputs, inputs)


def test_a_net_takes_as_many_images_as_it_says() -> None:
    graph = lowered("faster_rcnn_R_50_FPN")
    with pytest.raises(InputError, match=r"the input 'data' is \[3, "):
        Caffe2Runtime(graph).run(feeds(graph, zoo.batch_input()))


# The artifact


@pytest.mark.parametrize("name", ["faster_rcnn_R_50_FPN", "mask_rcnn_R_50_FPN", "retinanet_R_50_FPN"])
def test_artifact_called_like_the_model(name: str, tmp_path: Path) -> None:
    artifact = compiled(name, target="caffe2")
    assert artifact.nodes == len(lowered(name))
    artifact.save(tmp_path / "net")
    assert sorted(p.name for p in (tmp_path / "net").iterdir()) == [
        "model.pb",
        "model.pbtxt",
        "model_init.pb",
    ]
    assert read_net(tmp_path / "net" / "model.pbtxt").op == read_net(tmp_path / "net" / "model.pb").op
    for detector in (artifact, detc.load_artifact(tmp_path / "net")):
        for scene in (1, 3, 5):
            found = detector(zoo.single_input(scene))[0]["instances"]
            wanted = zoo.golden(name).under(f"image{scene}/output/instances")
            assert_detections_match(detections(found), detections(wanted), thresholds=(0.05,))
        results = detector(zoo.batch_input())
        for image, found in enumerate(results):
            wanted = zoo.golden(name).under(f"batch/{image}/output/instances")
            assert_detections_match(detections(found["instances"]), detections(wanted), thresholds=(0.05,))


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    nets = emit(lowered("faster_rcnn_R_50_FPN"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="the output is no folder"):
        nets.save_protobuf(tmp_path / "file")
    with pytest.raises(InputError, match="cannot make the folder"):
        nets.save_protobuf(tmp_path / "file" / "folder")


def test_postprocessing_is_refused() -> None:
    with pytest.raises(InputError, match="leave out the postprocessing"):
        detc.pipeline("caffe2", postprocess=True)


# Single ops


def _graph(*shape: int) -> tuple[Graph, Builder]:
    graph = Graph("test", "flat")
    graph.add_input("x", TensorType(torch.float32, (symbol("N"), *shape)))
    return graph, Builder(graph, source="head", created_by="test")


def test_unsupported_ops_are_all_reported() -> None:
    graph, b = _graph(4, 8, 8)
    x = graph.input("x")
    y = b.aten.max_pool2d(x, kernel_size=(2, 2), stride=(2, 2), ceil_mode=True)
    graph.set_outputs({"y": b.aten.sort(b.aten.cumsum(y, dim=0))[0]})
    with pytest.raises(UnsupportedError) as caught:
        Pipeline([LowerToCaffe2()]).run(graph)
    text = str(caught.value)
    assert "3 ops have no lowering to caffe2" in text
    for part in (
        "aten.max_pool2d at head: ",
        "ceil_mode",
        "aten.cumsum at head: no rule",
        "aten.sort at head",
    ):
        assert part in text


def test_other_dense_detectors_than_retinanets_are_refused() -> None:
    with pytest.raises(
        UnsupportedError, match="Caffe2's clients know the outputs of R-CNNs and RetinaNets only"
    ):
        caffe2_pipeline().run(detc.capture(make_fcos()))


def test_deformable_convolutions_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="13 ops have no lowering to caffe2") as caught:
        lowered("mask_rcnn_R_50_FPN_dconv")
    line = "torchvision.deform_conv2d at backbone.bottom_up.res3.0.conv2: Caffe2 has its DeformConv for GPUs only"
    assert line in str(caught.value)


CASES = {
    "conv": lambda b, x: b.aten.conv2d(
        x, b.constant(torch.randn(6, 2, 3, 3)), stride=(2, 1), padding=(1, 0), groups=2
    ),
    "deconv": lambda b, x: b.aten.conv_transpose2d.input(
        x, b.constant(torch.randn(4, 3, 3, 3)), stride=(2, 2), padding=(1, 1), output_padding=(1, 1)
    ),
    "max_pool": lambda b, x: b.aten.max_pool2d(x, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1)),
    "avg_pool": lambda b, x: b.aten.avg_pool2d(x, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1)),
    "global": lambda b, x: b.aten.adaptive_avg_pool2d(x, output_size=(1, 1)),
    "upsample": lambda b, x: b.aten.upsample_nearest2d.vec(x, scale_factors=(2.0, 2.0)),
    "bilinear": lambda b, x: b.aten.upsample_bilinear2d.vec(
        b.aten.upsample_bilinear2d.vec(x, align_corners=False, scale_factors=(2.0, 3.0)),
        align_corners=False,
        scale_factors=(4.0, 1.0),
    ),
    "bilinear, corners": lambda b, x: b.aten.upsample_bilinear2d.vec(
        x, align_corners=True, scale_factors=(2.0, 3.0)
    ),
    "linear": lambda b, x: b.aten.linear(x, b.constant(torch.randn(3, 8))),
    "flat": lambda b, x: b.aten.linear(
        b.aten.flatten.using_ints(x, start_dim=1), b.constant(torch.randn(3, 256)), b.constant(torch.randn(3))
    ),
    "batch_norm": lambda b, x: b.aten.batch_norm(
        x,
        b.constant(torch.randn(4)),
        b.constant(torch.randn(4)),
        b.constant(torch.randn(4)),
        b.constant(torch.rand(4) + 1),
        training=False,
        momentum=0.1,
        eps=1e-3,
        cudnn_enabled=False,
    ),
    "group_norm": lambda b, x: b.aten.group_norm(x, num_groups=2),
    "softmax": lambda b, x: b.aten.softmax.int(x, dim=-1),
    "arithmetic": lambda b, x: b.aten.sub.Tensor(b.aten.mul.Tensor(x, x), b.aten.div.Tensor(x, other=3.0)),
    "activations": lambda b, x: b.aten.clamp(
        b.aten.elu(b.aten.leaky_relu(b.aten.tanh(x), negative_slope=0.2)), min=-0.5
    ),
    "shapes": lambda b, x: b.aten.squeeze.dim(
        b.aten.permute(b.aten.unsqueeze(b.aten.reshape(x, shape=(-1, 4, 64)), dim=1), dims=(0, 1, 3, 2)),
        dim=1,
    ),
    "cat": lambda b, x: b.aten.cat([x, b.aten.relu(x)], dim=1),
    "mean": lambda b, x: b.aten.mean.dim(x, dim=(2, 3), keepdim=True),
}


@pytest.mark.parametrize("case", CASES)
def test_ops_mean_the_same(case: str) -> None:
    torch.manual_seed(0)
    graph, b = _graph(4, 8, 8)
    graph.set_outputs({"y": CASES[case](b, graph.input("x"))})
    inputs = {"x": torch.randn(2, 4, 8, 8)}
    expected = detc.ir.run(graph, inputs)["y"]
    result = Pipeline([LowerToCaffe2()]).run(graph)
    torch.testing.assert_close(detc.ir.run(result, inputs)["y"], expected, rtol=1e-5, atol=1e-5)
    nets = emit(result)
    types = {"x": TensorType(torch.float32, (symbol("N"), 4, 8, 8))}
    again = load_nets(nets.predict_net, nets.init_net, inputs=types)
    torch.testing.assert_close(detc.ir.run(again, inputs)["y"], expected, rtol=1e-5, atol=1e-5)


# Watching the pipeline


@dataclass(frozen=True)
class MoveBox(detc.Pass):
    """Spoils one result of a lowered net."""

    def apply(self, graph: Graph, context: detc.passes.Context) -> bool:
        node = next(node for node in graph if node.op.name == "caffe2.BBoxTransform")
        node.attributes["weights"] = (10.0, 10.0, 5.0, 4.5)
        return True


def test_numerics_are_checked_after_each_pass() -> None:
    """Detections that come by class are compared as detections, with no batch_index for one image."""
    name = "mask_rcnn_R_50_FPN"
    graph, passes = captured(name), caffe2_pipeline()
    check = detc.CheckNumerics(batch_images(zoo.single_input(1), 32))
    passes.run(graph, observers=[check])
    assert [report.name for report in check.reports] == [item.name for item in passes]
    assert set(check.reports[-1].differences) == {"bbox_nms", "score_nms", "class_nms", "mask_fcn_probs"}
    passes.append(MoveBox())
    with pytest.raises(detc.passes.DivergenceError, match="after the pass move-box the output 'bbox_nms'"):
        passes.run(graph, observers=[detc.CheckNumerics(batch_images(zoo.single_input(1), 32))])
