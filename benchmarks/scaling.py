"""The generic passes, and a graph of any size with work for each of them: a chain of blocks as networks have them."""

from __future__ import annotations

import torch

from detc.ir import Builder, Graph, TensorType, Value, symbol
from detc.passes import (
    Canonicalize,
    CommonSubexpressions,
    DeadCode,
    FoldBatchNorm,
    FoldConstants,
    Fuse,
    Pass,
)

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
