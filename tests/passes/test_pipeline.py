"""Pipeline: a list of passes, and how it runs them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from typing_extensions import override

from detc.ir import Graph, InputError, Node, UnsupportedError, VerificationError, difference, get_op, verify
from detc.passes import (
    Canonicalize,
    CommonSubexpressions,
    Context,
    DeadCode,
    FoldBatchNorm,
    FoldConstants,
    Observer,
    Pass,
    PassError,
    Pipeline,
)
from tests.checks import body_of, check_round_trip, graph_of

TEXT = "input %x: f32[N,4]\n%a: f32[N,4] = aten.relu(%x)\n%b: f32[N,4] = aten.neg(%a)\nreturn out=%a"


@dataclass(frozen=True)
class Break(Pass):
    """Does what `how` says."""

    how: str = "type"
    error: type[Exception] = ValueError

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        node = next(iter(graph))
        if self.how == "raise":
            raise self.error("no good")
        node.results[0].type = graph.inputs[0].tensor_type.with_shape(7)
        return True


def names(pipeline: Pipeline) -> list[str]:
    return [item.name for item in pipeline]


def test_a_pipeline_is_edited_like_a_list() -> None:
    pipeline = Pipeline([Canonicalize(), DeadCode()])
    pipeline.append(FoldBatchNorm())
    pipeline.insert(1, FoldConstants())
    pipeline.insert_before("dead-code", CommonSubexpressions())
    pipeline.insert_after("dead-code", CommonSubexpressions())
    assert names(pipeline) == [
        "canonicalize",
        "fold-constants",
        "common-subexpressions",
        "dead-code",
        "common-subexpressions",
        "fold-batch-norm",
    ]
    del pipeline[2]
    pipeline.remove("common-subexpressions")
    pipeline.remove(Canonicalize())
    pipeline.replace("dead-code", Canonicalize())
    pipeline[0] = FoldConstants(max_growth=1)
    assert list(pipeline) == [FoldConstants(max_growth=1), Canonicalize(), FoldBatchNorm()]
    assert "canonicalize" in pipeline
    assert Canonicalize() in pipeline
    assert "dead-code" not in pipeline
    assert DeadCode() not in pipeline
    assert pipeline.index("canonicalize") == pipeline.index(Canonicalize()) == 1
    assert pipeline.pop() == FoldBatchNorm()
    assert isinstance(pipeline[:1], Pipeline)
    dead_code = [DeadCode()]
    assert names(pipeline[:1] + dead_code) == ["fold-constants", "dead-code"]
    assert names(dead_code + pipeline[:1]) == ["dead-code", "fold-constants"]
    pipeline += [DeadCode()]
    pipeline[0:2] = [DeadCode()]
    pipeline.insert_before(0, Canonicalize())
    pipeline.insert_after(-1, FoldBatchNorm())
    assert names(pipeline) == ["canonicalize", "dead-code", "dead-code", "fold-batch-norm"]
    assert pipeline[-1] == FoldBatchNorm()


def test_a_copy_is_another_list() -> None:
    pipeline = Pipeline((Canonicalize(), DeadCode()))
    twin = pipeline.copy()
    assert twin == pipeline
    twin.remove("dead-code")
    assert twin != pipeline
    assert len(pipeline) == 2


def test_the_representation_reads_from_top_to_bottom() -> None:
    pipeline = Pipeline([Canonicalize(), FoldConstants(max_growth=8)])
    assert repr(pipeline) == "Pipeline([\n    Canonicalize(),\n    FoldConstants(max_growth=8),\n])"
    assert repr(Pipeline()) == "Pipeline([])"
    assert pipeline[1].spec == "fold-constants{max_growth=8}"
    assert pipeline[0].spec == "canonicalize"


def test_positions_that_are_not_there_are_errors() -> None:
    pipeline = Pipeline([Canonicalize(), DeadCode(), Canonicalize()])
    with pytest.raises(InputError, match="no pass 'fuse'; there are canonicalize, dead-code, canonicalize"):
        pipeline.insert_before("fuse", DeadCode())
    with pytest.raises(InputError, match="'canonicalize' stands at 0, 2: give the index"):
        pipeline.remove("canonicalize")
    with pytest.raises(InputError, match="no pass at 3"):
        pipeline.replace(3, DeadCode())
    with pytest.raises(ValueError, match="not in"):
        pipeline.index(FoldBatchNorm())


@pytest.mark.parametrize("edit", ["append", "construct", "assign", "slice"])
def test_only_passes_may_stand_in_a_pipeline(edit: str) -> None:
    pipeline = Pipeline([DeadCode()])
    with pytest.raises(InputError, match=r"did you mean DeadCode\(\)\?"):
        match edit:
            case "append":
                pipeline.append(DeadCode)  # type: ignore[arg-type]
            case "construct":
                Pipeline([DeadCode])  # type: ignore[list-item]
            case "assign":
                pipeline[0] = DeadCode
            case "slice":
                pipeline[0:1] = [DeadCode]
    assert list(pipeline) == [DeadCode()]


def test_running_leaves_the_graph_and_its_weights_alone() -> None:
    graph = graph_of(TEXT.replace("aten.relu(%x)", "aten.mul.Tensor(%x, @w:f32[4])"))
    before = body_of(graph)
    context = Context()
    result = Pipeline([DeadCode(), Canonicalize()]).run(graph, context=context)
    assert body_of(graph) == before
    assert len(result) == 1
    assert result.weights["w"].data is graph.weights["w"].data
    assert [(r.index, r.name, r.changed, r.nodes_before, r.nodes_after) for r in context.runs] == [
        (1, "dead-code", True, 2, 1),
        (2, "canonicalize", False, 1, 1),
    ]
    assert all(r.seconds >= 0 for r in context.runs)
    assert ("canonicalize", "DropCopy") in context.rules


@pytest.mark.parametrize(("stop_after", "nodes"), [(0, 2), (1, 2), (2, 1), ("dead-code", 1), (None, 1)])
def test_stopping_early(stop_after: int | str | None, nodes: int) -> None:
    pipeline = Pipeline([Canonicalize(), DeadCode()])
    assert len(pipeline.run(graph_of(TEXT), stop_after=stop_after)) == nodes


def test_stopping_where_there_is_nothing() -> None:
    for where in (3, -1, "fuse"):
        with pytest.raises(InputError):
            Pipeline([DeadCode()]).run(graph_of(TEXT), stop_after=where)


def test_a_pass_that_breaks_a_rule_of_the_ir_is_named() -> None:
    with pytest.raises(VerificationError, match=r"after the pass break\)"):
        Pipeline([DeadCode(), Break()]).run(graph_of(TEXT))
    Pipeline([DeadCode(), Break()]).run(graph_of(TEXT), verify=False)


def test_a_broken_graph_is_not_even_begun_with() -> None:
    graph = graph_of(TEXT)
    Break().apply(graph, Context())
    with pytest.raises(VerificationError):
        Pipeline().run(graph)


def test_a_failing_pass_is_named() -> None:
    with pytest.raises(PassError, match="the pass break failed: ValueError: no good") as caught:
        Pipeline([Break("raise")]).run(graph_of(TEXT))
    assert isinstance(caught.value.__cause__, ValueError)


def test_detcs_own_errors_keep_their_type_and_get_the_pass() -> None:
    with pytest.raises(UnsupportedError, match=r"^break: no good$") as caught:
        Pipeline([Break("raise", UnsupportedError)]).run(graph_of(TEXT))
    assert caught.value.pass_name == "break"


class Log(Observer):
    def __init__(self, name: str, events: list[str]) -> None:
        self.name, self.events = name, events

    @override
    def start(self, graph: Graph) -> None:
        self.events.append(f"{self.name} start")

    @override
    def before(self, graph: Graph, pass_: Pass, index: int) -> None:
        self.events.append(f"{self.name} before {index}")

    @override
    def after(self, graph: Graph, pass_: Pass, index: int, changed: bool) -> None:
        self.events.append(f"{self.name} after {index} {changed}")

    @override
    def finish(self) -> None:
        self.events.append(f"{self.name} finish")


def test_observers_are_nested_and_always_finish() -> None:
    events: list[str] = []
    Pipeline([DeadCode()]).run(graph_of(TEXT), [Log("a", events), Log("b", events)])
    assert events[:4] == ["a start", "b start", "a before 1", "b before 1"]
    assert events[4:] == ["b after 1 True", "a after 1 True", "b finish", "a finish"]
    events.clear()
    with pytest.raises(PassError):
        Pipeline([Break("raise")]).run(graph_of(TEXT), [Log("a", events)])
    assert events == ["a start", "a before 1", "a finish"]


def test_a_graph_survives_its_passes_round_trip(tmp_path: Path) -> None:
    result = Pipeline([Canonicalize(), DeadCode()]).run(graph_of(TEXT))
    check_round_trip(result)
    assert difference(result, result.clone()) is None


def test_the_context_marks_who_makes_nodes() -> None:
    @dataclass(frozen=True)
    class AddNeg(Pass):
        @override
        def apply(self, graph: Graph, context: Context) -> bool:
            last = graph.nodes[-1]
            graph.set_outputs({"out": context.builder(graph, last).aten.abs(graph.inputs[0])})
            return True

    result = Pipeline([AddNeg()]).run(graph_of(TEXT))
    made = result.outputs["out"].producer
    assert isinstance(made, Node)
    assert made.created_by == "add-neg"
    assert made.op is get_op("aten.abs")
    verify(result)
    assert torch.float32 is result.outputs["out"].dtype
