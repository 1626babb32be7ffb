"""Each det op's lowering to torch's operators against the op's own body: in the interpreter, and in TorchScript."""

from __future__ import annotations

import pytest
import torch

from detc.backends.torchscript import TorchScriptRuntime, emit
from detc.backends.torchscript.lower import LOWERED, LowerToTorchScript
from detc.ir import registered_ops, run, verify
from detc.passes.base import Context
from tests.backends.onnx import test_det_dense, test_det_lowering
from tests.backends.onnx.det_case import assert_same

CASES = {**test_det_lowering.CASES, **test_det_dense.CASES}

NOT_YET = {
    *("det.box_point_sample", "det.point_sample", "det.put_points", "det.uncertain_points"),
    *("det.class_logits", "det.keypoint_inference", "det.rescale_keypoints"),
    *("det.panoptic_combine", "det.sem_seg_postprocess"),
    *("det.rotated_anchors", "det.rotated_apply_deltas", "det.rotated_box_inference", "det.rotated_nonempty"),
    *(
        "det.rotated_grid_proposals",
        "det.rotated_rescale_boxes",
        "det.rotated_roi_pool",
        "det.rotated_rpn_proposals",
    ),
}


@pytest.mark.parametrize(
    "name", [n for n, c in CASES.items() if not NOT_YET & {x.op.name for x in c().graph()}]
)
def test_lowering_agrees_with_the_body(name):
    torch.manual_seed(7)
    case = CASES[name]()
    graph = case.graph()
    lowered = graph.clone()
    LowerToTorchScript().apply(lowered, Context("lower-to-torch-script"))
    verify(lowered)
    module = TorchScriptRuntime(emit(lowered))
    for number, inputs in enumerate(case.runs):
        expected = run(graph, inputs)
        assert_same(expected, run(lowered, inputs), f"interpreter, inputs {number}")
        assert_same(expected, module.run(inputs), f"TorchScript, inputs {number}")


def test_every_op_of_a_detector_has_a_rule():
    flat = {op.name for op in registered_ops() if op.dialect == "det"} - {"det.postprocess"}
    assert flat - NOT_YET == set(LOWERED)
