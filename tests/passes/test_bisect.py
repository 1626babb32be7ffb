"""From a pipeline that breaks a model to the rewrite that did it, and the smallest graph that shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn
from typing_extensions import override

import detc
from detc.backends.arrays import batch_images
from detc.ir import Builder, Graph, IRError, Value, VerificationError
from detc.passes import (
    CheckNumerics,
    Context,
    DivergenceError,
    Match,
    NodePattern,
    NoMatch,
    Pass,
    PassError,
    Pattern,
    PatternBuilder,
    Pipeline,
    RewriteRule,
    apply_rules,
    bisect,
    extract,
    load_graph,
    load_inputs,
    parse_passes,
    reduce,
    save_graph,
)
from tests import zoo
from tests.checks import check_round_trip

NAME = "faster_rcnn_R_50_FPN"


class _Replace(RewriteRule):
    """relu(x)  ->  a hundred times a sigmoid, at one place; the same relu anywhere else"""

    def __init__(self, where: str) -> None:
        self.where = where

    @override
    def pattern(self, p: PatternBuilder, x: Pattern) -> NodePattern:
        return p.aten.relu(x)

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        if m.root.created_by == "break-one-relu":
            raise NoMatch("it was rewritten already")
        if m.root.source == self.where:
            return b.aten.mul.Tensor(b.aten.sigmoid(m.x), other=100.0)
        return b.aten.relu(m.x)


@dataclass(frozen=True)
class BreakOneRelu(Pass):
    """Rewrites every relu, the ones at `where` wrongly."""

    where: str = "proposal_generator.rpn_head.conv.activation"

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        return apply_rules(graph, [_Replace(self.where)], context)


@dataclass(frozen=True)
class FailOnPooling(Pass):
    """Has a fault of its own where it meets a pooling."""

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        for node in graph:
            if node.op.name == "det.roi_pool":
                raise KeyError("pooler")
        return False


@dataclass(frozen=True)
class BreakTypes(Pass):
    """Leaves a wrong type on the first softmax."""

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        for node in graph:
            if node.op.name == "aten.softmax.int":
                node.result.type = node.operand(0).producer.operand(0).type  # type: ignore[union-attr]
                return True
        return False


@pytest.fixture(scope="module")
def graph(loaded: Callable[[str], nn.Module]) -> Graph:
    return parse_passes("remove-postprocess,flatten-instances,canonicalize,fold-batch-norm").run(
        detc.capture(loaded(NAME))
    )


@pytest.fixture(scope="module")
def inputs() -> dict[str, torch.Tensor]:
    feed = batch_images([{"image": zoo.scene(0)}], 32)
    return {name: feed[name] for name in ("data", "im_info")}


def test_the_rewrite_that_changed_the_result(
    graph: Graph, inputs: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    passes = parse_passes("common-subexpressions,dead-code")
    passes.insert(1, BreakOneRelu())
    culprit = bisect(passes, graph, inputs)
    assert culprit is not None
    assert (culprit.index, culprit.pass_) == (2, BreakOneRelu())
    assert isinstance(culprit.error, DivergenceError)
    rewrite = culprit.rewrite
    assert rewrite is not None
    # Every relu of the backbone was rewritten rightly before.
    backbone = sum(n.op.name == "aten.relu" and n.source.startswith("backbone") for n in graph)
    assert backbone < rewrite.number <= rewrite.total == sum(n.op.name == "aten.relu" for n in graph)
    assert rewrite.rule == "_Replace"
    lines = rewrite.diff.splitlines()
    assert [line[0] for line in lines] == ["-", "+", "+"]
    assert all("proposal_generator.rpn_head.conv.activation" in line for line in lines)

    found = reduce(culprit.before, culprit.pass_, inputs)
    assert found is not None
    assert [node.op.name for node in found.graph] == ["aten.relu"]
    check_round_trip(found.graph)
    save_graph(found.graph, tmp_path / "small.ir", found.inputs)
    again, given = load_graph(tmp_path / "small.ir"), load_inputs(tmp_path / "small.ir")
    assert given is not None
    with pytest.raises(DivergenceError):
        Pipeline([BreakOneRelu()]).run(again, [CheckNumerics(given)])


def test_a_pass_with_a_fault_of_its_own(graph: Graph, inputs: dict[str, torch.Tensor]) -> None:
    culprit = bisect(Pipeline([FailOnPooling()]), graph, inputs)
    assert culprit is not None
    assert isinstance(culprit.error, PassError)
    assert culprit.rewrite is None
    found = reduce(graph, FailOnPooling(), inputs)
    assert found is not None
    assert [node.op.name for node in found.graph] == ["det.roi_pool"]


def test_a_pass_that_the_verifier_refuses(graph: Graph, inputs: dict[str, torch.Tensor]) -> None:
    culprit = bisect(Pipeline([BreakTypes()]), graph, inputs)
    assert culprit is not None
    assert isinstance(culprit.error, VerificationError)
    found = reduce(graph, BreakTypes(), inputs)
    assert found is not None
    # The pass looks at the softmax's operand's operand.
    assert [node.op.name for node in found.graph] == ["aten.linear", "aten.softmax.int"]


def test_a_lowering_with_one_wrong_rule(
    graph: Graph, inputs: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    from detc.backends.onnx.lower import table

    monkeypatch.setitem(table.TABLE, "aten.softmax.int", lambda b, node: b.onnx.Sigmoid(node.operand(0)))
    culprit = bisect(parse_passes("lower-to-onnx,dead-code"), graph, inputs)
    assert culprit is not None
    assert culprit.rewrite is not None
    assert (culprit.pass_.name, culprit.rewrite.rule) == ("lower-to-onnx", "aten.softmax.int")


def test_nothing_to_find(graph: Graph, inputs: dict[str, torch.Tensor]) -> None:
    assert bisect(parse_passes("fuse,dead-code"), graph, inputs) is None
    assert reduce(graph, parse_passes("fuse")[0], inputs) is None


def test_parts_of_a_graph(graph: Graph, inputs: dict[str, torch.Tensor]) -> None:
    head = [node for node in graph if node.source.startswith("roi_heads.box_head")]
    part = extract(graph, head)
    assert [node.op.name for node in part.graph] == [node.op.name for node in head]
    assert [value.producer.op.name for value in part.inputs.values() if value.producer] == ["det.roi_pool"]
    assert len(part.graph.outputs) == 1
    assert set(part.graph.weights) < set(graph.weights)
    detc.ir.verify(part.graph)
    whole = extract(graph, list(graph))
    assert detc.ir.difference(
        graph, whole.graph
    ) == "outputs ['boxes', 'scores', 'classes', 'batch_index'] and " + str(list(whole.graph.outputs))


def test_a_graph_that_does_not_run_is_no_pass_s_fault(graph: Graph) -> None:
    with pytest.raises((IRError, detc.InputError)):
        bisect(parse_passes("dead-code"), graph, {"data": torch.zeros(1, 3, 32, 32)})
