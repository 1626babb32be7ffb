"""Where a compile's time goes, as a tracing page shows it: `--profile-compile`, and `detc.Profile` in Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import detc
from detc.commands.main import main
from detc.ir import Graph, print_graph
from detc.ir.spans import is_recorded
from detc.passes import save_graph
from tests import zoo

NAME = "mask_rcnn_R_50_FPN"
SLACK_US = 1e-2
"""What rounding may do to a time in microseconds."""
Event = dict[str, Any]


def read(path: Path) -> tuple[list[Event], dict[int, int | None]]:
    """The events of a file and, by index, what each stands in. Each must lie within what it stands in."""
    trace = json.loads(path.read_text())
    assert trace["displayTimeUnit"] == "ms"
    events: list[Event] = trace["traceEvents"]
    above: dict[int, int | None] = {}
    open_: list[int] = []
    for index, event in enumerate(events):
        assert event["ph"] == "X" and isinstance(event["name"], str) and isinstance(event["args"], dict)
        assert {type(event[key]) for key in ("pid", "tid")} == {int}
        assert event["ts"] >= 0 and event["dur"] >= 0 and event["tdur"] >= 0
        while open_ and end(events[open_[-1]]) <= event["ts"]:
            open_.pop()
        above[index] = open_[-1] if open_ else None
        if open_:
            assert end(event) <= end(events[open_[-1]]) + SLACK_US, (event, events[open_[-1]])
        open_.append(index)
    return events, above


def end(event: Event) -> float:
    return float(event["ts"] + event["dur"])


def path_to(index: int, events: list[Event], above: dict[int, int | None]) -> list[str]:
    names: list[str] = []
    at: int | None = index
    while at is not None:
        names.insert(0, events[at]["name"])
        at = above[at]
    return names


def test_an_export(tmp_path: Path, loaded: Callable[[str], nn.Module]) -> None:
    out = tmp_path / "profile.json"
    arguments = ["export", "--config", zoo.config_path(NAME), "--weights", zoo.weights_path(NAME)]
    arguments += ["--output", tmp_path / "m.onnx", "--profile-compile", out]
    assert main([str(argument) for argument in arguments]) == 0
    events, above = read(out)
    paths = [path_to(index, events, above) for index in range(len(events))]
    # One span holds all, and what stands right in it leaves out nothing that takes time.
    assert [path for path in paths if len(path) == 1] == [["detc"]]
    stages = [event for event, path in zip(events, paths, strict=True) if len(path) == 2]
    names = [event["name"] for event in stages]
    assert names == ["import detc", "load the model", "capture", "run the passes", "emit", "write the file"]
    assert sum(event["dur"] for event in stages) > 0.9 * events[0]["dur"]
    # Modules stand in each other as they do in the model, each under its path.
    known = {path for path, _ in loaded(NAME).named_modules()}
    modules = [path[2:] for path, event in zip(paths, events, strict=True) if "module" in event["args"]]
    assert ["backbone", "backbone.bottom_up", "backbone.bottom_up.stem"] in modules
    for path in modules:
        assert known.issuperset(path)
        assert all(inner.startswith(f"{outer}.") for outer, inner in pairwise(path))
    passes = [event for event in events if "nodes_before" in event["args"]]
    assert [event["name"] for event in passes] == [item.name for item in detc.pipeline("onnx")]
    facts = [event["args"] for event in passes]
    assert [fact["nodes_before"] for fact in facts[1:]] == [fact["nodes_after"] for fact in facts[:-1]]
    assert all(fact["changed"] == (fact["rewrites"] > 0) for fact in facts)
    assert paths.count(["detc", "run the passes", "VerifyEach", "verify"]) == len(passes) + 1
    emitted = paths.index(["detc", "emit", "emit onnx"])
    assert events[emitted]["args"] == {"nodes": facts[-1]["nodes_after"]}
    written = paths.index(["detc", "write the file", "write"])
    assert events[written]["args"] == {"file": "m.onnx"}


def test_from_python_and_nothing_else_changes(
    tmp_path: Path, loaded: Callable[[str], nn.Module], compiled: Callable[..., detc.Artifact]
) -> None:
    with detc.Profile(tmp_path / "p.json"):
        artifact = detc.compile(loaded(NAME), "torchscript")
        artifact.save(tmp_path / "m.ts")
    assert not is_recorded()
    assert print_graph(artifact.graph) == print_graph(compiled(NAME, target="torchscript").graph)
    events, above = read(tmp_path / "p.json")
    first = [events[index]["name"] for index, outer in above.items() if outer == 0]
    assert first == ["capture", "run the passes", "emit torchscript", "write"]
    assert any(event["name"] == "backbone.bottom_up.stem" for event in events)


@pytest.mark.parametrize("command", ["opt", "report"])
def test_the_workbench(command: str, tmp_path: Path, captured: Callable[[str], Graph]) -> None:
    save_graph(captured(NAME), tmp_path / "m.ir")
    output = tmp_path / ("m.html" if command == "report" else "out.ir")
    arguments = [command, tmp_path / "m.ir", "--passes", "dead-code,fuse", "-o", output]
    assert main([str(one) for one in [*arguments, "--profile-compile", tmp_path / "p.json"]]) == 0
    names = [event["name"] for event in read(tmp_path / "p.json")[0]]
    assert [name for name in names if name in ("dead-code", "fuse")] == ["dead-code", "fuse"]
    assert names.count("verify") >= 3 and ("Recorder" in names) == (command == "report")


def test_a_pass_that_fails_is_in_it(tmp_path: Path, captured: Callable[[str], Graph]) -> None:
    save_graph(captured(NAME), tmp_path / "m.ir")
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom detc.passes import Pass\n@dataclass(frozen=True)\nclass Bad(Pass):\n"
        "    def apply(self, graph, context):\n        return {}[0]\n"
    )
    arguments = ["opt", tmp_path / "m.ir", "--pass-file", tmp_path / "mine.py", "--passes", "dead-code,bad"]
    assert main([str(one) for one in [*arguments, "--profile-compile", tmp_path / "p.json"]]) == 1
    last = [event for event in read(tmp_path / "p.json")[0] if "nodes_before" in event["args"]][-1]
    assert last["name"] == "bad" and "nodes_after" not in last["args"]


def test_a_folder_that_does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["opt", "m.ir", "--passes", "fuse", "--profile-compile", str(tmp_path / "no" / "p.json")]
    assert main(arguments) == 2
    assert (
        capsys.readouterr().err
        == f"detc: error: the folder of the profile does not exist: {tmp_path / 'no'}\n"
    )
