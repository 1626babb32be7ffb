"""The part `caffe2`: nets in the real Caffe2, in detc's interpreter, and how long they take to make.

The real Caffe2 is the one of `make test-caffe2`, in a process of its own. Sides take turns, with two threads each;
beside the wall time stands the CPU time of a run with one thread.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch

from tests.caffe2_real.client import RealCaffe2
from tests.environments import CAFFE2

from . import models
from .compiling import need_weights
from .report import THREADS, Row, Section, at_least
from .worker import Stopwatch, measure

ORIGINAL_EXPORT_S = 3.0
"""What detectron2's own exporter took for the small checkpoint, with the sample image that it runs. It can be had
neither from a package registry nor for this Python, and so is not run here."""
SMALL_RUNS = 5
"""A turn of a small net: a third of a second is too short to tell a few per cent apart on a machine that others use."""
ORIGINALS = ("faster_rcnn_R_50_FPN", "mask_rcnn_R_50_FPN")
Feeds = Mapping[str, Any]
Runs = Callable[[], tuple[float, float]]
"""One run of a side: its wall and its CPU seconds."""


def run(work: Path, rounds: int) -> list[Section]:
    """Measure; without Python 3.8 only what needs no real Caffe2."""
    weights = str(need_weights(work))
    folder = work / "caffe2_full"
    full = [
        measure("compile-caffe2", "--weights", weights, "--output", str(folder))
        for _ in range(max(rounds, 1))
    ]
    small = [
        measure("compile-caffe2", "--model", models.SMALL, "--output", str(work / "caffe2_small"))
        for _ in range(max(rounds, 1))
    ]
    onnx = [
        measure("compile", "--model", models.SMALL, "--raw", "--output", str(work / "raw.onnx"))
        for _ in range(max(rounds, 1))
    ]
    sections = [_export(full, small, onnx)]
    if CAFFE2.make():
        speed = measure("caffe2-latency", "--ours", str(folder), "--rounds", str(rounds))
        sections.append(_speed(speed))
    return sections


def _export(full: list[dict[str, Any]], small: list[dict[str, Any]], onnx: list[dict[str, Any]]) -> Section:
    def seconds(results: list[dict[str, Any]], clock: str = "wall") -> float:
        return median(sum(result[clock].values()) for result in results)

    return Section(
        "Caffe2: export",
        "`detc.compile(model, target='caffe2')` and `save`, verified after each pass as by default; each in a fresh "
        "process, after the imports and with the model built.",
        [
            at_least("small, against the original's 3 s", ORIGINAL_EXPORT_S / seconds(small), 1),
            Row("small, against our raw ONNX", f"{seconds(onnx) / seconds(small):.2f}x"),
            Row("small", f"{seconds(small):.2f} s, CPU {seconds(small, 'cpu'):.2f} s"),
            Row("full-size", f"{seconds(full):.2f} s, CPU {seconds(full, 'cpu'):.2f} s"),
            Row("operators, small", str(small[0]["nodes"]), "fewer than 196", small[0]["nodes"] < 196),
        ],
    )


def _speed(result: dict[str, Any]) -> Section:
    rows: list[Row] = []
    for name, sides in result["nets"].items():
        # Two nets of nearly the same operators: what is equal is said to be.
        rows.append(at_least(name, round(sides["wall"]["original"] / sides["wall"]["ours"], 2), 1))
        rows.append(Row(f"{name}, CPU time", f"{sides['cpu']['original'] / sides['cpu']['ours']:.2f}x"))
    wall, cpu, apart = (result["full"][key] for key in ("wall", "cpu", "difference"))
    return Section(
        "Caffe2: latency",
        f"Our net and the original exporter's in the real Caffe2, same weights, one picture of "
        f"{models.HEIGHT}x{models.WIDTH}; then our full-size net in our interpreter and in the real Caffe2.",
        [
            *rows,
            at_least("our interpreter against the real Caffe2, full-size", wall["real"] / wall["ours"], 1),
            Row(
                "our interpreter against the real Caffe2, full-size, CPU time",
                f"{cpu['real'] / cpu['ours']:.2f}x",
            ),
            Row("boxes of the two apart", f"{apart:.2f} pixels", "at most 0.5", apart <= 0.5),
            *(Row(f"median of {name}", f"{seconds:.2f} s") for name, seconds in wall.items()),
        ],
    )


# In processes of their own


def compile_caffe2(options: argparse.Namespace) -> dict[str, Any]:
    """The lines of `detc.compile` and `save`, by stages."""
    from detc.api import emit, pipeline
    from detc.frontend import capture

    model = models.MODELS[options.model]()
    if options.weights:
        models.with_peer_weights(model, models.peer(options.weights))
    watch = Stopwatch()
    with watch.stage("capture"):
        graph = capture(model)
    with watch.stage("passes"):
        lowered = pipeline("caffe2").run(graph)
    with watch.stage("emit"):
        artifact = emit(lowered)
        artifact.save(options.output)
    return {"wall": watch.wall, "cpu": watch.cpu, "nodes": artifact.nodes}


def caffe2_latency(options: argparse.Namespace) -> dict[str, Any]:
    """Ours and the original's net in the real Caffe2, and the full-size net in both runtimes."""
    nets: dict[str, Any] = {name: {} for name in ORIGINALS}
    full: dict[str, Any] = {}
    for clock, threads in ((0, THREADS), (1, 1)):
        torch.set_num_threads(threads)
        with RealCaffe2(CAFFE2.python, threads=threads) as real:
            key = ("wall", "cpu")[clock]
            for name in ORIGINALS:
                nets[name][key] = _take_turns(_nets(real, name), options.rounds, clock)
            sides, difference = _full(real, options.ours)
            full[key] = _take_turns(sides, max(1, options.rounds // 2), clock)
            full["difference"] = difference
    return {"nets": nets, "full": full}


def _nets(real: RealCaffe2, name: str) -> dict[str, Runs]:
    import detc
    from detc.backends.caffe2.load import net_files
    from detc.backends.caffe2.read import read_net

    folder = models.ZOO / name
    picture = models.scene()
    feeds = _feeds(picture)
    ours = detc.compile(
        detc.load_model(folder / "config.yaml", folder / "model_final.pth"), target="caffe2"
    ).nets  # type: ignore[attr-defined]
    original = [read_net(path) for path in net_files(folder / "caffe2_original")]
    return {
        "ours": lambda: _real(real, ours.predict_net, ours.init_net, feeds, SMALL_RUNS),
        "original": lambda: _real(real, *original, feeds, SMALL_RUNS),
    }


def _full(real: RealCaffe2, folder: str) -> tuple[dict[str, Runs], float]:
    from detc.backends.caffe2 import Caffe2Runtime
    from detc.backends.caffe2.load import net_files
    from detc.backends.caffe2.read import read_net

    runtime = Caffe2Runtime(folder)
    predict, init = (read_net(path) for path in net_files(folder))
    feeds = _feeds(models.image())
    theirs, mine = real.run(predict, feeds, init=init), runtime.run(feeds)
    boxes, others = (torch.as_tensor(outputs["bbox_nms"]) for outputs in (mine, theirs))
    # Each box and its nearest: of two scores that rounding tells apart either may come first.
    apart = (boxes[:, None] - others).abs().amax(-1)
    difference = float(apart.amin(1).max()) if boxes.shape == others.shape else float("inf")

    def ours() -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        runtime.run(feeds)
        return time.perf_counter() - wall, time.process_time() - cpu

    return {"ours": ours, "real": lambda: _real(real, predict, init, feeds)}, difference


def _real(real: RealCaffe2, predict: Any, init: Any, feeds: Feeds, counted: int = 1) -> tuple[float, float]:
    """The medians of the runs after the first one, which makes the blobs."""
    wall, cpu = zip(*real.seconds(predict, feeds, init=init, repeat=1 + counted)[1:], strict=True)
    return median(wall), median(cpu)


def _feeds(picture: torch.Tensor) -> Feeds:
    return {name: value.numpy() for name, value in models.feed(picture).items() if name != "output_size"}


def _take_turns(sides: Mapping[str, Runs], rounds: int, clock: int) -> dict[str, float]:
    """The median of each side's wall (0) or CPU (1) seconds; a first round is not counted."""
    spent: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds + 1):
        for name, once in sides.items():
            spent[name].append(once()[clock])
    return {name: median(times[1:]) for name, times in spent.items()}
