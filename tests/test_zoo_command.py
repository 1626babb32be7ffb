"""`detc zoo`: what its table says is what happened."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

import detc
from detc.check.zoo import BEGIN, END, Cell, Entry, as_markdown, measure_target, write_into
from detc.commands.main import main
from tests import zoo

NAME = "faster_rcnn_R_50_FPN"
IMAGES = [str(zoo.ZOO / "scenes" / f"scene{i}.png") for i in (3, 5)]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(zoo.ZOO / NAME, tmp_path / "models" / NAME)
    (tmp_path / "models" / "notes").mkdir()
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    options = ["zoo", str(tmp_path / "models"), "--images", *IMAGES]
    assert main([*options, "--target", "onnx", "--target", "caffe2", "--write", str(readme)]) == 0
    printed = capsys.readouterr().out
    assert "any size, any batch" in printed and "any size, fixed batch" in printed
    lines = readme.read_text().splitlines()
    assert lines[:2] == ["before", BEGIN] and lines[-2:] == [END, "after"]
    assert f"| {NAME} | any size, any batch | any size, any batch | any size, fixed batch |" in lines

    for wrong, message in (
        (["zoo", str(tmp_path)], "holds no folder with a config.yaml"),
        ([*options, "--model", "mask"], f"there is no model mask; there are {NAME}"),
        ([*options, "--target", "onyx"], "there is no target onyx; there are onnx, "),
        (options[:2], "there are no images in "),
    ):
        assert main(wrong) == 2
        assert message in capsys.readouterr().err


def test_what_differs_is_no(loaded: Callable[[str], nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(NAME)
    assert measure_target(model, "onnx", IMAGES) == dict.fromkeys(("onnxruntime", "OpenVINO"), Cell(2, "any"))
    whole = detc.passes.RemovePostprocess.apply

    def wrong(self: object, graph: detc.Graph, context: object) -> bool:
        for node in graph:
            if node.op.name == "det.box_inference":
                node.attributes["score_thresh"] = 0.9
        return whole(self, graph, context)  # type: ignore[arg-type]

    monkeypatch.setattr(detc.passes.RemovePostprocess, "apply", wrong)
    for cell in measure_target(model, "onnx", IMAGES).values():
        assert str(cell) == "no" and cell.problem.startswith(
            "scene3.png, alone: boxes: a detection is missing"
        )


def test_reasons_stand_below_the_table(tmp_path: Path) -> None:
    no = Cell(0, "", "1 ops have no lowering | to it:")
    entries = [
        Entry(name, {("onnx", "onnxruntime"): Cell(3, "any"), ("caffe2", "detc's interpreter"): no})
        for name in "ab"
    ]
    text = as_markdown(entries)
    assert text.splitlines()[2:] == [
        "| a | any size, any batch | no [1] |",
        "| b | any size, any batch | no [1] |",
        "",
        "[1] 1 ops have no lowering / to it:  ",
    ]
    (tmp_path / "x.md").write_text("no marks")
    with pytest.raises(detc.InputError, match="has no lines"):
        write_into(tmp_path / "x.md", text)
