"""The generic passes against those of onnx-ir, onnxscript's rewriter and torch.fx, on the same graph.

    python -m benchmarks.peers [NODES ...]

Each side gets the graph of `scaling` in its own form: as many nodes, of the same kinds, in the same order, and weights
of the same shapes. The sides take turns, with each operation on a copy that nothing has touched; what counts is the
processor's time. Garbage collection is off meanwhile, for all of them. A peer is not measured above `COMPARED` nodes,
nor where its time on a smaller graph lets expect more than `PATIENCE` seconds. Where it has nothing alike there is no
number: torch.fx knows no types to verify, for one.
"""

from __future__ import annotations

import copy
import gc
import operator
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import torch
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants
from onnxscript.rewriter import RewriteRuleSet
from onnxscript.rewriter.rules.common import _basic_rules, _fuse_batchnorm, _no_op
from torch import fx, nn
from torch._functorch.compile_utils import fx_graph_cse
from torch.fx.experimental.optimization import fuse

from detc.ir import Graph, parse_graph, paused_collector, print_graph, verify
from detc.passes import Context, Pass

from .report import Section, at_most, show
from .scaling import PASSES, synthetic_graph

SIZES = (1_000, 10_000, 100_000, 1_000_000)
COMPARED = 100_000
"""The largest graph that the peers get: making and copying larger ones takes them many minutes."""
PATIENCE = 60.0
LINEAR = 1.5
"""Time per node on the largest graph against the smallest: caches take their part, a quadratic pass has 1000."""
CHANNELS, BLOCK = 4, 12
WEIGHTS = ("gain", "bias", "mean", "var")


@dataclass(frozen=True)
class Side:
    """One of those that are compared.

    Attributes:
        build: makes the graph of about that many nodes.
        copy: an independent copy, for an operation to change.
        nodes: the nodes of what `build` gives, and of what a pass gives.
        prepare: per operation what it is given, where that is not a copy of the graph.
        operations: by the name that detc has for it. Each returns its result.
    """

    name: str
    build: Callable[[int], Any]
    copy: Callable[[Any], Any]
    nodes: Callable[[Any], Iterable[Any]]
    operations: Mapping[str, Callable[[Any], Any]]
    prepare: Mapping[str, Callable[[Any], Any]]


def _blocks(nodes: int) -> Iterable[str]:
    return (f"block{i}" for i in range(-(-nodes // BLOCK)))


# detc


def _applied(item: Pass) -> Callable[[Graph], Graph]:
    def apply(graph: Graph) -> Graph:
        item.apply(graph, Context(item.name))
        return graph

    return apply


DETC = Side(
    "detc",
    synthetic_graph,
    Graph.clone,
    iter,
    {item.name: _applied(item) for item in PASSES}
    | {"clone": Graph.clone, "verify": verify, "print": print_graph, "parse": parse_graph},
    {"parse": print_graph},
)


# onnx-ir and onnxscript


def onnx_graph(nodes: int) -> onnx_ir.Model:
    """`synthetic_graph` as a model of onnx-ir."""
    kernel = onnx_ir.tensor(np.ones((CHANNELS, CHANNELS, 1, 1), np.float32))
    vector = onnx_ir.tensor(np.ones(CHANNELS, np.float32))
    image = onnx_ir.Shape(["N", CHANNELS, "H", "W"])
    constants: list[onnx_ir.Value] = []
    made: list[onnx_ir.Node] = []

    def constant(name: str, tensor: onnx_ir.TensorProtocol) -> onnx_ir.Value:
        value = onnx_ir.Value(
            name=name, const_value=tensor, shape=tensor.shape, type=onnx_ir.TensorType(tensor.dtype)
        )
        constants.append(value)
        return value

    def call(
        op: str, *inputs: onnx_ir.Value, shape: onnx_ir.Shape = image, **attributes: Any
    ) -> onnx_ir.Value:
        result = onnx_ir.Value(
            name=f"v{len(made)}", shape=shape, type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
        )
        made.append(onnx_ir.node(op, inputs, attributes or None, outputs=[result]))
        return result

    graph_input = x = onnx_ir.Value(name="x", shape=image, type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT))
    shared = constant("shared", onnx_ir.tensor(np.ones((CHANNELS, 1, 1), np.float32)))
    two = constant("two", onnx_ir.tensor(np.float32(2)))
    axis = constant("axis", onnx_ir.tensor([0]))
    whole = constant("whole", onnx_ir.tensor([-1, CHANNELS, 0, 0]))
    for block in _blocks(nodes):
        weight = constant(f"{block}.weight", kernel)
        statistics = [constant(f"{block}.{name}", vector) for name in WEIGHTS]
        y = call("BatchNormalization", call("Conv", x, weight), *statistics, epsilon=1e-5)
        y = call("Dropout", call("Relu", y))
        call("Sigmoid", y)
        left, right = call("Neg", y), call("Neg", y)
        stacked = call("Unsqueeze", left, axis, shape=onnx_ir.Shape([1, "N", CHANNELS, "H", "W"]))
        flat = call("Reshape", stacked, whole)
        factor = call("Mul", shared, two, shape=shared.shape)
        x = call("Add", call("Mul", flat, factor), right)
    graph = onnx_ir.Graph(
        [graph_input], [x], nodes=made, initializers=constants, opset_imports={"": 18}, name="synthetic"
    )
    return onnx_ir.Model(graph, ir_version=10)


def _in_place(change: Callable[[onnx_ir.Model], Any]) -> Callable[[onnx_ir.Model], onnx_ir.Model]:
    def changed(model: onnx_ir.Model) -> onnx_ir.Model:
        change(model)
        return model

    return changed


CANONICAL = RewriteRuleSet([*_no_op.rules.rules, *_basic_rules.basic_optimization_rules().rules])
ONNX = Side(
    "onnx-ir",
    onnx_graph,
    onnx_ir.Model.clone,
    lambda model: model.graph,
    {
        "dead-code": _in_place(common.RemoveUnusedNodesPass()),
        "common-subexpressions": _in_place(common.CommonSubexpressionEliminationPass()),
        "fold-constants": _in_place(fold_constants),
        "canonicalize": _in_place(CANONICAL.apply_to_model),
        "fold-batch-norm": _in_place(_fuse_batchnorm.rules.apply_to_model),
        "clone": onnx_ir.Model.clone,
        "verify": _in_place(common.CheckerPass(full_check=True)),
        "print": onnx_ir.to_onnx_text,
        "parse": onnx_ir.from_onnx_text,
    },
    {"parse": onnx_ir.to_onnx_text},
)


# torch.fx


def fx_graph(nodes: int) -> fx.GraphModule:
    """`synthetic_graph` as a module of torch.fx."""
    graph, root = fx.Graph(), nn.Module()
    convolution = nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False).eval()
    norm = nn.BatchNorm2d(CHANNELS).eval()
    root.register_buffer("shared", torch.ones(CHANNELS, 1, 1))
    x = graph.placeholder("x")
    shared = graph.get_attr("shared")
    for block in _blocks(nodes):
        root.add_module(f"{block}_conv", copy.copy(convolution))
        root.add_module(f"{block}_norm", copy.copy(norm))
        y = graph.call_module(f"{block}_norm", (graph.call_module(f"{block}_conv", (x,)),))
        y = graph.call_function(torch.dropout, (graph.call_function(torch.relu, (y,)), 0.5, False))
        graph.call_function(torch.sigmoid, (y,))
        left, right = (graph.call_function(torch.neg, (y,)) for _ in range(2))
        flat = graph.call_function(torch.flatten, (graph.call_function(torch.unsqueeze, (left, 0)), 0, 1))
        factor = graph.call_function(operator.mul, (shared, 2.0))
        x = graph.call_function(operator.add, (graph.call_function(operator.mul, (flat, factor)), right))
    graph.output(x)
    return fx.GraphModule(root, graph)


def _fx_copy(module: fx.GraphModule) -> fx.GraphModule:
    root = nn.Module()
    root.register_buffer("shared", module.shared)
    for name, child in module.named_children():
        root.add_module(name, copy.copy(child))
    return fx.GraphModule(root, module.graph)


def _fx_clone(module: fx.GraphModule) -> fx.Graph:
    graph, known = fx.Graph(), {}
    graph.output(graph.graph_copy(module.graph, known))
    return graph


def _fx_dead_code(module: fx.GraphModule) -> fx.GraphModule:
    module.graph.eliminate_dead_code()
    return module


FX = Side(
    "torch.fx",
    fx_graph,
    _fx_copy,
    lambda made: (made.graph if isinstance(made, fx.GraphModule) else made).nodes,
    {
        "dead-code": _fx_dead_code,
        "common-subexpressions": lambda module: fx_graph_cse(module.graph),
        "fold-batch-norm": lambda module: fuse(module, inplace=True, no_trace=True),
        "clone": _fx_clone,
    },
    {},
)
SIDES = (DETC, ONNX, FX)
READING = ("clone", "verify", "print")
"""Operations that leave the graph as it is, and need no copy of it."""


def measure(sizes: Iterable[int] = SIZES) -> list[dict[str, Any]]:
    """One row for each operation and size: each side's microseconds per node, None where it has not been measured.

    `ratio` is detc's time divided by the best peer's.
    """
    rows: list[dict[str, Any]] = []
    known: dict[tuple[str, str], float] = {}
    for size in sizes:
        spent: dict[tuple[str, str], float] = {}
        for _ in range(max(1, min(3, 200_000 // size))):
            for side in SIDES if size <= COMPARED else (DETC,):
                hopeful = [o for o in side.operations if known.get((side.name, o), 0) * size < PATIENCE * 1e6]
                for name, each in _turn(side, size, side.operations if side is DETC else hopeful):
                    spent[side.name, name] = min(each, spent.get((side.name, name), each))
        known |= spent
        for name in DETC.operations:
            times = {side.name: spent.get((side.name, name)) for side in SIDES}
            ours, *peers = (value for value in times.values() if value is not None)
            rows.append({"what": name, "nodes": size, **times, "ratio": ours / min(peers) if peers else None})
    return rows


@paused_collector()
def _turn(side: Side, size: int, names: Iterable[str]) -> list[tuple[str, float]]:
    """Each operation's microseconds per node, on a graph that is made now."""
    measured: list[tuple[str, float]] = []
    # What is there already need not be looked through each time that a graph is thrown away.
    gc.collect()
    gc.freeze()
    graph = side.build(size)
    for name in names:
        given = graph if name in READING else side.prepare.get(name, side.copy)(graph)
        start = time.process_time()
        result = side.operations[name](given)
        measured.append((name, (time.process_time() - start) / size * 1e6))
        del given, result
        gc.collect()
    gc.unfreeze()
    return measured


def sections(rows: Sequence[dict[str, Any]]) -> list[Section]:
    """What was measured: how the time per node grows with the graph, and how it compares."""
    first, last = (pick(row["nodes"] for row in rows) for pick in (min, max))
    each = {(row["what"], row["nodes"]): row[DETC.name] for row in rows}
    growth = {name: each[name, last] / each[name, first] for name in DETC.operations}
    compared = [row for row in rows if row["ratio"] is not None]
    times = (["" if row[side.name] is None else f"{row[side.name]:.2f}" for side in SIDES] for row in rows)
    return [
        Section(
            "Scaling",
            "The generic passes, and the rest that walks over whole graphs, on synthetic graphs: time per node with "
            f"{last} nodes against that with {first}.",
            [at_most(name, ratio, LINEAR) for name, ratio in growth.items()],
        ),
        Section(
            "Passes against peers",
            "The same synthetic graph in onnx-ir (with onnxscript's rewriter) and in torch.fx: detc's time against the "
            "best peer's that does the same. Below, microseconds per node; where nothing stands, a peer has nothing "
            f"alike, would take more than {PATIENCE:.0f} seconds, or is not tried: that is above {COMPARED} nodes.",
            [at_most(f"{row['what']}, {row['nodes']} nodes", row["ratio"], 1) for row in compared],
            [
                ("what", "nodes", *(side.name for side in SIDES)),
                *((row["what"], str(row["nodes"]), *cells) for row, cells in zip(rows, times, strict=True)),
            ],
        ),
    ]


def run(work: Path, rounds: int) -> list[Section]:
    """The part `scaling`."""
    return sections(measure())


if __name__ == "__main__":
    show(sections(measure([int(argument) for argument in sys.argv[1:]] or SIZES)))
