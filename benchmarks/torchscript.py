"""TorchScript: our module against our model in eager, and against torchvision's model scripted by torch.

All three have the same weights and get the same picture. Ours and the peer paste masks, as the models do.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import models
from .latency import take_turns
from .report import THREADS, Row, Section, at_least
from .worker import measure


def run(work: Path, rounds: int) -> list[Section]:
    """The sections of the results."""
    weights = work / "peer.pth"
    if not weights.exists():
        measure("weights", "--output", str(weights))
    found = measure("torchscript-latency", "--weights", str(weights), "--rounds", str(rounds))
    wall, cpu, nodes = found["wall"], found["cpu"], found["nodes"]
    rows = [
        at_least("our model in eager / our module, wall time", wall["eager"] / wall["ours"], 1.0),
        at_least("torchvision's scripted / our module, wall time", wall["peer"] / wall["ours"], 1.0),
        at_least("our model in eager / our module, CPU time", cpu["eager"] / cpu["ours"], 1.0),
        at_least("torchvision's scripted / our module, CPU time", cpu["peer"] / cpu["ours"], 1.0),
        *(Row(f"seconds, {side}", f"{wall[side]:.3f}") for side in wall),
        *(Row(f"nodes of the inlined graph, {side}", f"{count}") for side, count in nodes.items()),
        *(Row(f"of these, operators, {side}", f"{count}") for side, count in found["operators"].items()),
        Row("detections: ours, eager, torchvision's", ", ".join(map(str, found["detections"]))),
    ]
    about = (
        f"Mask R-CNN R50-FPN, {models.HEIGHT}x{models.WIDTH}, one picture, masks pasted. Wall time with {THREADS} "
        "threads, CPU time with one; medians of rounds in which the sides took turns, after three that are not counted."
    )
    return [Section("TorchScript", about, rows)]


def torchscript_latency(options: argparse.Namespace) -> dict[str, Any]:
    """Ours, eager, and the peer's, on one picture with the same weights."""
    from detc.api import compile

    peer = models.peer(options.weights)
    eager = models.with_peer_weights(models.untrained(), peer)
    ours = compile(eager, "torchscript", postprocess=True, masks="pasted").model.module  # type: ignore[attr-defined]
    scripted = torch.jit.script(peer)
    picture = models.image()
    feed, peer_feed = models.feed(picture), [models.peer_image(picture)]
    sides: dict[str, Callable[[], Any]] = {
        "ours": lambda: ours(*feed.values()),
        "eager": lambda: eager(models.inputs(picture)),
        "peer": lambda: scripted(peer_feed),
    }
    with torch.inference_mode():
        torch.set_num_threads(THREADS)
        # torch.jit records types in its first runs, and compiles then.
        results = [[run() for run in sides.values()] for _ in range(2)][-1]
        wall = take_turns(sides, options.rounds, time.perf_counter)
        torch.set_num_threads(1)
        cpu = take_turns(sides, max(1, options.rounds // 2), time.process_time)
    graphs = {"ours": ours.inlined_graph, "peer": scripted.inlined_graph}
    kinds = {side: Counter(_kinds(graph)) for side, graph in graphs.items()}
    return {
        "wall": wall,
        "cpu": cpu,
        "nodes": {side: sum(counts.values()) for side, counts in kinds.items()},
        "operators": {
            side: sum(n for kind, n in counts.items() if not kind.startswith("prim::"))
            for side, counts in kinds.items()
        },
        "detections": [len(results[0][0]), len(results[1][0]["instances"]), len(results[2][1][0]["boxes"])],
    }


def _kinds(block: Any) -> list[str]:
    """The kinds of all nodes, those in the blocks of branches and loops included."""
    kinds: list[str] = []
    for node in block.nodes():
        kinds.append(node.kind())
        for inner in node.blocks():
            kinds += _kinds(inner)
    return kinds
