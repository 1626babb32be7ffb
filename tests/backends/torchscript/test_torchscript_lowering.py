"""Each det op's lowering to torch's operators against the op's own body: in the interpreter, and in TorchScript."""

from __future__ import annotations

import pytest
import torch

from detc.backends.torchscript import TorchScriptRuntime, emit
from detc.backends.torchscript.lower import KEPT, LowerToTorchScript
from detc.ir import run
from detc.passes import Decompose, Pipeline
from tests.backends.onnx import test_det_dense, test_det_lowering, test_det_rotated
from tests.backends.onnx.det_case import assert_same

CASES = {
    **test_det_lowering.CASES,
    **test_det_dense.CASES,
    **{f"rotated-{name}": case for name, case in test_det_rotated.CASES.items()},
    "rotated-rpn-grid": lambda: test_det_rotated.rpn("grid"),
    "rotated-rpn-dense": lambda: test_det_rotated.rpn("dense"),
}


@pytest.mark.parametrize("name", CASES)
def test_lowering_agrees_with_the_body(name):
    torch.manual_seed(7)
    case = CASES[name]()
    graph = case.graph()
    lowered = Pipeline([Decompose(kept=KEPT), LowerToTorchScript()]).run(graph)
    module = TorchScriptRuntime(emit(lowered))
    for number, inputs in enumerate(case.runs):
        expected = run(graph, inputs)
        assert_same(expected, run(lowered, inputs), f"interpreter, inputs {number}")
        assert_same(expected, module.run(inputs), f"TorchScript, inputs {number}")
