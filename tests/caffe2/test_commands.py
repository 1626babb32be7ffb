"""`detc export --target caffe2` and `detc run` on the folder that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detc.commands.main import main
from tests import zoo

NAME = "mask_rcnn_R_50_FPN"
SCENE = str(zoo.ZOO / "scenes" / "scene3.png")


def _export(*arguments: str) -> int:
    return main(
        [
            *("export", "--config", str(zoo.config_path(NAME)), "--weights", str(zoo.weights_path(NAME))),
            *("--target", "caffe2", *arguments),
        ]
    )


def test_export_and_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, found = tmp_path / "net", tmp_path / "found.json"
    assert _export("--output", str(folder), "--check", SCENE) == 0
    assert "195 nodes" in capsys.readouterr().out
    assert main(["run", str(folder), SCENE, "--json", str(found)]) == 0
    wanted = zoo.golden(NAME).under("image3/raw")
    assert len(json.loads(found.read_text())["detections"]) == len(wanted["scores"])


def test_wrong_outputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert _export("--output", str(tmp_path / "file")) == 2
    assert "writes a folder" in capsys.readouterr().err
    assert _export("--output", str(tmp_path / "missing" / "net")) == 2
    assert "does not exist" in capsys.readouterr().err
    assert _export("--output", str(tmp_path / "net"), "--postprocess") == 2
    assert not (tmp_path / "net").exists()
    assert main(["run", str(tmp_path), SCENE]) == 2
    assert "folders with a model.pb" in capsys.readouterr().err


def test_a_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "net"
    other = SCENE.replace("scene3", "scene5")
    assert _export("--output", str(folder), "--batch", "2", "--check", SCENE, other) == 0
    assert "data         f32[2,3,H,W]" in capsys.readouterr().out
    assert _export("--output", str(tmp_path / "zero"), "--batch", "0") == 2
    assert "1 or more, not 0" in capsys.readouterr().err
    assert not (tmp_path / "zero").exists()
