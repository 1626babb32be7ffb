"""Latency in onnxruntime: against the peer's file, against eager, and against the file's own convolutions.

The sides take turns, and the result is each one's median. Beside the wall time with two threads stands the CPU time
with one: other programs on the machine change that one little.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch

from . import models
from .report import THREADS

Sides = Mapping[str, Callable[[], Any]]

_CONVOLUTIONS = ("Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm")
"""What counts as the network's own layers. MatMul does not: it pastes masks."""


def take_turns(sides: Sides, rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """The median seconds of each side; a first round is not counted."""
    spent: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds + 1):
        for name, run in sides.items():
            started = clock()
            run()
            spent[name].append(clock() - started)
    return {name: median(times[1:]) for name, times in spent.items()}


def session(path: str, threads: int, profile: str | None = None) -> Any:
    """onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def latency_full(options: argparse.Namespace) -> dict[str, Any]:
    """Ours, the peer's file, and both models in eager, on one picture with the same weights."""
    peer = models.peer(options.weights)
    ours = models.with_peer_weights(models.untrained(), peer)
    picture = models.image()
    own_feed = {name: value.numpy() for name, value in models.feed(picture).items()}
    peer_feed = models.peer_image(picture)
    counts: dict[str, int] = {}
    ours.proposal_generator.register_forward_hook(lambda *a: counts.update(proposals=len(a[2][0][0])))
    peer.rpn.register_forward_hook(lambda *a: counts.update(peer_proposals=len(a[2][0][0])))

    def sides(threads: int) -> Sides:
        torch.set_num_threads(threads)
        mine, other = session(options.ours, threads), session(options.peer, threads)
        fed = {other.get_inputs()[0].name: peer_feed.numpy()}
        return {
            "ours": lambda: mine.run(None, own_feed),
            "peer": lambda: other.run(None, fed),
            "eager ours": lambda: ours(models.inputs(picture)),
            "eager peer": lambda: peer([peer_feed]),
        }

    with torch.inference_mode():
        running = sides(THREADS)
        found, expected = running["eager ours"]()[0]["instances"], running["eager peer"]()[0]
        boxes = torch.from_numpy(running["ours"]()[0])
        work = {
            **counts,
            "detections": len(boxes),
            "eager_detections": len(found),
            "peer_detections": len(expected["boxes"]),
            "peer_file_detections": len(running["peer"]()[0]),
            "matched": _share_matched(boxes, found.pred_boxes.tensor, 0.99),
            "matched_peer": _share_matched(boxes, expected["boxes"], 0.9),
        }
        wall = take_turns(running, options.rounds, time.perf_counter)
        cpu = take_turns(sides(1), max(1, options.rounds // 2), time.process_time)
    few = max(1, options.rounds // 2)
    peer_input = session(options.peer, THREADS).get_inputs()[0].name
    return {
        "work": work,
        "wall": wall,
        "cpu": cpu,
        "profile": bound(options.ours, own_feed, options.rounds),
        "profile_1": bound(options.ours, own_feed, few, 1),
        "profile_peer": bound(options.peer, {peer_input: peer_feed.numpy()}, few),
    }


def latency_small(options: argparse.Namespace) -> dict[str, Any]:
    """The small model: ours and its eager."""
    model = models.small()
    picture = models.scene()
    own_feed = {name: value.numpy() for name, value in models.feed(picture).items()}
    mine = session(options.ours, THREADS)
    sides: Sides = {
        "ours": lambda: mine.run(None, own_feed),
        "eager ours": lambda: model(models.inputs(picture)),
    }
    with torch.inference_mode():
        found = len(sides["eager ours"]()[0]["instances"])
        work = {"detections": len(sides["ours"]()[0]), "eager_detections": found}
        wall = take_turns(sides, options.rounds, time.perf_counter)
    return {"work": work, "wall": wall, "profile": bound(options.ours, own_feed, options.rounds)}


def _share_matched(boxes: torch.Tensor, others: torch.Tensor, iou: float) -> float:
    from torchvision.ops import box_iou

    return float((box_iou(boxes, others).amax(dim=1) > iou).float().mean())


def bound(path: str, feed: Mapping[str, Any], rounds: int, threads: int = THREADS) -> dict[str, Any]:
    """How near a file comes to its own convolutions and gemms: medians of runs that onnxruntime profiles.

    Returns `total` and `convolutions` in seconds and their ratio `near`, all of one run each; `by_op`: for each op
    type its milliseconds and nodes; `slowest`: the nodes that are no convolutions, the slowest first.
    """
    with tempfile.TemporaryDirectory() as folder:
        profiled = session(path, threads, str(Path(folder) / "profile"))
        for _ in range(rounds + 1):
            profiled.run(None, feed)
        events = json.loads(Path(profiled.end_profiling()).read_text())
    ends = sorted((e["ts"], e["dur"]) for e in events if e.get("name") == "model_run")[1:]
    runs: list[dict[str, tuple[str, float, bool]]] = []
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    for start, length in ends:
        inside = [e for e in kernels if start <= e["ts"] < start + length]
        runs.append(
            {
                e["name"].removesuffix("_kernel_time"): (
                    e["args"]["op_name"],
                    e["dur"],
                    e["args"]["op_name"] in _CONVOLUTIONS,
                )
                for e in inside
            }
        )
    sums = [sum(us for _, us, counts in run.values() if counts) for run in runs]
    by_node = {name: median(run[name][1] for run in runs if name in run) / 1e3 for name in runs[0]}
    by_op: Counter[str] = Counter()
    nodes: Counter[str] = Counter()
    for name, (op, _, _) in runs[0].items():
        by_op[op] += by_node[name]
        nodes[op] += 1
    shapes = {e["name"].removesuffix("_kernel_time"): _shapes(e) for e in kernels}
    slowest = [
        name for name in sorted(by_node, key=by_node.__getitem__, reverse=True) if not runs[0][name][2]
    ]
    return {
        "total": median(length for _, length in ends) / 1e6,
        "convolutions": median(sums) / 1e6,
        "near": median(length / total for (_, length), total in zip(ends, sums, strict=True)),
        "by_op": [(op, ms, nodes[op]) for op, ms in by_op.most_common()],
        "slowest": [(name, runs[0][name][0], by_node[name], shapes[name]) for name in slowest[:15]],
    }


def _shapes(event: Mapping[str, Any]) -> str:
    def names(key: str) -> str:
        return " ".join(str(next(iter(d.values()))).replace(" ", "") for d in event["args"].get(key, []))

    return f"{names('input_type_shape')} -> {names('output_type_shape')}"
