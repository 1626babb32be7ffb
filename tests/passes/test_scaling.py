"""The generic passes take time in proportion to the graph: eight times the nodes, eight times the work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch

from benchmarks.peers import DETC, ONNX, READING, SIDES, Side, measure, sections
from benchmarks.scaling import PASSES, synthetic_graph
from detc.ir import Builder, Graph, TensorType, print_graph, symbol, verify
from detc.passes import Context, Pass

SMALL, LARGE = 400, 3200


@lru_cache
def graph_of_size(nodes: int) -> Graph:
    return synthetic_graph(nodes)


def calls(function: Callable[[], Any]) -> int:
    """How many Python calls it takes, generators' steps included: work, measured without a clock."""
    count = 0

    def on_event(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(on_event)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def seconds(make: Callable[[], Callable[[], Any]]) -> float:
    """The least processor time of three runs."""
    best = float("inf")
    for _ in range(3):
        function = make()
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def applied(item: Pass, nodes: int) -> Callable[[], Any]:
    copy = graph_of_size(nodes).clone()
    return lambda: item.apply(copy, Context(item.name))


def check_linear(make: Callable[[int], Callable[[], Any]]) -> None:
    small, large = len(graph_of_size(SMALL)), len(graph_of_size(LARGE))
    make(SMALL)()  # fills the caches of inferred types
    work = (calls(make(LARGE)) / large) / (calls(make(SMALL)) / small)
    assert work < 1.1
    # What runs in C is not counted above. A pass that is quadratic there takes 8 times as long for a node.
    spent = (seconds(lambda: make(LARGE)) / large) / (seconds(lambda: make(SMALL)) / small)
    assert spent < 4


@pytest.mark.parametrize("item", PASSES, ids=lambda item: item.name)
def test_a_pass_is_linear(item: Pass) -> None:
    assert applied(item, SMALL)(), "the graph must have work for the pass"
    check_linear(lambda nodes: applied(item, nodes))


def test_cloning_verifying_and_printing_are_linear() -> None:
    for function in (Graph.clone, verify, print_graph):
        check_linear(lambda nodes, f=function: lambda: f(graph_of_size(nodes)))  # type: ignore[misc]


def test_whether_a_size_is_used_does_not_depend_on_how_often() -> None:
    def asked(users: int) -> Callable[[], Any]:
        graph = Graph("sizes")
        x = graph.add_input("x", TensorType(torch.float32, (symbol("N"), 4)))
        y = graph.add_input("y", TensorType(torch.float32, (4,)))
        for _ in range(users):
            Builder(graph).aten.expand(y, size=(symbol("N"), 4))
        return lambda: [x.is_used for _ in range(1000)]

    assert seconds(lambda: asked(2000)) < 10 * seconds(lambda: asked(20))


def removed(side: Side, operation: str, blocks: int = 8) -> int:
    """How many nodes an operation takes out of the graph with that many blocks."""
    graph = side.copy(side.build(12 * blocks))
    before = list(side.nodes(graph))
    return len(before) - len(list(side.nodes(side.operations[operation](graph))))


@pytest.mark.parametrize(
    "operation", ["dead-code", "common-subexpressions", "fold-constants", "fold-batch-norm"]
)
def test_the_peers_do_the_same_work(operation: str) -> None:
    counts = {side.name: removed(side, operation) for side in SIDES if operation in side.operations}
    assert len(counts) > 1 and set(counts.values()) == {counts["detc"]} and counts["detc"] > 0


def test_the_benchmark_gives_a_row_for_each_operation_and_size() -> None:
    rows = measure([48, 96])
    assert [row["what"] for row in rows] == [*DETC.operations] * 2
    for row in rows:
        measured = [side.name for side in SIDES if row["what"] in side.operations]
        assert all(row[name] > 0 for name in measured) and (row["ratio"] is None) == (len(measured) == 1)
    assert {*ONNX.operations} < {*DETC.operations} and {*READING} < {*DETC.operations}
    growth, compared = sections(rows)
    assert len(growth.rows) == len(DETC.operations) and len(compared.details) == len(rows) + 1
