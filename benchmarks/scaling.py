"""How the generic passes grow with the graph: time on synthetic graphs of 1k, 10k and 100k nodes.

    python -m benchmarks.scaling [NODES ...]

The graph is a chain of blocks as networks have them, with work for every pass. What counts is the last
column: the time per node on the largest graph against that on the smallest. Linear passes have a ratio of
about one.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from detc.ir import (
    Builder,
    Graph,
    TensorType,
    Value,
    parse_graph,
    paused_collector,
    print_graph,
    symbol,
    verify,
)
from detc.passes import (
    Canonicalize,
    CommonSubexpressions,
    Context,
    DeadCode,
    FoldBatchNorm,
    FoldConstants,
    Fuse,
    Pass,
)

SIZES = (1_000, 10_000, 100_000)
PASSES: tuple[Pass, ...] = (
    DeadCode(),
    CommonSubexpressions(),
    FoldConstants(),
    Canonicalize(),
    FoldBatchNorm(),
    Fuse(),
)


def synthetic_graph(nodes: int) -> Graph:
    """A graph of about that many nodes, with dead code, repetitions, constants, views and batch norms."""
    graph = Graph("synthetic")
    x: Value = graph.add_input("x", TensorType(torch.float32, (symbol("N"), 4, symbol("H"), symbol("W"))))
    weight, vector = torch.ones(4, 4, 1, 1), torch.ones(4)
    shared = graph.add_weight("shared", torch.ones(4, 1, 1))
    b = Builder(graph, created_by="capture")
    block = 0
    while len(graph) < nodes:
        b.source = f"block{block}"
        kernel = graph.add_weight(f"block{block}.weight", weight)
        statistics = [
            graph.add_weight(f"block{block}.{name}", vector) for name in ("gain", "bias", "mean", "var")
        ]
        block += 1
        y = b.aten.conv2d(x, kernel)
        y = b.aten.batch_norm(y, *statistics, training=False, momentum=0.1, eps=1e-5, cudnn_enabled=True)
        y = b.aten.dropout(b.aten.relu(y), p=0.5, train=False)
        b.aten.sigmoid(y)
        left, right = b.aten.neg(y), b.aten.neg(y)
        flat = b.aten.flatten.using_ints(b.aten.unsqueeze(left, dim=0), start_dim=0, end_dim=1)
        factor = b.aten.mul.Tensor(shared, b.constant(torch.tensor(2.0)))
        x = b.aten.add.Tensor(b.aten.mul.Tensor(flat, factor), right)
    graph.set_outputs({"out": x})
    return graph


def measure(sizes: Iterable[int] = SIZES) -> list[dict[str, Any]]:
    """One row for each operation: its seconds at each size, and how the time per node grows.

    `growth` is the time per node at the largest size divided by that at the smallest.
    """
    seconds: dict[str, dict[int, float]] = {}
    counted: list[int] = []
    for size in sizes:
        graph = synthetic_graph(size)
        counted.append(len(graph))
        verify(graph)
        gc.collect()
        for name, spent in _time_all(graph):
            seconds.setdefault(name, {})[len(graph)] = spent
    first, last = counted[0], counted[-1]
    return [
        {
            "what": name,
            **{str(n): s for n, s in spent.items()},
            "growth": (spent[last] / last) / (spent[first] / first),
        }
        for name, spent in seconds.items()
    ]


def _time_all(graph: Graph) -> Iterable[tuple[str, float]]:
    for item in PASSES:
        yield item.name, min(_time_pass(item, graph) for _ in range(_repeats(graph)))
    text = print_graph(graph)
    for name, function in (
        ("clone", graph.clone),
        ("verify", lambda: verify(graph)),
        ("print", lambda: print_graph(graph)),
        ("parse", lambda: parse_graph(text)),
    ):
        yield name, min(_time(function) for _ in range(_repeats(graph)))


def _repeats(graph: Graph) -> int:
    # Small graphs are measured more often: their times are short and noisy.
    return max(1, min(5, 20_000 // len(graph)))


def _time_pass(item: Pass, graph: Graph) -> float:
    copy = graph.clone()
    with paused_collector():  # as a pipeline runs it
        return _time(lambda: item.apply(copy, Context(item.name)))


def _time(function: Any) -> float:
    # The processor's time: other processes on the machine are not to be measured.
    start = time.process_time()
    function()
    return time.process_time() - start


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table in Markdown."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        cells = [row["what"], *(f"{row[c]:.3f} s" for c in columns[1:-1]), f"{row['growth']:.2f}x"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(measure([int(argument) for argument in sys.argv[1:]] or SIZES)))
