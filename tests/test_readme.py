"""Every code block of the README is run, in order, in one folder and one Python session, as a reader would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests import zoo

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
NAME = "mask_rcnn_R_50_FPN"


def blocks() -> list[tuple[str, str]]:
    """(language, code) of each block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(zoo.config_path(NAME), "config.yaml")
    shutil.copy(zoo.weights_path(NAME), "model_final.pth")
    shutil.copy(zoo.ZOO / "scenes" / "scene0.png", "image.png")
    session = ModuleType("readme")
    monkeypatch.setitem(sys.modules, "readme", session)
    kinds = []
    for language, code in blocks():
        if language == "python":
            exec(compile(code, f"README.md:{code.splitlines()[0]}", "exec"), vars(session))
        else:
            assert language == "sh"
            run_shell(code)
        kinds.append(language)
    assert kinds.count("sh") == 5 and kinds.count("python") >= 6
    written = {path.name for path in tmp_path.iterdir()}
    assert {"model.onnx", "annotated.png", "detections.json", "captured.ir", "ir", "net"} <= written


def run_shell(code: str) -> None:
    """Run a block in the current folder. make's are only asked what they would do: this suite is what they run."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    making = code.startswith("make ")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=ROOT if making else None,
        env={**os.environ, "PATH": path, **({"MAKEFLAGS": "n"} if making else {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if making:
        assert "detc demo" in done.stdout and "pytest" in done.stdout


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
