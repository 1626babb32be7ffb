"""Analyses against what runs: memory against the interpreter, FLOPs against torch's counter, paths by brute force."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import detc
from detc.backends.arrays import batch_images
from detc.commands.main import main
from detc.ir import Graph, IRError, Node, Value
from detc.ir.interpreter import run
from detc.passes import extract, parse_passes, save_graph
from detc.passes.analysis import (
    def_use_graph,
    dominators,
    example_sizes,
    find_subgraphs,
    flops,
    liveness,
    module_costs,
    slice_between,
)
from tests import zoo
from tests.checks import graph_of
from tests.passes.test_properties import slow
from tests.strategies import graphs

NAME = "faster_rcnn_R_50_FPN"


@pytest.fixture(scope="module")
def graph(captured: Callable[[str], Graph]) -> Graph:
    return parse_passes("remove-postprocess,flatten-instances,canonicalize").run(captured(NAME))


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    feed = batch_images([{"image": zoo.scene(0)}, {"image": zoo.scene(3)}], 32)
    return {name: feed[name] for name in ("data", "im_info")}


def measured_sizes(graph: Graph, inputs: dict[str, Tensor]) -> tuple[dict[str, int], dict[Value, int]]:
    """The symbolic sizes of a run, and each value's bytes in it."""
    sizes: dict[str, int] = {}
    taken = {value: inputs[value.name].nbytes for value in graph.inputs}

    def look(node: Node, results: Sequence[Any]) -> None:
        for value, result in zip(node.results, results, strict=True):
            taken[value] = result.nbytes
            detc.ir.interpreter.bind(value.type, result, sizes)

    for value in graph.inputs:
        detc.ir.interpreter.bind(value.type, inputs[value.name], sizes)
    run(graph, inputs, hook=look)
    return sizes, taken


def test_memory_is_what_a_run_holds(graph: Graph, inputs: dict[str, Tensor]) -> None:
    sizes, taken = measured_sizes(graph, inputs)
    found = liveness(graph, sizes)
    nodes = list(graph)
    last = {value: max((nodes.index(u) for u in value.users), default=-1) for value in taken}
    made = {value: nodes.index(value.producer) if value.producer else -1 for value in taken}
    peak = 0
    for i, node in enumerate(nodes):
        live = sum(
            size
            for value, size in taken.items()
            if made[value] <= i and (last[value] >= i or value.is_output or made[value] == i)
        )
        assert found.live_bytes[node] == live, node
        peak = max(peak, live)
    assert found.peak == peak == found.live_bytes[found.at]  # type: ignore[index]
    assert found.weights == sum(weight.data.nbytes for weight in graph.weights.values())
    assert all(found.last_use[value] is None for value in graph.outputs.values())


def test_flops_are_torch_s(graph: Graph, inputs: dict[str, Tensor]) -> None:
    sizes, _ = measured_sizes(graph, inputs)
    with FlopCounterMode(display=False) as counter:
        run(graph, inputs)
    assert sum(flops(node, sizes) for node in graph) == counter.get_total_flops()


@pytest.mark.parametrize("target", ["onnx", "caffe2"])
def test_flops_of_convolutions_are_the_same_on_every_target(
    graph: Graph, captured: Callable[[str], Graph], target: str
) -> None:
    lowered = detc.pipeline(target).run(captured(NAME))
    sizes = {"N": 1, "H": 64, "W": 96, "proposals": 50, "detections": 7}

    def of_convolutions(g: Graph) -> int:
        at = example_sizes(g, {name: size for name, size in sizes.items() if name in example_sizes(g)})
        parts = ("backbone", "proposal_generator.rpn_head")
        return sum(flops(node, at) for node in g if node.source.startswith(parts))

    assert of_convolutions(lowered) == of_convolutions(graph) > 0


def test_costs_by_module(graph: Graph) -> None:
    costs = {cost.path: cost for cost in module_costs(graph)}
    whole, parts = costs[""], [costs[name] for name in ("backbone", "proposal_generator", "roi_heads")]
    for field in ("flops", "parameters"):
        assert getattr(whole, field) == sum(getattr(part, field) for part in parts) > 0
    assert whole.nodes == len(graph) >= sum(part.nodes for part in parts)
    # The levels of the RPN share its weights: they count once.
    head = costs["proposal_generator.rpn_head"]
    assert head.parameters == sum(
        w.data.nbytes for name, w in graph.weights.items() if name.startswith("proposal_generator.rpn_head.")
    )
    assert max(cost.path.count(".") for cost in module_costs(graph, depth=1)) == 0


@slow
@given(graph=graphs())
def test_dominators_by_brute_force(graph: Graph) -> None:
    flow = nx.DiGraph(def_use_graph(graph))
    sources = [vertex for vertex in flow if not flow.in_degree(vertex)]
    found = dominators(graph)

    def cut_off(without: object) -> set[object]:
        rest = flow.subgraph(vertex for vertex in flow if vertex is not without)
        reached = set(sources) - {without}
        for source in list(reached):
            reached |= nx.descendants(rest, source)
        return set(flow) - reached - {without}

    above = {node: {v for v in flow if v is not node and node in cut_off(v)} for node in graph}
    for node in graph:
        if found[node] is None:
            assert above[node] == set()
        else:
            # The immediate one is dominated by all others.
            assert found[node] in above[node] and len(above[node]) == 1 + len(above.get(found[node], ()))  # type: ignore[call-overload]


def test_what_lies_between_two_values(graph: Graph, inputs: dict[str, Tensor]) -> None:
    features = [next(r for n in graph for r in n.results if r.name == name) for name in ("p2", "p3")]
    boxes = graph.outputs["boxes"]
    nodes = slice_between(graph, features, boxes)
    assert boxes.producer in nodes and all(f.producer not in nodes for f in features)
    assert {node.op.name for node in nodes} >= {"det.rpn_proposals", "det.roi_pool", "det.box_inference"}
    part = extract(graph, nodes, {"boxes": boxes})
    assert {"p2", "p3", "p4", "p5", "im_info"} <= set(part.inputs)
    values: dict[Value, Any] = {value: inputs[value.name] for value in graph.inputs}
    expected = run(
        graph, inputs, hook=lambda node, results: values.update(zip(node.results, results, strict=True))
    )
    again = run(part.graph, {name: values[value] for name, value in part.inputs.items()})
    assert torch.equal(again["boxes"], expected["boxes"])
    assert slice_between(graph, boxes, features) == []


PATTERN = """
  input %x: f32[N,C,H,W]
  input %w: f32[O,C,K,K]
  input %b: f32[O]
  %0: f32[N,O,H,W] = aten.conv2d(%x, %w, %b)
  %1: f32[N,O,H,W] = aten.relu(%0)
  return y=%1
"""


def test_a_pattern_in_a_graph(graph: Graph) -> None:
    folded = parse_passes("fold-batch-norm").run(graph)
    pattern = graph_of(
        "input %x: f32[N,8]\n%0: f32[N,8] = aten.relu(%x)\n%1: f32[N,8] = aten.relu(%0)\nreturn y=%1"
    )
    assert list(find_subgraphs(folded, pattern)) == []
    pattern = detc.parse_graph(f"graph p (level=captured) {{{PATTERN}}}\n")
    places = list(find_subgraphs(folded, pattern))
    pairs = [n for n in folded if n.op.name == "aten.relu" and n.operand(0).producer.op.name == "aten.conv2d"]  # type: ignore[union-attr]
    relu = list(pattern)[1]
    assert {place[relu] for place in places} == set(pairs) and len(places) == len(pairs) > 10
    strict = list(find_subgraphs(folded, pattern, attributes=True))
    assert 0 < len(strict) < len(places)


def test_operands_keep_their_places() -> None:
    graph = graph_of(
        """
        input %x: f32[8]
        input %y: f32[8]
        %0: f32[8] = aten.relu(%x)
        %1: f32[8] = aten.sub.Tensor(%y, %0)
        %2: f32[8] = aten.sub.Tensor(%0, %0)
        return a=%1, b=%2
        """
    )
    head = "input %x: f32[8]\n%0: f32[8] = aten.relu(%x)\n"
    first = graph_of(head + "input %z: f32[8]\n%1: f32[8] = aten.sub.Tensor(%0, %z)\nreturn a=%1")
    twice = graph_of(head + "%1: f32[8] = aten.sub.Tensor(%0, %0)\nreturn a=%1")
    nodes = list(graph)
    for pattern, expected in ((first, nodes[2]), (twice, nodes[2])):
        (place,) = find_subgraphs(graph, pattern)
        assert place[list(pattern)[1]] is expected


def test_sizes_that_do_not_fit(graph: Graph) -> None:
    for given_sizes, message in (
        ({"Q": 3}, "has no size 'Q'"),
        ({"H": 33}, "H must be a positive multiple of 32"),
    ):
        with pytest.raises(IRError, match=message):
            example_sizes(graph, given_sizes)
    with pytest.raises(IRError, match="size H is not known"):
        liveness(graph, {"N": 1})


def test_the_command(graph: Graph, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_graph(graph, tmp_path / "m.ir")
    (tmp_path / "p.ir").write_text(f"graph p (level=captured) {{{PATTERN}}}\n")
    options = [
        "analyze",
        str(tmp_path / "m.ir"),
        "--size",
        "H=64",
        "--size",
        "W=96",
        "--find",
        str(tmp_path / "p.ir"),
    ]
    assert main([*options, "--between", "p2", "boxes", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["sizes"]["H"], found["sizes"]["N"], found["nodes"]) == (64, 1, len(graph))
    assert found["peak_activation_bytes"] == found["live_bytes"][0]["bytes"]
    assert found["dominators"]["boxes"][0].endswith("det.box_inference  # roi_heads.box_predictor")
    assert main([*options, "--depth", "1"]) == 0
    printed = capsys.readouterr().out
    for text in (f"{len(graph)} nodes, ", "\nbackbone ", "\nroi_heads ", "dominators", "found 5 times"):
        assert text in printed
    assert "backbone.bottom_up " not in printed.split("where most memory")[0]
    for wrong, message in (("H=x", "--size wants NAME=NUMBER"), ("H=65", "H must be a positive multiple")):
        assert main(["analyze", str(tmp_path / "m.ir"), "--size", wrong]) == 2
        assert capsys.readouterr().err.startswith(f"detc: error: {message}")
