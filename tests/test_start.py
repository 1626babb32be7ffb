"""What a command imports: no more than it uses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import detc
from detc.passes import save_graph
from tests import zoo

RUN = """
import json, sys
from detc.commands.main import main
try:
    status = main(sys.argv[1:])
except SystemExit as done:
    status = done.code
print(json.dumps(sorted(sys.modules)))
sys.exit(status)
"""
NAME = "mask_rcnn_R_50_FPN"
SLOW = {"torch", "torchvision", "sympy", "networkx", "onnx", "onnxruntime", "safetensors"}
MY_PASS = """
from dataclasses import dataclass
from detc import Graph, Pass
from detc.passes import Context
@dataclass(frozen=True)
class MyPass(Pass):
    '''Do nothing.'''
    def apply(self, graph: Graph, context: Context) -> bool:
        return False
"""


def run(folder: Path, *arguments: object) -> tuple[str, set[str]]:
    """What a command printed, and the modules that its process has imported when it has ended well."""
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed, _, modules = done.stdout.rstrip("\n").rpartition("\n")
    return printed, set(json.loads(modules))


def modules_of(folder: Path, *arguments: object) -> set[str]:
    return run(folder, *arguments)[1]


@pytest.fixture(scope="module")
def graph_file(tmp_path_factory: pytest.TempPathFactory, captured: Callable[[str], detc.Graph]) -> Path:
    path = tmp_path_factory.mktemp("ir") / "m.ir"
    save_graph(captured(NAME), path)
    return path


@pytest.mark.parametrize("command", ["", "export", "run", "show", "passes", "opt", "report", "analyze"])
def test_help_imports_nothing_slow(command: str, tmp_path: Path) -> None:
    modules = modules_of(tmp_path, *command.split(), "--help")
    assert not modules & {*SLOW, "numpy", "detc.passes", "detc.backends", "detc.frontend"}


def test_passes_are_listed_without_torch(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MY_PASS)
    printed, modules = run(tmp_path, "passes", "--pass-file", "mine.py")
    assert not modules & {*SLOW, "detc.frontend", "detc.passes.debug"}
    assert "my-pass" in printed
    for target in ("onnx", "torchscript", "caffe2"):
        assert all(item.name in printed for item in detc.pipeline(target))
    _, modules = run(tmp_path, "passes", "--explain", "fold-batch-norm")
    assert not modules & SLOW


def test_a_graph_is_read_without_what_makes_one(graph_file: Path, tmp_path: Path) -> None:
    unneeded = {"torchvision", "onnx", "onnxruntime", "detc.frontend", "detc.ir.tracing"}
    modules = modules_of(tmp_path, "analyze", graph_file)
    assert "torch" in modules and not modules & {*unneeded, "torch._dynamo", "sympy"}
    modules = modules_of(tmp_path, "opt", graph_file, "--passes", "dead-code", "-o", "out.ir")
    assert "torch" in modules and not modules & unneeded


def test_a_model_is_captured_without_targets(tmp_path: Path) -> None:
    modules = modules_of(
        tmp_path, "show", "--config", zoo.config_path(NAME), "--weights", zoo.weights_path(NAME)
    )
    assert "torch" in modules and "detc.frontend" in modules
    assert not modules & {"torchvision", "onnx", "onnxruntime", "detc.backends", "detc.passes.generic"}


def test_exports_load_the_target_alone(tmp_path: Path) -> None:
    arguments = ["--config", zoo.config_path(NAME), "--weights", zoo.weights_path(NAME)]
    modules = modules_of(tmp_path, "export", *arguments, "--output", "m.onnx")
    assert not modules & {"torchvision", "detc.backends.caffe2.lower.table", "detc.report"}


@pytest.mark.parametrize("name", [NAME, "panoptic_fpn_R_50", "rotated_faster_rcnn_R_50_FPN"])
@pytest.mark.parametrize("postprocess", [False, True])
def test_onnx_files_run_without_torch(
    name: str, postprocess: bool, compiled: Callable[..., detc.Artifact], tmp_path: Path
) -> None:
    compiled(name, postprocess=postprocess).save(tmp_path / "model.onnx")
    image = zoo.ZOO / "scenes" / "scene0.png"
    modules = modules_of(tmp_path, "run", "model.onnx", image, "--json", "found.json")
    assert not modules & {"torch", "sympy", "onnx", "detc.frontend", "detc.passes"}
    assert json.loads((tmp_path / "found.json").read_text())["detections"]


@pytest.mark.parametrize("target", ["torchscript", "caffe2"])
def test_running_loads_no_frontend(
    target: str, compiled: Callable[..., detc.Artifact], tmp_path: Path
) -> None:
    path = tmp_path / ("model.ts" if target == "torchscript" else "net")
    compiled(NAME, target=target).save(path)
    modules = modules_of(tmp_path, "run", path.name, zoo.ZOO / "scenes" / "scene0.png")
    assert "torch" in modules and "detc.frontend" not in modules
