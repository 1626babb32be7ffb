"""Dumping, printing, timing, counting, checking numerically, and finding the culprit."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typing_extensions import override

from detc.ir import Graph, InputError, ParseError, VerificationError, difference, print_graph
from detc.passes import (
    Canonicalize,
    CheckNumerics,
    CommonSubexpressions,
    Context,
    CountNodes,
    DeadCode,
    DivergenceError,
    DumpIR,
    FlattenInstances,
    FoldBatchNorm,
    Pass,
    PassError,
    Pipeline,
    PrintAfter,
    PrintChanged,
    RemovePostprocess,
    Timing,
    bisect,
    load_graph,
)
from tests.checks import graph_of, joined, random_inputs
from tests.detection import detector, detector_inputs

TEXT = joined("""
    input %x: f32[N,3,H,W]
    %a: f32[N,4,H,W] = aten.conv2d(%x, @c.weight:f32[4,3,1,1])
    %b: f32[N,4,H,W] = aten.mul.Tensor(%a, other=2.0)
    %c: f32[N,4,H,W] = aten.clone(%b)
    return out=%c""")
PIPELINE = (Canonicalize(), FoldBatchNorm(), DeadCode())
SIZES = {"N": 2, "H": 3, "W": 4}


@dataclass(frozen=True)
class Scale(Pass):
    """Multiplies a weight's data behind the graph's back: a pass with a fault."""

    factor: float = 1.5
    level: str = field(default="", compare=False)

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        for weight in graph.weights.values():
            weight.data = weight.data * self.factor
        graph.level = self.level or graph.level
        return True


# DumpIR


def test_dumps_are_numbered_and_read_back(tmp_path: Path) -> None:
    graph = graph_of(TEXT)
    folder = tmp_path / "deep" / "dump"
    result = Pipeline(PIPELINE).run(graph, [DumpIR(folder)])
    names = ["000_captured.ir", "001_canonicalize.ir", "002_fold-batch-norm.ir", "003_dead-code.ir"]
    assert sorted(path.name for path in folder.iterdir()) == [*names, "weights.safetensors"]
    first, last = load_graph(folder / names[0]), load_graph(folder / names[-1])
    assert difference(first, graph) is None
    assert difference(last, result) is None
    assert list(first.weights) == ["c.weight"]
    assert list(last.weights) == ["c.weight_folded", "c.bias_folded"]


def test_a_weight_that_changes_gets_a_name_of_its_own(tmp_path: Path) -> None:
    graph = graph_of(TEXT)
    result = Pipeline([Scale(), Scale()]).run(graph, [DumpIR(tmp_path)])
    stages = [load_graph(path) for path in sorted(tmp_path.glob("*.ir"))]
    assert [list(stage.weights) for stage in stages] == [["c.weight"], ["c.weight__001"], ["c.weight__002"]]
    original = graph.weights["c.weight"].data
    for stage, factor in zip(stages, (1.0, 1.5, 2.25), strict=True):
        (weight,) = stage.weights.values()
        torch.testing.assert_close(weight.data, original * factor)
    assert list(result.weights) == ["c.weight"]


def test_weights_that_share_storage_are_written(tmp_path: Path) -> None:
    graph = graph_of(TEXT)
    data = graph.weights["c.weight"].data
    for name, view in (("tied", data), ("part", data[1:]), ("turned", data.permute(1, 0, 2, 3))):
        graph.add_weight(name, view)
    graph.set_outputs({"out": graph.outputs["out"], **dict(list(graph.weights.items())[1:])})
    Pipeline([DeadCode()]).run(graph, [DumpIR(tmp_path)])
    again = load_graph(tmp_path / "000_captured.ir")
    assert difference(graph, again) is None
    for name, weight in again.weights.items():
        assert torch.equal(weight.data, graph.weights[name].data)


def test_an_earlier_dump_is_replaced_and_other_files_stay(tmp_path: Path) -> None:
    Pipeline(PIPELINE).run(graph_of(TEXT), [DumpIR(tmp_path)])
    (tmp_path / "notes.txt").write_text("mine")
    Pipeline([DeadCode()]).run(graph_of(TEXT), [DumpIR(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "000_captured.ir",
        "001_dead-code.ir",
        "notes.txt",
        "weights.safetensors",
    ]


@pytest.mark.parametrize("content", ["foreign", "garbage"])
def test_weights_of_another_origin_are_not_overwritten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "weights.safetensors"
    if content == "foreign":
        save_file({"x": torch.zeros(1)}, path)
    else:
        path.write_bytes(b"garbage")
    before = path.read_bytes()
    with pytest.raises(InputError, match="choose another folder"):
        Pipeline([DeadCode()]).run(graph_of(TEXT), [DumpIR(tmp_path)])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["weights.safetensors"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write IR to"):
        Pipeline().run(graph_of(TEXT), [DumpIR(tmp_path / "file" / "dump")])


def test_what_failed_is_dumped_too(tmp_path: Path) -> None:
    with pytest.raises(VerificationError):
        Pipeline([Scale(level="onnx")]).run(graph_of(TEXT), [DumpIR(tmp_path)])
    assert load_graph(tmp_path / "001_scale.ir").level == "onnx"
    assert (tmp_path / "weights.safetensors").exists()


def test_files_that_are_no_dumps(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        load_graph(tmp_path / "000_captured.ir")
    (tmp_path / "text.ir").write_text("hello")
    with pytest.raises(ParseError, match="line 1"):
        load_graph(tmp_path / "text.ir")
    (tmp_path / "binary.ir").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ParseError, match="is no text"):
        load_graph(tmp_path / "binary.ir")
    (tmp_path / "text.ir").write_text(print_graph(graph_of(TEXT)))
    assert load_graph(tmp_path / "text.ir").weights["c.weight"].data.is_meta
    (tmp_path / "weights.safetensors").write_bytes(b"garbage")
    with pytest.raises(InputError, match="cannot read"):
        load_graph(tmp_path / "text.ir")


# Printing


def test_printing_after_some_passes() -> None:
    stream = io.StringIO()
    result = Pipeline(PIPELINE).run(graph_of(TEXT), [PrintAfter(["dead-code"], stream)])
    assert stream.getvalue() == f"# after 003 dead-code\n{print_graph(result)}\n"


def test_printing_after_all_passes(capsys: pytest.CaptureFixture[str]) -> None:
    Pipeline(PIPELINE).run(graph_of(TEXT), [PrintAfter()])
    headers = re.findall(r"^# after .*$", capsys.readouterr().out, re.MULTILINE)
    assert headers == ["# after 001 canonicalize", "# after 002 fold-batch-norm", "# after 003 dead-code"]


CHANGES = """\
# 001 canonicalize: -2 +1
- %c: f32[N,4,H,W] = aten.clone(%b)
- return out=%c
+ return out=%b
# 002 fold-batch-norm: -3 +2
+ %b_2: f32[N,4,H,W] = aten.conv2d(%x, @c.weight_folded:f32[4,3,1,1], @c.bias_folded:f32[4])
- %a: f32[N,4,H,W] = aten.conv2d(%x, @c.weight:f32[4,3,1,1])
- %b: f32[N,4,H,W] = aten.mul.Tensor(%a, other=2.0)
- return out=%b
+ return out=%b_2
# 003 dead-code: no change
"""


def test_printing_only_what_changed() -> None:
    stream = io.StringIO()
    Pipeline(PIPELINE).run(graph_of(TEXT), [PrintChanged(stream)])
    named = re.sub(r"%b_\d+", "%b_2", stream.getvalue()).replace("  #  | fold-batch-norm", "")
    assert named == CHANGES


def test_unnamed_values_keep_their_numbers_in_the_changes() -> None:
    text = joined("""
        input %x: f32[N]
        %0: f32[N] = aten.clone(%x)
        %1: f32[N] = aten.relu(%x)
        %2: f32[N] = aten.neg(%1)
        return out=%2""")
    stream = io.StringIO()
    Pipeline([DeadCode()]).run(graph_of(text), [PrintChanged(stream, color=True)])
    assert stream.getvalue() == ("# 001 dead-code: -1 +0\n\x1b[31m- %0: f32[N] = aten.clone(%x)\x1b[0m\n")


def test_changes_of_the_inputs_and_of_the_level_are_printed() -> None:
    stream = io.StringIO()
    Pipeline([RemovePostprocess(), FlattenInstances()]).run(detector(), [PrintChanged(stream)])
    lines = stream.getvalue().splitlines()
    assert "- input %output_size: i64[N,2]" in lines
    assert "- level=captured" in lines
    assert "+ level=flat" in lines


# Timing and counting


def test_timing() -> None:
    timing = Timing()
    Pipeline(PIPELINE).run(graph_of(TEXT), [timing])
    assert [time.name for time in timing.times] == ["canonicalize", "fold-batch-norm", "dead-code"]
    assert all(time.seconds > 0 for time in timing.times)
    lines = timing.report().splitlines()
    assert len(lines) == 4
    assert lines[-1].endswith("ms 100.0%  all")


def test_counting_nodes() -> None:
    count = CountNodes()
    Pipeline(PIPELINE).run(graph_of(TEXT), [count])
    assert [(name, sum(ops.values())) for name, ops in count.history] == [
        ("start", 3),
        ("canonicalize", 2),
        ("fold-batch-norm", 1),
        ("dead-code", 1),
    ]
    assert count.report().splitlines() == [
        "     3  start",
        "     2  canonicalize  aten.clone -1",
        "     1  fold-batch-norm  aten.mul.Tensor -1",
        "     1  dead-code",
    ]


# CheckNumerics and bisect


def inputs_of(graph: Graph) -> dict[str, Any]:
    return random_inputs(graph, SIZES)


def test_the_numbers_are_compared_after_each_pass() -> None:
    graph = graph_of(TEXT)
    check = CheckNumerics([inputs_of(graph), random_inputs(graph, SIZES, seed=1)])
    Pipeline(PIPELINE).run(graph, [check])
    assert [report.name for report in check.reports] == [item.name for item in PIPELINE]
    assert all(set(report.differences) == {"out"} for report in check.reports)
    assert check.report().splitlines()[0] == "001 canonicalize: out 0.00e+00"


def test_a_pass_that_changes_the_result_is_named() -> None:
    graph = graph_of(TEXT)
    pipeline = Pipeline([Canonicalize(), Scale(1.01), DeadCode()])
    with pytest.raises(DivergenceError, match="after the pass scale the output 'out' differs: ") as caught:
        pipeline.run(graph, [CheckNumerics(inputs_of(graph))])
    assert (caught.value.after, caught.value.output) == ("scale", "out")


def test_a_change_within_the_tolerances_passes() -> None:
    graph = graph_of(TEXT)
    check = CheckNumerics(inputs_of(graph))
    Pipeline([Scale(1.0001)]).run(graph, [check])
    assert 0 < check.reports[0].differences["out"] < 1e-3


def test_a_second_input_is_compared_too() -> None:
    graph = graph_of(TEXT)
    zeros = {"x": torch.zeros(2, 3, 3, 4)}
    Pipeline([Scale(3.0)]).run(graph, [CheckNumerics(zeros)])
    with pytest.raises(DivergenceError):
        Pipeline([Scale(3.0)]).run(graph, [CheckNumerics([zeros, inputs_of(graph)])])


def test_a_reference_of_ones_own_is_compared_from_the_start() -> None:
    graph, other = graph_of(TEXT), graph_of(TEXT)
    Scale(2.0).apply(other, Context())
    with pytest.raises(DivergenceError, match="after the pass start"):
        Pipeline([DeadCode()]).run(graph, [CheckNumerics(inputs_of(graph), reference=other)])
    check = CheckNumerics(inputs_of(graph), reference=graph_of(TEXT))
    Pipeline([DeadCode()]).run(graph, [check])
    assert [report.index for report in check.reports] == [0, 1]


def test_a_missing_output_is_a_divergence() -> None:
    @dataclass(frozen=True)
    class Drop(Pass):
        @override
        def apply(self, graph: Graph, context: Context) -> bool:
            graph.set_outputs({})
            return True

    graph = graph_of(TEXT)
    with pytest.raises(DivergenceError, match="it is missing"):
        Pipeline([Drop()]).run(graph, [CheckNumerics(inputs_of(graph))])


def test_a_detector_whose_scores_change_is_noticed() -> None:
    pipeline = Pipeline([Canonicalize(), FlattenInstances(), Scale(1.5)])
    plain = detector(postprocess=False)
    given = {name: tensor for name, tensor in detector_inputs().items() if name != "output_size"}
    with pytest.raises(
        DivergenceError, match=r"after the pass scale the output 'boxes' differs: a detection"
    ):
        pipeline.run(plain, [CheckNumerics(given)])


def test_bisect_names_the_first_pass_that_is_wrong() -> None:
    graph = graph_of(TEXT)
    inputs = inputs_of(graph)
    sound = [Canonicalize(), CommonSubexpressions()]
    assert bisect(Pipeline([*sound, DeadCode()]), graph, inputs) is None
    found = bisect(Pipeline([*sound, Scale(2.0), Scale(3.0)]), graph, inputs)
    assert found is not None
    assert (found.index, found.pass_) == (3, Scale(2.0))
    assert isinstance(found.error, DivergenceError)
    broken = bisect(Pipeline([*sound, Scale(1.0, level="onnx")]), graph, inputs)
    assert broken is not None
    assert (broken.index, type(broken.error)) == (3, VerificationError)


def test_bisect_names_a_pass_that_fails() -> None:
    @dataclass(frozen=True)
    class Fail(Pass):
        @override
        def apply(self, graph: Graph, context: Context) -> bool:
            raise KeyError("oops")

    graph = graph_of(TEXT)
    found = bisect(Pipeline([DeadCode(), Fail()]), graph, inputs_of(graph))
    assert found is not None
    assert (found.index, type(found.error)) == (2, PassError)


def test_bisect_does_not_blame_a_pass_for_the_inputs() -> None:
    with pytest.raises(InputError, match="missing: x"):
        bisect(Pipeline([DeadCode()]), graph_of(TEXT), {})
