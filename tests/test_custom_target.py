"""examples/custom_target: a package that brings a target of its own, installed and used; its files run without detc."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import detc
from detc.backends.arrays import batch_images
from detc.backends.target import known_targets
from detc.commands.main import main
from tests import parity, zoo
from tests.outputs import cuts

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "custom_target"
KEYPOINTS, ROTATED, PROPOSALS = "keypoint_rcnn_R_50_FPN", "rotated_faster_rcnn_R_50_FPN", "rpn_R_50_FPN"
SCENE = str(zoo.ZOO / "scenes" / "scene0.png")
ALONE = """
import runpy, sys
sys.modules["detc"] = None  # importing it fails
import torch
inputs, outputs, file, *pictures = sys.argv[1:]
sys.argv = [file, *pictures]
module = runpy.run_path(file, run_name="__main__")
torch.save(module["load"]()(**torch.load(inputs))._asdict(), outputs)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package in it, as pip installs it."""
    folder = tmp_path_factory.mktemp("custom_target")
    shutil.copytree(EXAMPLE, folder / "package", ignore=shutil.ignore_patterns("__pycache__", "build"))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    target = ["--no-build-isolation", "--target", str(folder / "site"), str(folder / "package")]
    subprocess.run([*install, *target], check=True, capture_output=True)
    return folder / "site"


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Within the test the package is installed in this process too."""
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(tmp_path)
    known_targets.cache_clear()
    yield
    known_targets.cache_clear()


def check_alone(file: str, name: str) -> list[str]:
    """Run a written file without detc; what it finds is what detectron2 found. Returns what it prints of the scene."""
    torch.save(batch_images(zoo.single_input(0), 32), "inputs.pt")
    command = [sys.executable, "-c", ALONE, "inputs.pt", "found.pt", file, SCENE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = parity.detections(zoo.golden(name).under("image0/output/instances"))
    parity.assert_detections_match(torch.load("found.pt"), expected, what=file, **cuts(name))
    return done.stdout.splitlines()


@pytest.mark.usefixtures("installed")
def test_exported_it_runs_with_detc_and_without(capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--config", str(zoo.config_path(KEYPOINTS)), "--weights", str(zoo.weights_path(KEYPOINTS))]
    options = ["--target", "python", "--postprocess", "--class-names", "mark"]
    assert main(["export", *model, *options, "--output", "model.py", "--check", SCENE]) == 0
    assert re.search(r"model\.py: \d+ nodes", capsys.readouterr().out)
    printed = check_alone("model.py", KEYPOINTS)

    assert main(["run", "model.py", SCENE]) == 2
    assert "can run code that is in it" in capsys.readouterr().err
    assert main(["run", "--trust", "model.py", SCENE, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)["detections"]
    assert printed[0] == SCENE and f"  boxes: [{len(found)}, 4]" in printed
    rows = [line.split() for line in printed if re.match(r"  \w+ [\d.]+ ", line)]
    assert [row[0] for row in rows] == [one["name"] for one in found]
    got = torch.tensor([[float(number) for number in row[1:]] for row in rows])
    torch.testing.assert_close(
        got, torch.tensor([[one["score"], *one["box"]] for one in found]), rtol=0, atol=0.1
    )


@pytest.mark.usefixtures("installed")
def test_from_a_graph(captured: Callable[[str], detc.Graph]) -> None:
    detc.save_graph(captured(ROTATED), "model.ir")
    assert main(["opt", "model.ir", "--pipeline", "python", "--postprocess", "-o", "lowered.ir"]) == 0
    assert main(["opt", "lowered.ir", "--passes", "dead-code", "-o", "model.py"]) == 0
    check_alone("model.py", ROTATED)


@pytest.mark.usefixtures("installed")
def test_it_has_its_column(capsys: pytest.CaptureFixture[str]) -> None:
    scenes = ["--images", SCENE, str(zoo.ZOO / "scenes" / "scene3.png")]
    assert main(["zoo", str(zoo.ZOO), "--model", PROPOSALS, "--target", "python", *scenes]) == 0
    assert "python (torch)" in (printed := capsys.readouterr().out) and "any size, any batch" in printed


@pytest.mark.usefixtures("installed")
def test_half_as_large(captured: Callable[[str], detc.Graph]) -> None:
    graph = detc.pipeline("python", dtype="bfloat16").run(captured(PROPOSALS))
    detc.emit(graph, "python").save("model.py")
    detector = detc.load_artifact("model.py", trusted=True)
    best = detector(zoo.single_input(0))[0]["proposals"].proposal_boxes.tensor[0]
    expected = torch.from_numpy(zoo.golden(PROPOSALS)["image0/output/proposals/proposal_boxes"][0])
    torch.testing.assert_close(best, expected, rtol=0, atol=1.0)  # pixels of 82 x 83
    assert Path("model.py").stat().st_size < zoo.weights_path(PROPOSALS).stat().st_size


@pytest.mark.usefixtures("installed")
def test_it_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["passes"]) == 0
    assert "target python: files that end in .py, run by torch" in capsys.readouterr().out


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "other.py is not a detector that detc wrote: "),
        ("1 / 0\n", "other.py cannot be run: ZeroDivisionError: division by zero"),
        ("three words here\n", "other.py cannot be run: SyntaxError: "),
    ],
)
def test_other_files(text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.py").write_text(text)
    assert main(["run", "--trust", "other.py", SCENE]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"detc: error: {message}") and error.count("\n") == 1
