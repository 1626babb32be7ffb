"""Components of one's own: the example, registering, and networks as users write them."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import detc
from detc.backends.onnx import OnnxRuntimeModel, OpenVinoModel, emit
from detc.backends.onnx.lower import LowerToOnnx
from detc.frontend.detectron2 import ShapeSpec, build_model
from detc.frontend.detectron2.register import REGISTRIES
from detc.ir import Builder, Graph, TensorType, run, symbol, verify
from detc.ir.tracing import trace
from detc.passes.core.base import Context
from tests.conftest import Shell
from tests.own_parts import BACKBONES, TokenBoxHead
from tests.test_cli import Command

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "custom_component.py"


def test_the_example_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, refused, last = done.stdout.splitlines()
    assert re.fullmatch(r"\d+ ONNX nodes; [1-9]\d* detections agree", first)
    assert re.search(r"GenerousRPN overrides RPN\.predict_proposals.*@detc\.importer\(GenerousRPN\)", refused)
    assert re.fullmatch(r"\d+ ONNX nodes; [1-9]\d* detections agree", last) and last != first
    assert list(tmp_path.iterdir()) == []


N, H, W, R = symbol("N"), symbol("H", 8), symbol("W", 8), symbol("R")
NETWORKS = {
    **{
        name: (make, (N, 3, H, W), [(1, 3, 64, 96), (3, 3, 96, 40), (2, 3, 56, 40)])
        for name, make in BACKBONES.items()
    },
    "box head": (lambda: TokenBoxHead(16, 7), (R, 16, 7, 7), [(5, 16, 7, 7), (1, 16, 7, 7), (0, 16, 7, 7)]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_in_ordinary_torch(name: str) -> None:
    """Traced once with symbolic sizes, it gives what it gave, at sizes of all kinds, in three runtimes."""
    make, shape, sizes = NETWORKS[name]
    torch.manual_seed(0)
    network = make().eval()
    graph = Graph("own", level="captured")
    x = graph.add_input("x", TensorType(torch.float32, shape))
    found = trace(Builder(graph), network, (x,), root=network, path="network")
    graph.set_outputs(found if isinstance(found, dict) else {"y": found})
    graph.prune_weights()
    verify(graph)
    lowered = graph.clone()
    LowerToOnnx().apply(lowered, Context("lower-to-onnx"))
    verify(lowered)
    content = emit(lowered).to_bytes()
    session, program = OnnxRuntimeModel(content), OpenVinoModel(content, threads=2)
    for size in sizes:
        image = torch.randn(size)
        with torch.no_grad():
            wanted = network(image)
        wanted = wanted if isinstance(wanted, dict) else {"y": wanted}
        runs = {"interpreter": run(graph, {"x": image}), "onnxruntime": session.run({"x": image})}
        runs["openvino"] = program.run({"x": image})
        for runtime, outputs in runs.items():
            for output, want in wanted.items():
                got = torch.as_tensor(outputs[output])
                torch.testing.assert_close(
                    got, want, rtol=1e-4, atol=1e-4, msg=lambda m, w=f"{runtime}, {size}": f"{w}: {m}"
                )


@contextmanager
def registering() -> Iterator[None]:
    """What is registered within is forgotten after it."""
    before = {key: dict(registry) for key, registry in REGISTRIES.items()}
    yield
    for key, registry in REGISTRIES.items():
        registry.clear()
        registry.update(before[key])


@pytest.fixture
def registries() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    with registering():
        yield


@pytest.mark.usefixtures("registries")
def test_the_commands_take_components(shell: Shell, detc_command: Command, tmp_path: Path) -> None:
    with registering():
        config = runpy.run_path(str(EXAMPLE))["CONFIG"]
        torch.save({"model": build_model(config).state_dict()}, tmp_path / "own.pth")
    (tmp_path / "own.yaml").write_text(json.dumps(config))
    options = ["--config", "own.yaml", "--weights", "own.pth"]
    status, _, err = shell("show", *options)
    assert status == 2
    assert 'A component of your own is registered with @detc.register("MODEL.BACKBONE.NAME")' in err
    status, out, err = shell("show", *options, "--component-file", EXAMPLE)
    assert (status, err) == (0, "")
    assert "# backbone.attention" in out
    done = detc_command("export", *options, "--component-file", EXAMPLE, "--output", "own.onnx")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "own.onnx").exists()
    status, _, err = shell("show", *options, "--component-file", "nothing.py")
    assert (status, err) == (2, "detc: error: there is no file nothing.py\n")


class PlainHead(nn.Module):
    def __init__(self, cfg: Any, input_shape: ShapeSpec) -> None:
        super().__init__()
        self.fc = nn.Linear(input_shape.channels or 0, 8)
        self.output_shape = ShapeSpec(channels=8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.mean(dim=(2, 3)))


@pytest.mark.usefixtures("registries")
def test_registering() -> None:
    assert detc.register("MODEL.ROI_BOX_HEAD.NAME")(PlainHead) is PlainHead
    detc.register("MODEL.ROI_BOX_HEAD.NAME")(PlainHead)  # again, as a notebook's cell is run again
    detc.register("MODEL.ROI_BOX_HEAD.NAME", "another")(lambda cfg, shape: PlainHead(cfg, shape))  # noqa: PLW0108
    assert REGISTRIES["MODEL.ROI_BOX_HEAD.NAME"]["PlainHead"] is PlainHead
    with pytest.raises(
        detc.InputError, match=r"no components are registered for 'MODEL.NECK'; there are MODEL"
    ):
        detc.register("MODEL.NECK")
    with pytest.raises(detc.InputError, match="'FastRCNNConvFCHead' is a component of detectron2's"):
        detc.register("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead")(PlainHead)
    config = {
        "MODEL": {
            "FPN": {"IN_FEATURES": ["res4", "res5"]},
            "RESNETS": {"OUT_FEATURES": ["res4", "res5"], "DEPTH": 18, "RES2_OUT_CHANNELS": 64},
            "BACKBONE": {"NAME": "build_resnet_fpn_backbone"},
            "RPN": {"IN_FEATURES": ["p4", "p5", "p6"]},
            "ANCHOR_GENERATOR": {"SIZES": [[32], [64], [128]]},
            "ROI_HEADS": {"NAME": "StandardROIHeads", "IN_FEATURES": ["p4", "p5"]},
            "ROI_BOX_HEAD": {"NAME": "another"},
        }
    }
    assert isinstance(build_model(config).roi_heads.box_head, PlainHead)
