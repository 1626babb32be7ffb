"""`Caffe2Model`: nets of any origin called as the detector was."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import detc
from detc.backends.arrays import batch_images
from detc.backends.caffe2 import Caffe2Runtime
from detc.backends.caffe2.arguments import make_operator, set_argument
from detc.backends.caffe2.blobs import ASSEMBLERS
from detc.backends.caffe2.proto import NetDef
from detc.backends.caffe2.read import read_net
from detc.export import Caffe2Model
from detc.ir import InputError, UnsupportedError
from tests import zoo
from tests.parity import assert_detections_match, detections

from .zoo import NETS, ZOO

BOXES = ("pred_boxes", "scores", "pred_classes")


@functools.cache
def original(name: str) -> Caffe2Model:
    return Caffe2Model.load_protobuf(ZOO / name / "caffe2_original")


def _only(fields: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: fields[name] for name in names}


# Scene 3 is padded to the divisibility, which the original does before it normalizes, unlike the model.
@pytest.mark.parametrize("scene", [1, 5])
@pytest.mark.parametrize("name", NETS)
def test_original_nets_give_the_models_detections(name: str, scene: int) -> None:
    found = original(name)(zoo.single_input(scene))[0]["instances"].get_fields()
    wanted = zoo.golden(name).under(f"image{scene}/output/instances")
    if "pred_keypoints" in found:
        # The original resizes heatmaps with a deconvolution, which moves their maxima.
        assert found["pred_keypoints"].shape == wanted["pred_keypoints"].shape
        found, wanted = _only(found, BOXES), _only(wanted, BOXES)
    assert_detections_match(detections(found), detections(wanted), thresholds=(0.05,))


def test_a_net_for_one_image_takes_batches() -> None:
    model = original("mask_rcnn_R_50_FPN")
    (first,) = zoo.single_input(1)
    batch = [first, {**first, "image": first["image"].flip(2)}, first]
    for given, found in zip(batch, model(batch), strict=True):
        alone = model([given])[0]["instances"]
        assert_detections_match(detections(found["instances"]), detections(alone))


def _assembled(model: Caffe2Model, blobs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    kind = model.graph.metadata["meta_architecture"]
    assemble = ASSEMBLERS[kind](Caffe2Runtime(model.graph), "the net")
    return assemble({name: torch.as_tensor(np.asarray(value)) for name, value in blobs.items()}, 1)


def test_keypoints_of_heatmaps() -> None:
    raw = zoo.golden("keypoint_rcnn_R_50_FPN").under("image0/raw")
    blobs = {"bbox_nms": raw["pred_boxes"], "score_nms": raw["scores"], "class_nms": raw["pred_classes"]}
    found = _assembled(
        original("keypoint_rcnn_R_50_FPN"), {**blobs, "kps_score": raw["pred_keypoint_heatmaps"]}
    )
    torch.testing.assert_close(found["keypoints"], torch.as_tensor(np.asarray(raw["pred_keypoints"])))


@pytest.mark.parametrize(("softmax", "score"), [(1, 3), (0, 2)])
def test_keypoints_found_by_the_net(softmax: int, score: int) -> None:
    folder = ZOO / "keypoint_rcnn_R_50_FPN" / "caffe2_original"
    net = read_net(folder / "model.pb")
    arguments = {"should_output_softmax": softmax}
    net.op.append(
        make_operator("HeatmapMaxKeypoint", ["kps_score", "bbox_nms"], ["keypoints_out"], arguments)
    )
    net.external_output.append("keypoints_out")
    model = Caffe2Model(net, read_net(folder / "model_init.pb"))
    inputs = zoo.single_input(0)
    made = batch_images(inputs, 32)
    feed = {name: made[name] for name in ("data", "im_info")}
    raw = model.runtime.net.run(feed)
    found = model.runtime.run(feed)["keypoints"]
    order = torch.argsort(torch.tensor(raw["score_nms"]), descending=True, stable=True)
    wanted = torch.tensor(raw["keypoints_out"])[order]
    torch.testing.assert_close(found, torch.stack((wanted[:, 0], wanted[:, 1], wanted[:, score]), dim=-1))
    # The size of the output moves them as it moves the boxes.
    keypoints = model(inputs)[0]["instances"].pred_keypoints
    scale = torch.tensor(
        [inputs[0]["width"] / feed["im_info"][0, 1], inputs[0]["height"] / feed["im_info"][0, 0]]
    )
    torch.testing.assert_close(keypoints[..., :2], found[..., :2] * scale)


def test_masks_of_one_class_for_all() -> None:
    blobs = {"bbox_nms": np.zeros((2, 4)), "score_nms": np.zeros(2), "class_nms": np.array([2.0, 1.0])}
    masks = np.random.default_rng(0).random((2, 1, 4, 4))
    found = _assembled(original("mask_rcnn_R_50_FPN"), {**blobs, "mask_fcn_probs": masks})
    np.testing.assert_array_equal(found["masks"], masks)


def test_it_is_a_module_in_eval_mode() -> None:
    model = original("faster_rcnn_R_50_FPN")
    assert isinstance(model, nn.Module)
    assert not model.training
    assert not model.eval().training
    assert repr(model) == "Caffe2Model(GeneralizedRCNN, 181 operators)"


def test_saved_and_loaded_again(tmp_path: Path) -> None:
    model = original("retinanet_R_50_FPN")
    model.save_protobuf(tmp_path / "deep" / "net")
    again = Caffe2Model.load_protobuf(tmp_path / "deep" / "net")
    assert again.predict_net == model.predict_net
    assert again.init_net == model.init_net
    again = Caffe2Model(model.predict_net.SerializeToString(), model.init_net.SerializeToString())
    assert again.predict_net == model.predict_net


def test_messages_of_another_protobuf_library() -> None:
    class Foreign:
        def __init__(self, net: NetDef) -> None:
            self.net = net

        def SerializeToString(self) -> bytes:
            return self.net.SerializeToString()

    model = original("faster_rcnn_R_50_FPN")
    again = Caffe2Model(Foreign(model.predict_net), Foreign(model.init_net))
    assert again.predict_net == model.predict_net
    with pytest.raises(InputError, match="not NoneType"):
        Caffe2Model(None, None)


def _retinanet(**arguments: Any) -> Caffe2Model:
    """The original RetinaNet with some arguments of the net replaced, or, for None, left out."""
    model = original("retinanet_R_50_FPN")
    net = NetDef.FromString(model.predict_net.SerializeToString())
    for name, value in arguments.items():
        kept = [argument for argument in net.arg if argument.name != name]
        del net.arg[:]
        net.arg.extend(kept)
        if value is not None:
            set_argument(net.arg.add(), name, value)
    return Caffe2Model(net, model.init_net)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"serialized_anchor_generator": None}, "lacks an argument .*anchor_strides"),
        ({"score_threshold": None}, "lacks an argument .*score_threshold"),
        ({"bbox_reg_weights": [1.0, 2.0]}, "no usable settings"),
        ({"topk_candidates": -1}, "no usable settings"),
        ({"topk_candidates": "many"}, "lacks an argument"),
        (
            {"meta_architecture": "GeneralizedRCNN"},
            "is no GeneralizedRCNN .* lacks bbox_nms, score_nms, class_nms",
        ),
        ({"meta_architecture": "YOLO"}, "is a YOLO; detections are made of GeneralizedRCNN, RetinaNet, "),
    ],
)
def test_nets_without_detections(arguments: dict[str, Any], match: str) -> None:
    model = _retinanet(**arguments)
    with pytest.raises(InputError, match=match):
        model(zoo.single_input(1))


def test_anchors_of_another_number_than_the_logits() -> None:
    model = _retinanet(
        serialized_anchor_generator=None,
        anchor_strides=[8],
        anchor_offset=0.0,
        anchors_0=[0.0, 0.0, 8.0, 8.0] * 7,
    )
    with pytest.raises(InputError, match="7 anchors per cell of level 0"):
        model(zoo.single_input(1))


def test_a_folder_that_gives_no_detections_is_refused_when_loaded(tmp_path: Path) -> None:
    _retinanet(meta_architecture="YOLO").save_protobuf(tmp_path)
    with pytest.raises(InputError, match=f"{tmp_path} is a YOLO"):
        detc.load_artifact(tmp_path)


def test_inputs_that_are_no_images() -> None:
    model = original("faster_rcnn_R_50_FPN")
    for inputs, match in (
        ([], "no image"),
        ([{}], r'"image" must be a tensor'),
        ([{"image": torch.zeros(32, 32)}], r"not \[32, 32\]"),
        ([{"image": torch.zeros(5, 32, 32)}], r"caffe2.Sub \(which makes .*\): operands \[1, 5, 32, 32\]"),
    ):
        with pytest.raises(InputError, match=match):
            model(inputs)


def test_unknown_operators_are_all_listed(tmp_path: Path) -> None:
    net = NetDef(name="net", external_input=["data"], external_output=["y"])
    net.op.extend([make_operator("Swish", ["data"], ["x"]), make_operator("Int8Relu", ["x"], ["y"])])
    (tmp_path / "model.pb").write_bytes(net.SerializeToString())
    (tmp_path / "model_init.pb").write_bytes(NetDef(name="init").SerializeToString())
    with pytest.raises(UnsupportedError, match=r"Swish \(unknown\)(.|\n)*Int8Relu \(quantized\)"):
        Caffe2Model.load_protobuf(tmp_path)
