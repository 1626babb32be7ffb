"""The command line as its user meets it: its exit status, and what it prints; each command as a process once."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import detc
from detc.backends.target import known_targets
from tests import zoo
from tests.conftest import Shell

NAME = "mask_rcnn_R_50_FPN"
Command = Callable[..., subprocess.CompletedProcess[str]]


def model_options() -> list[str]:
    return ["--config", str(zoo.config_path(NAME)), "--weights", str(zoo.weights_path(NAME))]


def scene(index: int) -> str:
    return str(zoo.ZOO / "scenes" / f"scene{index}.png")


def test_help_and_mistyped_options_do_not_wait_for_torch(detc_command: Command) -> None:
    program = (
        "import sys; from detc.commands.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert 'torch' not in sys.modules"
    )
    shown = detc_command("--help", program=("-c", program))
    assert (shown.returncode, shown.stderr) == (0, "")
    assert all(name in shown.stdout for name in ("export", "run", "show", "passes", "demo"))
    refused = detc_command("export", "--confg", "x", program=("-c", program))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("detc: error: ") and refused.stderr.count("\n") == 1


def test_export_with_everything(detc_command: Command, tmp_path: Path) -> None:
    done = detc_command(
        "export", *model_options(), "--output", "model.onnx", "--postprocess", "--masks", "pasted",
        "--class-names", "circle, square,triangle", "--dump-ir", "ir", "--print-after", "flatten-instances",
        "--check", scene(0), scene(3), scene(5),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")

    printed, summary = done.stdout.split("\nmodel.onnx: ")
    assert printed.startswith("# after 002 flatten-instances\n")
    assert detc.parse_graph(printed.split("\n", 1)[1]).level == "flat"
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert summary.startswith(f"{len(model.graph.node)} nodes, 2.8 MB\n")
    for line in (
        "input  data         f32[N,3,H,W]",
        "input  output_size  i64[N,2]",
        "output masks        bool[",
    ):
        assert line in summary
    for stage in ("load the model", "capture", "run the passes", "emit", "write the file", "check"):
        assert re.search(rf"^{stage} +\d+\.\d\d$", summary, re.MULTILINE)
    verdicts = re.findall(r"^(\S+\.png) +(\d) .* (agrees|DIFFERS)", summary, re.MULTILINE)
    images = ("scene0.png", "scene3.png", "scene5.png")
    assert verdicts == [(image, batch, "agrees") for batch in "13" for image in images]

    dumped = sorted(path.name for path in (tmp_path / "ir").iterdir())
    assert dumped[0] == "000_captured.ir" and "002_flatten-instances.ir" in dumped
    assert detc.load_graph(tmp_path / "ir" / dumped[0]).level == "captured"
    assert detc.load_artifact(tmp_path / "model.onnx").class_names == ["circle", "square", "triangle"]


WRONG_MASKS = """
import detc
from detc.frontend.detectron2.mask_head import MaskRCNNConvUpsampleHead

@detc.importer(MaskRCNNConvUpsampleHead)
def wrong(capture, head, features, classes):
    masks = capture.build.det.mask_inference(capture.trace(head.layers, features, module=head), classes)
    return {expression}
"""


def export_with_wrong_masks(folder: Path, expression: str) -> list[object]:
    """The command, for a folder in which this writes the importer."""
    (folder / "wrong.py").write_text(WRONG_MASKS.format(expression=expression))
    return ["export", *model_options(), "--component-file", folder / "wrong.py", "--output", "model.onnx"]


@pytest.fixture
def importers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    module = import_module("detc.frontend.capture")
    monkeypatch.setattr(module, "_by_class", dict(module._by_class))


@pytest.mark.usefixtures("importers")
def test_a_check_that_finds_a_difference_exits_with_1(shell: Shell, tmp_path: Path) -> None:
    command = export_with_wrong_masks(tmp_path, "capture.build.aten.rsub.Scalar(masks, other=1.0)")
    status, out, err = shell(*command, "--check", scene(0), scene(5))
    assert (status, err) == (1, "")
    assert re.search(r"scene0.png +1 .* DIFFERS", out)
    assert re.search(r"scene5.png +1 .* agrees", out)
    assert re.search(r"scene0.png, batch of 1: masks: two masks of one detection have an IoU of 0", out)


@pytest.mark.usefixtures("importers")
def test_a_fault_of_its_own_keeps_its_traceback(shell: Shell, tmp_path: Path) -> None:
    command = export_with_wrong_masks(tmp_path, "1 // 0")
    with pytest.raises(ZeroDivisionError):
        shell(*command)
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.py"]


def test_run(detc_command: Command, tmp_path: Path, compiled: Callable[..., detc.Artifact]) -> None:
    artifact = compiled(NAME, class_names=("circle", "square", "triangle"))
    artifact.save(tmp_path / "model.onnx")
    done = detc_command(
        "run", "model.onnx", scene(4), "--output", "drawn.png", "--json", "found.json", "--min-score", 0.9
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "scene4.png, score 0.9 or more: 6 of 30 detections" in done.stdout
    assert len(re.findall(r"^(circle|square|triangle) ", done.stdout, re.MULTILINE)) == 6

    found = json.loads((tmp_path / "found.json").read_text())
    (expected,) = artifact([{"image": zoo.scene(4)}])
    instances = expected["instances"]
    assert (found["height"], found["width"], len(found["detections"])) == (128, 320, 30)
    for row, entry in enumerate(found["detections"]):
        assert entry["class"] == int(instances.pred_classes[row])
        assert entry["score"] == pytest.approx(float(instances.scores[row]), abs=1e-6)
        assert entry["box"] == pytest.approx(instances.pred_boxes.tensor[row].tolist(), abs=1e-3)
        assert np.array_equal(decoded(entry["mask"]), instances.pred_masks[row].numpy())
    with Image.open(tmp_path / "drawn.png") as drawn:
        assert drawn.size == (4 * 320, 4 * 128)

    done = detc_command("run", "model.onnx", scene(4), "--json", "-", "--runtime", "openvino")
    assert (done.returncode, done.stderr) == (0, "")
    again = json.loads(done.stdout)["detections"]
    for key in ("score", "box"):
        assert np.allclose([a[key] for a in again], [f[key] for f in found["detections"]], atol=1e-3)
    message = r"files that end in \.onnx do not run in torch\.jit, but in onnxruntime, openvino"
    with pytest.raises(detc.InputError, match=message):
        detc.load_artifact(tmp_path / "model.onnx", runtime="torch.jit")


def decoded(mask: dict[str, list[int]]) -> np.ndarray:
    """COCO's run lengths: of zeros and ones in turn, down the columns."""
    ones = np.arange(len(mask["counts"])) % 2 == 1
    return np.repeat(ones, mask["counts"]).reshape(mask["size"], order="F")


def test_run_on_an_image_with_nothing_in_it(
    detc_command: Command, tmp_path: Path, compiled: Callable[..., detc.Artifact]
) -> None:
    compiled(NAME).save(tmp_path / "model.onnx")
    done = detc_command("run", "model.onnx", scene(5), "--output", "drawn.png", "--json", "-")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["detections"] == []
    assert (tmp_path / "drawn.png").exists()


def test_show_prints_ir_that_parses(shell: Shell) -> None:
    status, out, err = shell("show", *model_options())
    assert (status, err) == (0, "")
    assert 200 <= out.count("\n") <= 350
    assert detc.parse_graph(out).level == "captured"


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-m", "detc", "show", *model_options()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_passes_lists_the_pipeline_in_order(shell: Shell) -> None:
    status, out, err = shell("passes")
    assert (status, err) == (0, "")
    listed = re.findall(r"^ *\d+ +([\w-]+)", out, re.MULTILINE)
    # Each target's passes with and without postprocessing in one list.
    of_variants = ("keep-roi-masks", "remove-postprocess", "decompose-postprocess")
    steps = [step for target in known_targets() for step in detc.pipeline(target)]
    expected = [step.name for step in steps if step.name not in of_variants]
    assert [name for name in listed if name not in of_variants] == expected
    assert all(step.summary.endswith(".") and step.summary in out for step in steps)
    assert "without --postprocess" in out


def test_progress_is_for_terminals(tmp_path: Path) -> None:
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "detc", "passes"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=end, text=True, env={**os.environ, "TERM": "xterm"}
    ) as process:
        os.close(end)
        shown = b""
        # Reading the terminal of a process that has ended is an error on Linux.
        try:
            while chunk := os.read(terminal, 1 << 16):
                shown += chunk
        except OSError:
            pass
        assert process.stdout is not None
        listed = process.stdout.read()
    os.close(terminal)
    assert b"import detc ..." in shown
    assert "import detc" not in listed and "\x1b" not in listed
