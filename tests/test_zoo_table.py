"""The table in the README, which `detc zoo` measured: it is whole, and what says no is refused for the reason given.

That what says yes agrees with detectron2 is tested by `test_truth` and `test_architectures`, and by `caffe2_real` in the
real Caffe2.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import detc
from detc.backends.onnx import OpenVinoModel
from detc.backends.target import known_targets
from detc.backends.torchscript.program import least_size
from detc.check.zoo import BEGIN, END, find_models
from detc.ir.types import type_symbols
from tests import zoo

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
TABLE = README.split(BEGIN)[1].split(END)[0]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TABLE.splitlines()
    if line.startswith("|")
]
REASONS = dict(re.findall(r"^\[(\d+)\] (.*?)(?:  )?$", TABLE, re.MULTILINE))
RUNTIMES = {name: tuple(map(str, target.runtimes)) for name, target in known_targets().items()}
COLUMNS = [(target, runtime) for target, runtimes in RUNTIMES.items() for runtime in runtimes]
CELLS = {(row[0], *column): cell for row in ROWS[2:] for column, cell in zip(COLUMNS, row[1:], strict=True)}


def refused_by_all() -> list[tuple[str, str]]:
    """Models and targets for which each runtime's cell says no."""
    said: dict[tuple[str, str], set[bool]] = {}
    for (name, target, _), cell in CELLS.items():
        said.setdefault((name, target), set()).add(cell.startswith("no"))
    return [key for key, answers in said.items() if answers == {True}]


def reason(cell: str) -> str:
    return REASONS[re.findall(r"\[(\d+)\]", cell)[0]]


def test_every_model_and_runtime_is_in_it() -> None:
    assert ROWS[0] == ["model", *(f"{target} ({runtime})" for target, runtime in COLUMNS)]
    assert [row[0] for row in ROWS[2:]] == [folder.name for folder in find_models(zoo.ZOO)]
    for (_, target, _), cell in CELLS.items():
        batch = "fixed" if "batch" in known_targets()[target].options else "any"
        agrees = rf"(any size|from \d+ pixels), ({batch} batch|alone \[\d+\])"
        assert re.fullmatch(rf"{agrees}|no \[\d+\]", cell)


@pytest.mark.parametrize(("name", "target"), refused_by_all())
def test_no_means_refused(name: str, target: str, captured: Callable[[str], detc.Graph]) -> None:
    with pytest.raises(detc.UnsupportedError) as refused:
        detc.emit(detc.pipeline(target).run(captured(name)), target)
    said = " ".join(line.strip() for line in str(refused.value).splitlines())
    for runtime in RUNTIMES[target]:
        assert said.replace("|", "/").startswith(reason(CELLS[name, target, runtime]))


def test_what_openvino_lacks(compiled: Callable[..., detc.Artifact]) -> None:
    (name,) = {name for (name, _, runtime), cell in CELLS.items() if runtime == "OpenVINO" and "no" in cell}
    with pytest.raises(detc.InputError) as refused:
        OpenVinoModel(compiled(name).model.to_bytes())  # type: ignore[attr-defined]
    assert str(refused.value).replace("the model", "the file") == reason(CELLS[name, "onnx", "OpenVINO"])


@pytest.mark.parametrize("name", ["retinanet_R_50_FPN", "semantic_R_50_FPN", "mask_rcnn_R_50_C4"])
def test_the_least_size_of_exported_programs(name: str, compiled: Callable[..., detc.Artifact]) -> None:
    graph = compiled(name, target="torchscript").graph  # type: ignore[attr-defined]
    sizes = {s.name: s for value in graph.inputs for s in type_symbols(value.type)}
    assert f"from {least_size(graph, sizes['H'])} pixels" in CELLS[name, "torch-export", "torch.export"]
