"""Architectures beyond Faster and Mask R-CNN with an FPN: compiled to ONNX and TorchScript, they give what detectron2 gave."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import detc
from detc.backends.onnx import OpenVinoModel
from detc.frontend import Capture
from detc.frontend.importers.rpn import rpn
from detc.ir.structures import Boxes, Instances
from tests import zoo
from tests.outputs import captured_outputs, compare_output, compare_segmentations
from tests.test_truth import feed, run_without_detc

MODELS = (
    "cascade_mask_rcnn_R_50_FPN",
    "faster_rcnn_R_50_C4",
    "faster_rcnn_R_50_DC5",
    "keypoint_rcnn_R_50_FPN",
    "mask_rcnn_R_50_C4",
    "mask_rcnn_R_50_FPN_dconv",
    "mask_rcnn_X_FPN_gn",
    "panoptic_fpn_R_50",
    "pointrend_rcnn_R_50_FPN",
    "retinanet_R_50_FPN",
    "rotated_faster_rcnn_R_50_FPN",
    "rpn_R_50_FPN",
    "semantic_R_50_FPN",
)
SEGMENTING = ("panoptic_fpn_R_50", "pointrend_rcnn_R_50_FPN", "semantic_R_50_FPN")
STEPPED = (
    "keypoint_rcnn_R_50_FPN",
    "retinanet_R_50_FPN",
    "rotated_faster_rcnn_R_50_FPN",
    "rpn_R_50_FPN",
    *SEGMENTING,
)
"""Those with ops of their own: compared after every pass, and in OpenVINO too."""
WITH_LOOPS = {
    "keypoint_rcnn_R_50_FPN": r"keypoint_inference at roi_heads",
    "panoptic_fpn_R_50": r"sem_seg_postprocess at .*, panoptic_combine at ",
    "rotated_faster_rcnn_R_50_FPN": r"nms_rotated_by_group at proposal_generator",
    "semantic_R_50_FPN": r"sem_seg_postprocess at ",
}
"""Those in whose TorchScript files functions of detc's stand -> which of them."""


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("target", ["onnx", "torchscript"])
def test_compiled(target, name, compiled, loaded):
    artifact = compiled(name, target=target, postprocess=True, masks="pasted")
    assert_gives_what_detectron2_gave(name, artifact, loaded(name))


@pytest.mark.parametrize("name", STEPPED)
def test_every_pass_and_both_runtimes(name, captured, compiled, loaded):
    """The graph after each pass, and the file in onnxruntime and OpenVINO, agree with detectron2; so do raw results."""
    graph = captured(name)
    check = detc.CheckNumerics([feed(graph, zoo.single_input(3)), feed(graph, zoo.batch_input())])
    artifact = detc.emit(detc.pipeline("onnx", postprocess=True).run(graph, observers=[check]))
    for detector in (artifact, detc.Detector(OpenVinoModel(artifact.model.to_bytes(), threads=2))):
        assert_gives_what_detectron2_gave(name, detector, loaded(name))
    assert_gives_what_detectron2_gave(name, compiled(name), loaded(name))


def assert_gives_what_detectron2_gave(name: str, detector: detc.Detector, model: nn.Module) -> None:
    """For images of several sizes, one of them odd, one with nothing in it, and a batch of unlike ones."""
    for scene in (0, 3, 5):
        compare_output(name, f"image{scene}/output", detector(zoo.single_input(scene))[0])
    batch = detector(zoo.batch_input())
    if name in zoo.BATCH_MODELS:
        for place, found in enumerate(batch):
            compare_output(name, f"batch/{place}/output", found)
    if name in SEGMENTING:
        # The goldens hold no segmentations of batches.
        compare_segmentations(batch, model(zoo.batch_input()))


@pytest.mark.parametrize(
    "name", ["keypoint_rcnn_R_50_FPN", "panoptic_fpn_R_50", "rotated_faster_rcnn_R_50_FPN"]
)
def test_torchscript_raw(name, compiled, loaded):
    """What is left to the caller is done with what the file gives."""
    artifact = compiled(name, target="torchscript")
    assert_gives_what_detectron2_gave(name, artifact, loaded(name))


def test_torchscript_brings_its_functions_along(compiled, tmp_path):
    """In a process that cannot import detc the files give the same: for one image, one of nothing, and a batch."""
    artifacts = {
        name: compiled(name, target="torchscript", postprocess=True, masks="pasted") for name in WITH_LOOPS
    }
    work = {}
    for name, artifact in artifacts.items():
        artifact.save(tmp_path / f"{name}.ts")
        inputs = (zoo.single_input(3), zoo.single_input(5), zoo.batch_input())
        work[name] = [feed(artifact.graph, given) for given in inputs]
    found = run_without_detc(tmp_path, work)
    for name, artifact in artifacts.items():
        for given, outputs in zip(work[name], found[name], strict=True):
            for key, value in artifact.runtime.run(given).items():
                torch.testing.assert_close(outputs[key], value, msg=lambda m, k=key, n=name: f"{n}: {k}: {m}")


def test_half_precision(loaded, compiled):
    """Between layers in float16, points and boxes are computed in float32: what is sure stays."""
    model = loaded("pointrend_rcnn_R_50_FPN")
    half = compiled("pointrend_rcnn_R_50_FPN", target="torchscript", dtype="float16", postprocess=True)
    for scene in (3, 5):
        found, wanted = (each(zoo.single_input(scene))[0]["instances"] for each in (half, model))
        mine, theirs = (each[each.scores > 0.6] for each in (found, wanted))
        assert sorted(mine.pred_classes.tolist()) == sorted(theirs.pred_classes.tolist())
        scores = [each.scores.sort()[0] for each in (mine, theirs)]
        torch.testing.assert_close(scores[0], scores[1], rtol=0, atol=0.005)


@pytest.mark.parametrize("name", WITH_LOOPS)
def test_exported_programs_have_no_loops(name, compiled):
    lowered = compiled(name, target="torchscript", postprocess=True, masks="pasted").graph
    with pytest.raises(detc.UnsupportedError, match=f"no loops .*{WITH_LOOPS[name]}.*--target torchscript"):
        detc.emit(lowered, "torch-export")


@pytest.mark.parametrize("name", ["semantic_R_50_FPN"])
def test_exported_program(name, compiled, loaded):
    """From what TorchScript's raw files are made of."""
    lowered = compiled(name, target="torchscript").graph
    assert_gives_what_detectron2_gave(name, detc.emit(lowered, "torch-export"), loaded(name))


CAPTURED = (
    "keypoint_rcnn_R_50_FPN",
    "panoptic_fpn_R_50",
    "pointrend_rcnn_R_50_FPN",
    "rotated_faster_rcnn_R_50_FPN",
    "semantic_R_50_FPN",
)


@pytest.mark.parametrize("name", CAPTURED)
def test_captured_graph(name, captured, loaded):
    graph = captured(name)
    for scene in (0, 3, 5):
        (found,) = captured_outputs(graph, zoo.single_input(scene))
        compare_output(name, f"image{scene}/output", found)
    batch = captured_outputs(graph, zoo.batch_input())
    for place, found in enumerate(batch):
        if name in zoo.BATCH_MODELS:
            compare_output(name, f"batch/{place}/output", found)
    if name in SEGMENTING:
        compare_segmentations(batch, loaded(name)(zoo.batch_input()))


def test_a_subclass_that_overrides_needs_an_importer_of_its_own(captured):
    """The error names the method, and `@detc.importer` mends it."""
    model = detc.load_model(zoo.config_path("faster_rcnn_R_50_FPN"), zoo.weights_path("faster_rcnn_R_50_FPN"))
    base = type(model.proposal_generator)

    class CountingRPN(base):  # type: ignore[valid-type, misc]
        def predict_proposals(self, *args: object) -> object:
            return super().predict_proposals(*args)

    model.proposal_generator.__class__ = CountingRPN
    with pytest.raises(detc.UnsupportedError, match=r"overrides RPN\.predict_proposals.*@detc\.importer"):
        detc.capture(model)

    @detc.importer(CountingRPN)
    def counting_rpn(capture: Capture, module: nn.Module, images: object, features: object) -> object:
        return rpn(capture, module, images, features)

    assert len(detc.capture(model)) == len(captured("faster_rcnn_R_50_FPN"))


def with_proposals(name: str, scene: int) -> dict[str, object]:
    """An input that brings the golden's proposals along."""
    (given,) = zoo.single_input(scene)
    proposals = Instances(tuple(given["image"].shape[1:]))
    proposals.set(
        "proposal_boxes", Boxes(torch.from_numpy(zoo.golden(name)[f"image{scene}/proposals/proposal_boxes"]))
    )
    return {**given, "proposals": proposals}


def test_fast_rcnn_takes_proposals_from_its_caller():
    """A model without a proposal generator (MODEL.PROPOSAL_GENERATOR.NAME: PrecomputedProposals)."""
    name = "mask_rcnn_R_50_FPN"
    model = detc.load_model(zoo.config_path(name), zoo.weights_path(name))
    model.proposal_generator = None
    graph = detc.capture(model)
    for target in ("onnx", "torchscript"):
        artifact = detc.emit(detc.pipeline(target, postprocess=True).run(graph))
        inputs = [with_proposals(name, scene) for scene in (0, 3, 5)]
        for scene, given in zip((0, 3, 5), inputs, strict=True):
            compare_output(name, f"image{scene}/output", artifact([given])[0])
        for found, expected in zip(artifact(inputs), model(inputs), strict=True):
            assert len(found["instances"]) == len(expected["instances"])
        with pytest.raises(
            detc.InputError, match=r'input 0: "proposals" must be Instances with proposal_boxes'
        ):
            artifact(zoo.single_input(0))
    with pytest.raises(
        detc.UnsupportedError, match="feed data and im_info, and the model takes proposal_boxes"
    ):
        detc.compile(model, "caffe2")
