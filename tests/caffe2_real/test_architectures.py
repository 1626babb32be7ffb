"""Every architecture's net in the real Caffe2, followed by what `Caffe2Model` makes of its blobs: detectron2's results."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from typing_extensions import override

from detc.backends.caffe2 import Caffe2Runtime, emit
from detc.backends.caffe2.blobs import Caffe2Detections
from detc.backends.detector import Detector
from detc.export import Caffe2Tracer
from detc.frontend.detectron2 import load_config
from detc.ir import Graph
from tests import zoo
from tests.caffe2.compiled import lowered
from tests.caffe2.outputs import assert_same_outputs
from tests.models import loaded
from tests.outputs import compare_output, compare_segmentations
from tests.parity import detections, match_detections

from .client import RealCaffe2

MODELS = (
    "cascade_mask_rcnn_R_50_FPN",
    "faster_rcnn_R_50_C4",
    "faster_rcnn_R_50_DC5",
    "keypoint_rcnn_R_50_FPN",
    "mask_rcnn_R_50_C4",
    "mask_rcnn_X_FPN_gn",
    "panoptic_fpn_R_50",
    "pointrend_rcnn_R_50_FPN",
    "retinanet_R_50_FPN",
    "rotated_faster_rcnn_R_50_FPN",
    "rpn_R_50_FPN",
    "semantic_R_50_FPN",
)


class RealRuntime(Caffe2Runtime):
    """A net in the real Caffe2, in the interpreter's place. What they give is compared each time."""

    def __init__(self, graph: Graph, real: RealCaffe2) -> None:
        super().__init__(graph)
        self._nets, self._real = emit(graph), real

    @override
    def run(self, inputs: Mapping[str, np.ndarray | torch.Tensor]) -> dict[str, np.ndarray]:
        given = {name: np.asarray(value) for name, value in inputs.items()}
        outputs = self._real.run(self._nets.predict_net, given, init=self._nets.init_net)
        assert list(outputs) == list(self._nets.predict_net.external_output)
        assert_same_outputs(super().run(inputs), outputs)
        return outputs


def in_real_caffe2(graph: Graph, real: RealCaffe2) -> Detector:
    return Detector(Caffe2Detections(RealRuntime(graph, real)))


@pytest.mark.parametrize("name", MODELS)
def test_single_images(real: RealCaffe2, name: str) -> None:
    detector = in_real_caffe2(lowered(name), real)
    for scene in (0, 3, 5):
        (output,) = detector(zoo.single_input(scene))
        compare_output(name, f"image{scene}/output", output)


@pytest.mark.parametrize("name", MODELS)
def test_three_images_two_at_once(real: RealCaffe2, name: str) -> None:
    """Images of unlike sizes, one without an object; the second run is filled up with a copy."""
    found = in_real_caffe2(lowered(name, 2), real)(zoo.batch_input())
    for place, output in enumerate(found):
        if name in zoo.BATCH_MODELS:
            compare_output(name, f"batch/{place}/output", output)
    compare_segmentations(found, loaded(name)(zoo.batch_input()))


def test_keypoints_found_in_the_net(real: RealCaffe2) -> None:
    name = "keypoint_rcnn_R_50_FPN"
    cfg = {**load_config(zoo.config_path(name)), "EXPORT_CAFFE2": {"USE_HEATMAP_MAX_KEYPOINT": True}}
    graph = Caffe2Tracer(cfg, loaded(name)).export_caffe2().graph
    net = RealRuntime(graph, real)
    assert list(graph.outputs) == ["bbox_nms", "score_nms", "class_nms", "keypoints_out"]
    detector = Detector(Caffe2Detections(net))
    for scene in (0, 5):
        (output,) = detector(zoo.single_input(scene))
        found = detections(output["instances"])
        wanted = detections(zoo.golden(name).under(f"image{scene}/output/instances"))
        pairs = match_detections(found, wanted, thresholds=(0.05,))
        # A parabola through three cells of the heatmap is not its bicubic interpolation.
        ours, theirs = ([row[i] for row in pairs] for i in (0, 1))
        distance = np.abs(found["keypoints"][ours][..., :2] - wanted["keypoints"][theirs][..., :2]).max(-1)
        # Nor need it choose the same of two equal peaks.
        assert (distance <= 1.5).sum() >= 0.95 * distance.size
