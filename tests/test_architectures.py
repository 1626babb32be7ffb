"""Architectures beyond Faster and Mask R-CNN with an FPN: compiled to ONNX, they give what detectron2 gave."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import detc
from detc.frontend import Capture
from detc.frontend.importers.rpn import rpn
from detc.frontend.structures import Instances
from detc.ir.dialects.instances import InstancesBatch
from tests import zoo
from tests.backends.onnx.lowering import compile_openvino
from tests.outputs import captured_outputs, compare_output, compare_segmentations
from tests.parity import assert_detections_match, detections
from tests.test_truth import feed

MODELS = (
    "cascade_mask_rcnn_R_50_FPN",
    "faster_rcnn_R_50_C4",
    "faster_rcnn_R_50_DC5",
    "keypoint_rcnn_R_50_FPN",
    "mask_rcnn_R_50_C4",
    "mask_rcnn_R_50_FPN_dconv",
    "mask_rcnn_X_FPN_gn",
    "retinanet_R_50_FPN",
    "rpn_R_50_FPN",
)
STEPPED = ("keypoint_rcnn_R_50_FPN", "retinanet_R_50_FPN", "rpn_R_50_FPN")
"""Those with ops of their own: compared after every pass, and in OpenVINO too."""


def assert_matches(name: str, found: Instances, golden: str, limit: int, what: str) -> None:
    """`golden` is the path of an image's results in the golden file."""
    kept = zoo.golden(name).under(golden)
    wanted = detections({key: value for key, value in kept.items() if key != "pred_keypoint_heatmaps"})
    assert_detections_match(detections(found), wanted, what=what, thresholds=(0.05,), limit=limit)


@pytest.mark.parametrize("name", MODELS)
def test_onnx(name, compiled):
    artifact = compiled(name, postprocess=True, masks="pasted")
    limit = artifact.metadata["detections_per_image"]
    for scene in (0, 3, 5):
        ((output, found),) = artifact(zoo.single_input(scene))[0].items()
        assert_matches(name, found, f"image{scene}/output/{output}", limit, f"scene {scene}")
    for place, result in enumerate(artifact(zoo.batch_input())):
        found = result[output]
        assert_matches(name, found, f"batch/{place}/output/{output}", limit, f"batch, image {place}")


@pytest.mark.parametrize("name", STEPPED)
def test_every_pass_and_both_runtimes(name, loaded):
    """The graph after each pass, and the file in onnxruntime and OpenVINO, agree with detectron2; so do raw results."""
    graph = detc.capture(loaded(name))
    limit = graph.metadata["detections_per_image"]
    output = next(iter(graph.outputs))
    check = detc.CheckNumerics([feed(graph, zoo.single_input(3)), feed(graph, zoo.batch_input())])
    artifact = detc.emit(detc.pipeline("onnx", postprocess=True).run(graph, observers=[check]))
    program = compile_openvino(artifact.model.to_bytes())
    names = artifact.metadata["instances"][output]

    def split(outputs: Any, images: int) -> list[dict[str, torch.Tensor]]:
        return InstancesBatch({f: torch.as_tensor(outputs[n]) for f, n in names.items()}).split(images)

    for scene in (1, 3, 5):
        inputs = feed(artifact.graph, zoo.single_input(scene))
        for runtime, outputs in (
            ("onnxruntime", artifact.runtime.run(inputs)),
            ("openvino", program({key: value.numpy() for key, value in inputs.items()})),
        ):
            assert_matches(name, split(outputs, 1)[0], f"image{scene}/output/{output}", limit, runtime)
    inputs = feed(artifact.graph, zoo.batch_input())
    in_openvino = split(program({key: value.numpy() for key, value in inputs.items()}), 3)
    for place, found in enumerate(split(artifact.runtime.run(inputs), 3)):
        wanted = detections(found)
        assert_detections_match(
            detections(in_openvino[place]), wanted, what="batch", thresholds=(0.05,), limit=limit
        )
    raw = detc.emit(detc.pipeline("onnx").run(graph))
    assert_matches(name, raw(zoo.single_input(4))[0][output], f"image4/output/{output}", limit, "raw")


CAPTURED = (
    "panoptic_fpn_R_50",
    "pointrend_rcnn_R_50_FPN",
    "rotated_faster_rcnn_R_50_FPN",
    "semantic_R_50_FPN",
)


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
