"""The demo, as somebody who tries detc for the first time sees it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
from PIL import Image

import detc
from tests import parity, zoo
from tests.conftest import Shell

NAME = "mask_rcnn_R_50_FPN"


def test_demo(shell: Shell, tmp_path: Path) -> None:
    """In this process; test_packaging.py runs it as installed."""
    status, out, err = shell("demo", "--output", "out")
    assert (status, err) == (0, "")
    assert "\x1b" not in out, "colors in a pipe"
    assert max(map(len, out.splitlines())) <= 100

    rows = re.findall(r"^(\w+\.png) +(\d) +(\d+) +(\d+) .* (agrees|DIFFERS) *$", out, re.MULTILINE)
    assert [(image, batch, verdict) for image, batch, _, _, verdict in rows] == [
        (image, batch, "agrees") for batch in "12" for image in ("shapes.png", "nothing.png")
    ]
    assert all(eager == onnxruntime for _, _, eager, onnxruntime, _ in rows)
    stages = re.findall(r"^([a-z ]+?) +\d+\.\d\d *$", out, re.MULTILINE)
    assert {"load the model", "capture", "run the passes", "emit", "compare with the model"} <= set(stages)
    found = re.findall(r"^(circle|square|triangle) +0\.9|^(circle|square|triangle) +1\.0", out, re.MULTILINE)
    assert sorted(a or b for a, b in found) == ["circle", "square", *["triangle"] * 4]

    for name in ("annotated.png", "detections.json", "model.onnx", "ir"):
        assert (tmp_path / "out" / name).exists()
        assert f"out/{name}: " in out
    dumped = sorted(path.name for path in (tmp_path / "out" / "ir").glob("*.ir"))
    passes = detc.pipeline("onnx", postprocess=True)
    assert dumped == [
        "000_captured.ir", *(f"{index:03d}_{step.name}.ir" for index, step in enumerate(passes, 1))
    ]  # fmt: skip
    model = onnx.load(tmp_path / "out" / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    compare_with_golden(detc.load_artifact(tmp_path / "out" / "model.onnx"))
    look_at(tmp_path / "out" / "annotated.png")


def compare_with_golden(detector: detc.Detector) -> None:
    for index in zoo.SCENES:
        (output,) = detector(zoo.single_input(index))
        parity.assert_detections_match(
            parity.detections(output["instances"]),
            parity.detections(zoo.golden(NAME).under(f"image{index}/output/instances")),
            thresholds=[0.05],
            limit=100,
        )


def look_at(path: Path) -> None:
    """The picture is large enough for its labels, and each class's color is in it, as wide as a label at least."""
    with Image.open(path) as drawn:
        pixels = np.asarray(drawn.convert("RGB"))
    assert min(pixels.shape[:2]) >= 480
    for color in ((0x4C, 0xC9, 0xF0), (0xFF, 0xD1, 0x66), (0xF7, 0x8C, 0x6B)):
        of_color = (pixels == color).all(axis=-1)
        assert of_color.sum(axis=1).max() >= 40


def test_the_bundled_model_is_the_zoo_s() -> None:
    data = Path(detc.__path__[0]) / "data"
    assert (data / NAME / "model_final.pth").read_bytes() == zoo.weights_path(NAME).read_bytes()
    assert (data / NAME / "config.yaml").read_bytes() == zoo.config_path(NAME).read_bytes()
