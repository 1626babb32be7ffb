"""What a command imports: no more than it uses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import detc
from tests import zoo

RUN = """
import json, sys
from detc.commands.main import main
status = main(sys.argv[1:])
print(json.dumps(sorted(sys.modules)))
sys.exit(status)
"""


def modules_of(folder: Path, *arguments: object) -> set[str]:
    """The modules that a process has imported when the command has ended well."""
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", ["mask_rcnn_R_50_FPN", "panoptic_fpn_R_50", "rotated_faster_rcnn_R_50_FPN"])
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
    compiled("mask_rcnn_R_50_FPN", target=target).save(path)
    modules = modules_of(tmp_path, "run", path.name, zoo.ZOO / "scenes" / "scene0.png")
    assert "torch" in modules and "detc.frontend" not in modules
