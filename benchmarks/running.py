"""The part `latency`: compiled models in onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import models
from .compiling import files, need_weights
from .report import Row, Section, at_least, at_most
from .worker import measure


def run(work: Path, rounds: int) -> list[Section]:
    """Measure the files in `work`, and make those that are missing."""
    at = files(work)
    weights = str(need_weights(work))
    # The timed compiles have the initializers' weights; this one finds something.
    measure("compile", "--weights", weights, "--output", str(at["ours"]))
    if not at["small"].exists():
        measure("compile", "--model", models.SMALL, "--output", str(at["small"]))
    if not at["peer"].exists():
        measure("export-peer", "--weights", weights, "--output", str(at["peer"]))
    paths = ("--weights", weights, "--peer", str(at["peer"]), "--rounds", str(rounds))
    full = measure("latency", "--ours", str(at["ours"]), *paths)
    small = measure("latency-small", "--ours", str(at["small"]), "--rounds", str(rounds))
    return [
        _full(full),
        _profile("Where the time goes, full-size", full["profile"], 20),
        _profile("Where the time goes, torchvision's file", full["profile_peer"], 12),
        _small(small),
    ]


def _full(result: dict[str, Any]) -> Section:
    wall, cpu, work = result["wall"], result["cpu"], result["work"]
    everyone = [
        work[key] for key in ("detections", "eager_detections", "peer_detections", "peer_file_detections")
    ]
    proposals = [work["proposals"], work["peer_proposals"]]
    others = {
        "the peer's file": "peer",
        "eager, detectron2's twin": "eager ours",
        "eager, torchvision": "eager peer",
    }
    return Section(
        "Latency, full-size",
        f"One picture of {models.HEIGHT}x{models.WIDTH}, the same weights on all sides, pasted masks. Wall time with "
        "two threads decides; CPU time with one thread depends less on what else the machine does.",
        [
            Row("proposals (ours, torchvision)", str(proposals), "1000", set(proposals) == {1000}),
            Row(
                "detections (ours, eager, torchvision, its file)",
                str(everyone),
                "100",
                set(everyone) == {100},
            ),
            Row("ours matched by its eager, IoU 0.99", f"{work['matched']:.0%}", "all", work["matched"] == 1),
            Row("ours matched by torchvision, IoU 0.9", f"{work['matched_peer']:.0%}"),
            *(at_least(f"against {name}", wall[key] / wall["ours"], 2) for name, key in others.items()),
            *(
                Row(f"against {name}, CPU time", f"{cpu[key] / cpu['ours']:.2f}x")
                for name, key in others.items()
            ),
            at_most("against its own convolutions and gemms", result["profile"]["near"], 1.1),
            Row("against its own convolutions and gemms, one thread", f"{result['profile_1']['near']:.2f}x"),
            Row("torchvision's file against its own", f"{result['profile_peer']['near']:.2f}x"),
            *(Row(f"median of {name}", f"{seconds:.2f} s") for name, seconds in wall.items()),
        ],
    )


def _profile(title: str, result: dict[str, Any], types: int) -> Section:
    total, convolutions = result["total"] * 1e3, result["convolutions"] * 1e3
    by_op = [
        (op, f"{ms:.1f} ms", f"{ms / total:.1%}", str(nodes)) for op, ms, nodes in result["by_op"][:types]
    ]
    rows = [
        Row("a run", f"{total:.0f} ms"),
        Row("convolutions and gemms", f"{convolutions:.0f} ms, {convolutions / total:.0%}"),
        *(Row(f"{op} {name}: {shapes}", f"{ms:.1f} ms") for name, op, ms, shapes in result["slowest"]),
    ]
    return Section(
        title,
        "From onnxruntime's profiler, medians. Convolutions and gemms are Conv, ConvTranspose and Gemm, fused ones too,"
        " without the reordering of their data; below are the slowest other nodes, then all by op type. The "
        "time of a Loop or an If has that of its body in it.",
        rows,
        [("op type", "time", "share", "nodes"), *by_op],
    )


def _small(result: dict[str, Any]) -> Section:
    wall, work = result["wall"], result["work"]
    same = work["detections"] == work["eager_detections"]
    return Section(
        "Latency, small",
        f"The small trained model on a scene resized to {models.HEIGHT}x{models.WIDTH}.",
        [
            Row(
                "detections (ours, eager)", f"{work['detections']}, {work['eager_detections']}", "equal", same
            ),
            at_least("against eager", wall["eager ours"] / wall["ours"], 2),
            Row("against its own convolutions and gemms", f"{result['profile']['near']:.2f}x"),
            *(Row(f"median of {name}", f"{seconds:.2f} s") for name, seconds in wall.items()),
        ],
    )
