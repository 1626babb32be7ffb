"""Every code block of the README is run, in order, in one folder and one Python session, as a reader would."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from itertools import takewhile
from pathlib import Path
from types import ModuleType

import pytest

from detc.commands.main import main
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
    """Run a block in the current folder: detc's commands in this process, which need not import torch again each."""
    if code.startswith("make "):
        ask_make(code)
        return
    for line in code.replace("\\\n", "").splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "detc", line
        output = Path(arguments[arguments.index(">") + 1] if ">" in arguments else "printed")
        with output.open("w") as file, redirect_stdout(file):
            assert main(list(takewhile(">".__ne__, arguments))) == 0, line


def ask_make(code: str) -> None:
    """make is only asked what it would do: this suite is what it runs."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=ROOT,
        env={**os.environ, "MAKEFLAGS": "n"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "detc demo" in done.stdout and "pytest" in done.stdout


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
