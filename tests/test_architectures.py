"""Architectures beyond Faster and Mask R-CNN with an FPN: compiled to ONNX, they give what detectron2 gave."""

from __future__ import annotations

import pytest
from torch import nn

import detc
from detc.frontend import Capture
from detc.frontend.importers.rpn import rpn
from tests import zoo
from tests.outputs import captured_outputs, compare_output, compare_segmentations
from tests.parity import assert_detections_match, detections

MODELS = (
    "cascade_mask_rcnn_R_50_FPN",
    "faster_rcnn_R_50_C4",
    "faster_rcnn_R_50_DC5",
    "mask_rcnn_R_50_C4",
    "mask_rcnn_R_50_FPN_dconv",
    "mask_rcnn_X_FPN_gn",
)


@pytest.mark.parametrize("name", MODELS)
def test_onnx(name, compiled):
    artifact, golden = compiled(name, postprocess=True, masks="pasted"), zoo.golden(name)
    for scene in (0, 3, 5):
        found = detections(artifact(zoo.single_input(scene))[0]["instances"])
        wanted = detections(golden.under(f"image{scene}/output/instances"))
        assert_detections_match(found, wanted, what=f"scene {scene}", thresholds=(0.05,))
    for place, result in enumerate(artifact(zoo.batch_input())):
        found = detections(result["instances"])
        wanted = detections(golden.under(f"batch/{place}/output/instances"))
        assert_detections_match(found, wanted, what=f"batch, image {place}", thresholds=(0.05,))


CAPTURED = ("panoptic_fpn_R_50", "pointrend_rcnn_R_50_FPN", "semantic_R_50_FPN")


@pytest.mark.parametrize("name", CAPTURED)
def test_captured_graph(name, loaded):
    graph = detc.capture(loaded(name))
    for scene in (0, 3, 5):
        (found,) = captured_outputs(graph, zoo.single_input(scene))
        compare_output(name, f"image{scene}/output", found)
    batch = captured_outputs(graph, zoo.batch_input())
    for place, found in enumerate(batch):
        if name in zoo.BATCH_MODELS:
            compare_output(name, f"batch/{place}/output", found)
    compare_segmentations(batch, loaded(name)(zoo.batch_input()))


UNSUPPORTED = {
    "keypoint_rcnn_R_50_FPN": "roi_heads: keypoint heads are not supported",
    "retinanet_R_50_FPN": "RetinaNet is no meta-architecture with an importer",
    "rotated_faster_rcnn_R_50_FPN": r"RRPN overrides RPN\.predict_proposals",
    "rpn_R_50_FPN": "ProposalNetwork is no meta-architecture with an importer",
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_not_captured_is_named(name, loaded):
    with pytest.raises(detc.UnsupportedError, match=UNSUPPORTED[name]):
        detc.capture(loaded(name))


def test_a_subclass_that_overrides_needs_an_importer_of_its_own(loaded):
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

    assert len(detc.capture(model)) == len(detc.capture(loaded("faster_rcnn_R_50_FPN")))
