"""The workbench as its user meets it: the commands opt, bisect, passes, on every kind of graph."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import load_file

import detc
from detc.ir import Builder, Graph, TensorType, symbol
from detc.passes import (
    ExpensiveChecks,
    HonestyError,
    Pipeline,
    known_passes,
    parse_pass,
    parse_passes,
    save_graph,
)
from tests import zoo
from tests.conftest import Shell

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "custom_pass"
EXAMPLE_FILE = EXAMPLE / "detc_example_passes" / "__init__.py"
NAME = "faster_rcnn_R_50_FPN"
SCENE = str(zoo.ZOO / "scenes" / "scene0.png")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, captured: Callable[[str], Graph]) -> Path:
    """The captured Faster R-CNN as IR text, its weights beside it."""
    path = tmp_path_factory.mktemp("ir") / "model.ir"
    save_graph(captured(NAME), path)
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A graph with a hard-swish and two outputs."""
    graph = Graph("small", level="flat")
    b = Builder(graph, created_by="capture")
    x = graph.add_input("x", TensorType(torch.float32, (symbol("N"), 8)))
    with b.at("head.act"):
        y = b.aten.hardswish(x)
    with b.at("head.scale"):
        z = b.aten.mul.Tensor(y, other=2.0)
    with b.at("tail"):
        graph.set_outputs({"y": z, "z": b.aten.relu(b.aten.relu(z))})
    save_graph(graph, tmp_path / "small.ir")
    return tmp_path / "small.ir"


def test_any_passes_over_ir_text(shell: Shell, saved: Path, tmp_path: Path) -> None:
    passes = "remove-postprocess,flatten-instances,canonicalize,fold-batch-norm,dead-code"
    status, out, err = shell(
        "opt", saved, "--passes", passes, "-o", "out.ir", "--timing", "--statistics", "--check-each", SCENE,
        "--expensive-checks",
    )  # fmt: skip
    assert (status, err) == (0, "")
    result = detc.load_graph(tmp_path / "out.ir")
    assert result.level == "flat" and not any(w.data.is_meta for w in result.weights.values())
    assert set(load_file(tmp_path / "out.safetensors")) == set(result.weights)
    for row in (
        r"^4 +fold-batch-norm +\d+\.\d +\d+% +\d+ \(-\d+\)$",
        r"^fold-batch-norm +BatchNormIntoProducer +53 +53 +\d+\.\d *$",
        r"^canonicalize +DropNeutral +19 +0 +\d+\.\d +19 x expected a constant",
        r"^1 +remove-postprocess +the new reference",
        r"^4 +fold-batch-norm +boxes \d\.\de-\d+, scores .* p2 \d\.\de",
    ):
        assert re.search(row, out, re.MULTILINE), row
    assert "rtol 0.001, atol 1e-05" in out


def test_a_target_s_pipeline_edited(shell: Shell, saved: Path, tmp_path: Path) -> None:
    status, _, err = shell(
        "opt", saved, "--pipeline", "onnx", "--pass-file", EXAMPLE_FILE, "--remove", "fuse-rpn-head",
        "--insert-after", "flatten-instances:drop-output{name_of_output=batch_index}",
        "--replace", "fold-batch-norm:fold-batch-norm", "--insert-before", "1:dead-code", "-o", "m.onnx",
    )  # fmt: skip
    assert (status, err) == (0, "")
    model = onnx.load(tmp_path / "m.onnx")
    assert [output.name for output in model.graph.output] == ["boxes", "scores", "classes"]


def test_graphs_from_onnx_files_and_caffe2_folders(
    shell: Shell, compiled: Callable[..., detc.Artifact], tmp_path: Path
) -> None:
    compiled(NAME).save(tmp_path / "m.onnx")
    status, out, err = shell(
        "opt", "m.onnx", "--passes", "clean-up-onnx,common-subexpressions,dead-code", "--timing"
    )
    assert (status, err) == (0, "")
    assert "(level=onnx)" in out
    folder = zoo.ZOO / NAME / "caffe2_original"
    status, out, err = shell("opt", folder, "--passes", "dead-code", "-o", "c.ir", "--check-each", SCENE)
    assert (status, err) == (0, "")
    assert detc.load_graph(tmp_path / "c.ir").level == "caffe2"


def test_watching(shell: Shell, small: Path) -> None:
    options = (
        "opt",
        small,
        "--pass-file",
        EXAMPLE_FILE,
        "--passes",
        "expand-hard-swish,canonicalize",
        "-o",
        "out.ir",
    )
    status, out, _ = shell(*options, "--print-changed")
    assert status == 0
    assert "# 001 expand-hard-swish: -1 +4" in out or "# 001 expand-hard-swish: -2 +5" in out
    assert "aten.hardswish" in out and "# head.act | expand-hard-swish" in out

    _, out, _ = shell(
        *options, "--print-before", "canonicalize", "--print-after", "expand-hard-swish", "--filter", "head"
    )
    before, after = out.split("# before 002 canonicalize\n")[1], out.split("# before 002")[0]
    assert after.startswith("# after 001 expand-hard-swish\ngraph small (level=flat) {\n")
    for text in (before, after):
        assert "aten.clamp" in text and "# ... 2 nodes" in text and "aten.relu" not in text


def test_a_pass_that_breaks_the_model_is_found(shell: Shell, small: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(BROKEN)
    options = (small, "--pass-file", file, "--passes", "canonicalize,double-scale,dead-code")
    status, out, err = shell("opt", *options, "--check-each", "-o", "out.ir")
    assert status == 1
    assert err.startswith("detc: error: after the pass double-scale the output 'y' differs: ")
    assert not (tmp_path / "out.ir").exists()
    assert re.search(r"^1 +canonicalize +y 0.0e", out, re.MULTILINE)

    status, out, _ = shell("bisect", *options, "-o", "found.ir")
    assert status == 1
    assert "pass 2, double-scale: " in out and "rewrite 1 of 1 in it, by the rule Wrong:" in out
    assert "found.ir: 1 of 3 nodes" in out
    command = re.search(r"^  detc (opt .*)$", out, re.MULTILINE)
    assert command is not None
    again = shlex.split(command.group(1))
    status, _, err = shell(*again)
    assert (status, "the pass double-scale" in err) == (1, True)

    status, out, _ = shell("bisect", small, "--passes", "canonicalize,dead-code")
    assert (status, out) == (0, "nothing is wrong: 2 passes keep what the graph computes\n")


BROKEN = """
from dataclasses import dataclass
from detc.passes import Pass, RewriteRule, apply_rules, NoMatch

class Wrong(RewriteRule):
    def pattern(self, p, x):
        return p.aten.mul.Tensor(x, other=2.0)

    def rewrite(self, b, m):
        return b.aten.mul.Tensor(m.x, other=2.5)

@dataclass(frozen=True)
class DoubleScale(Pass):
    def apply(self, graph, context):
        return apply_rules(graph, [Wrong()], context)

@dataclass(frozen=True)
class Liar(Pass):
    def apply(self, graph, context):
        next(iter(graph)).source = "elsewhere"
        return False

@dataclass(frozen=True)
class Forgetful(Pass):
    def apply(self, graph, context):
        next(iter(graph)).source = "elsewhere"
        return True

@dataclass(frozen=True)
class Fails(Pass):
    def apply(self, graph, context):
        return {}["nothing"]
"""


def test_what_a_pass_says_is_checked(shell: Shell, small: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(BROKEN)
    options = ("opt", small, "--pass-file", file, "-o", "out.ir", "--passes")
    assert shell(*options, "liar")[0] == 0
    status, _, err = shell(*options, "liar", "--expensive-checks")
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith("detc: error: the pass liar said that it changed nothing: ")
    status, _, err = shell(*options, "forgetful", "--expensive-checks")
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith(
        "detc: error: the pass forgetful changes graphs outside of `with context.rewrite(...)`: "
    )
    status, _, err = shell(*options, "fails")
    assert status == 1
    assert f'File "{file}"' in err and err.endswith(
        "detc: error: the pass fails failed: KeyError: 'nothing'\n"
    )
    with pytest.raises(HonestyError, match="liar"):
        Pipeline([parse_pass("liar")]).run(detc.load_graph(small), [ExpensiveChecks()])


def test_explaining(shell: Shell) -> None:
    status, out, _ = shell("passes", "--explain", "fuse")
    assert status == 0
    for part in (
        "Before:",
        "After:",
        "merge_parallel  bool  False",
        "MergeFactors",
        "(x * c) * d  ->  x * (c * d)",
    ):
        assert part in out
    status, out, _ = shell("passes", "--pass-file", EXAMPLE_FILE, "--explain", "drop-output")
    assert status == 0 and re.search(r"name_of_output +str +needed", out)


def test_every_pass_reads_back_and_explains_itself(shell: Shell) -> None:
    for target in ("onnx", "caffe2"):
        for item in detc.pipeline(target):
            assert parse_pass(item.spec) == item
    for name, cls in known_passes().items():
        if not cls.__module__.startswith("detc.") or cls.__module__.startswith("detc_pass"):
            continue
        assert cls.pass_summary().endswith("."), name
        assert "Before:" in (cls.__doc__ or "") and "After:" in (cls.__doc__ or ""), name
    (drop,) = [c for c in detc.passes.load_pass_file(EXAMPLE_FILE) if c.pass_name() == "drop-output"]
    odd = drop("a,b}'\"=")  # type: ignore[call-arg]
    assert parse_pass(odd.spec) == odd and parse_passes(f"fuse,{odd.spec},fuse")[1] == odd


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--passes", "ded-code"], "there is no pass 'ded-code'; did you mean dead-code?"),
        (["--passes", "fuse{merge=True}"], "fuse has no option 'merge'; it has merge_parallel"),
        (["--passes", "fuse{merge_parallel=3}"], "fuse: merge_parallel must be bool, not 3"),
        (["--passes", "fuse{merge_parallel=True"], "'fuse{merge_parallel=True': the brace of the options"),
        (["--passes", "fuse{merge_parallel}"], "fuse: give each option once, as merge_parallel=VALUE"),
        (["--passes", "fuse", "--pipeline", "onnx"], "give either --passes or --pipeline"),
        (["--pipeline", "onyx"], "there is no target 'onyx'; there are "),
        (["--passes", "fuse", "--insert-after", "fuse"], "--insert-after wants PASS:NEW, "),
        (["--passes", "fuse", "--remove", "fusion"], "there is no pass 'fusion'; there are fuse"),
        (["--passes", "fuse", "--remove", "7"], "there is no pass at 6: the pipeline has 1"),
        (["--passes", "fuse", "--pass-file", "none.py"], "there is no file none.py"),
        (["--passes", "fuse", "--print-after", "cse"], "there is no pass 'cse'; there are fuse"),
        (["--passes", "fuse", "-o", "out.txt"], "cannot write out.txt: its name must end in .ir, "),
        (["--passes", "fuse", "-o", "out.onnx"], "a graph of the level 'flat' is not lowered; "),
        (["--passes", "fuse", "-o", "no/out.ir"], "the output folder does not exist: no"),
        (["--passes", "fuse", "--check-each", SCENE], "the graph takes x, no images: leave them out"),
        (["--passes", "fuse", "--config", "c.yaml"], "give either "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options(shell: Shell, small: Path, options: list[str], message: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    status, out, err = shell("opt", small, *options)
    assert (status, out) == (2, "")
    assert err.startswith(f"detc: error: {message}"), err
    assert err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_bad_graphs(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "broken.ir").write_text("graph x (level=flat) {\n  what\n}\n")
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "empty.py").write_text("x = 1\n")
    (tmp_path / "wrong.py").write_text("x = 1\n1 / 0\n")
    for arguments, message in (
        ((), "give a graph (model.ir, model.onnx, a Caffe2 folder), or --config and --weights"),
        (("none.ir",), "there is no file none.ir"),
        (("notes.txt",), "cannot tell what notes.txt is"),
        (("broken.ir", "--pass-file", "empty.py"), "empty.py defines no pass"),
        (("broken.ir", "--pass-file", "wrong.py"), "wrong.py:2 fails: ZeroDivisionError: division by zero"),
    ):
        status, _, err = shell("opt", *arguments, "--passes", "fuse")
        assert status == 2 and err.startswith(f"detc: error: {message}"), err
    status, _, err = shell("opt", "broken.ir", "--passes", "fuse")
    assert status in (1, 2) and err.startswith("detc: error: ") and "line 2" in err


def test_an_installed_package_of_passes(tmp_path: Path) -> None:
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    target = ["--no-build-isolation", "--target", str(tmp_path / "site")]
    copy = tmp_path / "package"
    copy.mkdir()
    for file in [EXAMPLE / "pyproject.toml", EXAMPLE_FILE]:
        place = copy / file.relative_to(EXAMPLE)
        place.parent.mkdir(exist_ok=True)
        place.write_text(file.read_text())
    subprocess.run([*install, *target, str(copy)], check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "-m", "detc", "passes"],
        capture_output=True, text=True, check=True, env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""},
    )  # fmt: skip
    assert re.search(r"^expand-hard-swish +Replace hard-swish by its parts", done.stdout, re.MULTILINE)


def test_the_example_passes_keep_what_is_computed(small: Path) -> None:
    detc.passes.load_pass_file(EXAMPLE_FILE)
    graph = detc.load_graph(small)
    x = torch.linspace(-5, 5, 24).reshape(3, 8)
    result = parse_passes("expand-hard-swish,drop-output{name_of_output=z}").run(graph)
    assert [node.op.name for node in result if "hardswish" in node.op.name] == []
    assert list(result.outputs) == ["y"] and not any(node.op.name == "aten.relu" for node in result)
    expected = detc.ir.run(graph, {"x": x})["y"]
    torch.testing.assert_close(detc.ir.run(result, {"x": x})["y"], expected)
