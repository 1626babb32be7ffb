"""Every generic pass on random graphs: results, verifier, use lists, text form, the truth about "changed"."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from detc.ir import Graph, difference, run, verify
from detc.passes import (
    Canonicalize,
    CheckNumerics,
    CommonSubexpressions,
    DeadCode,
    FlattenInstances,
    FoldBatchNorm,
    FoldConstants,
    Fuse,
    Pass,
    Pipeline,
)
from tests.checks import check_pass, check_round_trip, check_same_results, check_use_lists
from tests.strategies import graphs, inputs_for

GENERIC = (
    DeadCode(),
    CommonSubexpressions(),
    FoldConstants(),
    Canonicalize(),
    FoldBatchNorm(),
    Fuse(),
    Fuse(merge_parallel=True),
)
slow = settings(
    max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.mark.parametrize("item", GENERIC, ids=lambda item: item.spec)
@slow
@given(graph=graphs())
def test_a_pass_keeps_what_the_graph_computes(item: Pass, graph: Graph) -> None:
    check_pass(item, graph, inputs_for(graph))


@slow
@given(graph=graphs())
def test_random_graphs_are_valid_and_their_text_reads_back(graph: Graph) -> None:
    verify(graph)
    check_use_lists(graph)
    check_round_trip(graph)
    twin = graph.clone()
    assert difference(graph, twin) is None
    check_use_lists(twin)
    verify(twin)


@settings(slow, max_examples=12)
@given(graph=graphs(max_steps=24))
def test_the_passes_one_after_another(graph: Graph) -> None:
    pipeline = Pipeline(
        [Canonicalize(), FoldConstants(), *GENERIC, FlattenInstances(), Canonicalize(), DeadCode()]
    )
    inputs = [inputs_for(graph), inputs_for(graph, images=1, rows=0), inputs_for(graph, images=3, seed=1)]
    result = pipeline.run(graph, [CheckNumerics(inputs)])
    assert result.level == "flat"
    assert all(v.type.rank is not None for v in result.outputs.values())


@slow
@given(graph=graphs())
def test_flattened_instances_hold_the_same_tensors(graph: Graph) -> None:
    flat = Pipeline([FlattenInstances()]).run(graph)
    check_use_lists(flat)
    check_round_trip(flat)
    inputs = inputs_for(graph)
    expected, actual = run(graph, inputs), run(flat, inputs)
    for name, value in expected.items():
        fields = getattr(value, "fields", None)
        if fields is None:
            check_same_results({name: value}, {name: actual[name]})
        else:
            names = {"pred_boxes": "boxes"}
            for field, tensor in fields.items():
                check_same_results({"field": tensor}, {"field": actual[names.get(field, field)]})
