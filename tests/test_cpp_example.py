"""examples/cpp/torchscript: built with CMake, it finds in pictures what Python finds, and draws it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import detc
from tests import system, zoo
from tests.parity import assert_detections_match, detections

SOURCE = Path(__file__).resolve().parent.parent / "examples" / "cpp" / "torchscript"


@pytest.fixture(scope="session")
def program(tmp_path_factory) -> Path:
    """The program, built against the torch that runs this test."""
    system.need(system.COMPILER, system.CMAKE, system.LIBPNG)
    build, cmake = tmp_path_factory.mktemp("detect"), system.find_cmake()
    configure = [cmake, "-S", SOURCE, "-B", build, f"-DPython3_EXECUTABLE={sys.executable}"]
    for command in (configure, [cmake, "--build", build, "--parallel", "2"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return build / "detect"


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_detections_are_those_of_python(program, captured, tmp_path):
    """As the model is, with pictures resized before, and in a picture with nothing in it."""
    pipeline = detc.pipeline("torchscript", postprocess=True, masks="pasted")
    artifact = detc.emit(pipeline.run(captured("mask_rcnn_R_50_FPN")))
    artifact.save(tmp_path / "plain.ts")
    metadata = artifact.model.metadata
    metadata["min_size_test"], metadata["max_size_test"] = 240, 320
    artifact.save(tmp_path / "resizing.ts")
    for model, scene in (("plain", 0), ("plain", 3), ("plain", 5), ("resizing", 3)):
        picture = zoo.ZOO / "scenes" / f"scene{scene}.png"
        detector = detc.load_artifact(tmp_path / f"{model}.ts")
        with Image.open(picture) as image:
            wanted = detector.predict(image)
            before = np.asarray(image.convert("RGB"))
        done = run(program, tmp_path / f"{model}.ts", picture, tmp_path / "out.png", "--min-score", 0.05)
        assert done.returncode == 0, done.stderr
        rows = torch.tensor([[float(x) for x in line.split()] for line in done.stdout.splitlines()])
        rows = rows.reshape(-1, 6)
        found = {"boxes": rows[:, 2:], "scores": rows[:, 1], "classes": rows[:, 0].long()}
        expected = {k: v for k, v in detections(wanted).items() if k != "masks"}
        assert_detections_match(found, expected, thresholds=(0.05,), what=f"{model}, scene {scene}")
        with Image.open(tmp_path / "out.png") as drawn:
            changed = (np.asarray(drawn) != before).any(axis=2)
        masks = wanted.pred_masks.any(dim=0).numpy() if len(wanted) else np.zeros_like(changed)
        assert changed.any() == (len(wanted) > 0)
        assert (changed | ~masks).mean() > 0.999, "where a mask is, the picture is tinted"


def test_messages(program, compiled, tmp_path):
    raw = tmp_path / "raw.ts"
    compiled("mask_rcnn_R_50_FPN", target="torchscript").save(raw)
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), tmp_path / "other.ts")
    picture = zoo.ZOO / "scenes" / "scene0.png"
    for arguments, message in (
        ((raw, picture, tmp_path / "out.png"), "export it with --postprocess"),
        ((tmp_path / "other.ts", picture, tmp_path / "out.png"), "none of detc's"),
        ((tmp_path / "missing.ts", picture, tmp_path / "out.png"), "missing.ts"),
        ((raw,), "usage: detect"),
    ):
        done = run(program, *arguments)
        assert done.returncode == 1 and message in done.stderr, done.stderr
