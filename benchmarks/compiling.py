"""Compiling: how long it takes, how large the file gets, how much memory it needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from . import models
from .report import Row, Section, at_least, at_most, in_seconds
from .worker import TaskError, measure


def files(work: Path) -> dict[str, Path]:
    """Where the parts find each other's files."""
    names = (
        "weights.pt",
        "ours.onnx",
        "ours_raw.onnx",
        "small.onnx",
        "small_raw.onnx",
        "peer.onnx",
        "dynamo.onnx",
    )
    return {name.split(".")[0]: work / name for name in names}


def need_weights(work: Path) -> Path:
    """The file of the peer's weights, made where it is missing."""
    path = files(work)["weights"]
    if not path.exists():
        measure("weights", "--output", str(path))
    return path


def run(work: Path, rounds: int) -> list[Section]:
    """Measure, and leave the files of the compiled models in `work`."""
    at = files(work)
    weights = str(need_weights(work))
    full: list[dict[str, Any]] = []
    unverified: list[dict[str, Any]] = []
    small: list[dict[str, Any]] = []
    peer: list[dict[str, Any]] = []
    for _ in range(rounds):
        full.append(measure("compile", "--output", str(at["ours"])))
        peer.append(measure("export-peer", "--weights", weights, "--output", str(at["peer"])))
        unverified.append(measure("compile", "--no-verify", "--output", str(at["ours"])))
        small.append(measure("compile", "--model", models.SMALL, "--output", str(at["small"])))
    full_raw = measure("compile", "--raw", "--output", str(at["ours_raw"]))
    small_raw = measure("compile", "--raw", "--model", models.SMALL, "--output", str(at["small_raw"]))
    return [
        _time(full, unverified, small, peer, _dynamo(weights, str(at["dynamo"]))),
        Section(
            "Size",
            "ONNX nodes, with those of subgraphs; postprocessing with pasted masks, and raw.",
            [
                Row("nodes, full-size", str(full[0]["nodes"]), "under 400", full[0]["nodes"] < 400),
                Row("nodes, full-size, raw", str(full_raw["nodes"]), "under 400", full_raw["nodes"] < 400),
                Row("nodes, small", str(small[0]["nodes"]), "under 400", small[0]["nodes"] < 400),
                Row("nodes, small, raw", str(small_raw["nodes"]), "under 400", small_raw["nodes"] < 400),
                Row("nodes, torchvision's file", str(peer[0]["nodes"])),
            ],
        ),
        Section(
            "Memory",
            "Peak resident memory of building, compiling and saving, less that after the imports, in multiples of the "
            "weights' bytes; the model's own weights count, one of the multiples.",
            [
                at_most(
                    f"full-size ({full[0]['weights_mb']:.0f} MB)", median(r["memory"] for r in full), 2.3
                ),
                Row(
                    f"small ({small[0]['weights_mb']:.1f} MB)",
                    f"{median(r['memory'] for r in small):.2f}x",
                ),
                Row("torchvision's export", f"{median(r['memory'] for r in peer):.2f}x"),
            ],
        ),
    ]


def _time(
    full: list[dict[str, Any]],
    unverified: list[dict[str, Any]],
    small: list[dict[str, Any]],
    peer: list[dict[str, Any]],
    dynamo: str,
) -> Section:
    rows: list[Row] = []
    for clock in ("wall", "cpu"):
        name = {"wall": "", "cpu": ", CPU time"}[clock]
        export = _total(peer, clock)
        rows += [
            at_least(f"full-size against the peer{name}", export / _total(full, clock), 10),
            at_least(f"full-size, no verification{name}", export / _total(unverified, clock), 10),
            at_least(f"small against the peer{name}", export / _total(small, clock), 10),
        ]
    backbones = [measure("capture-backbones") for _ in full]
    rows += [
        Row("ours, full-size", _seconds(full)),
        Row("ours, full-size, no verification", _seconds(unverified)),
        Row("ours, small", _seconds(small)),
        Row("torchvision's export, TorchScript exporter", _seconds(peer)),
        in_seconds("capture, full-size, CPU time", median(r["cpu"]["capture"] for r in full), 0.2),
        in_seconds("capture of 12 ViT blocks, CPU time", median(r["vit"] for r in backbones), 1),
        in_seconds("capture of swin_t, CPU time", median(r["swin"] for r in backbones), 1),
        Row("torchvision's export, current exporter", dynamo),
    ]
    shares: list[tuple[str, ...]] = [("share of the time", "capture", "passes", "emit and save")]
    for name, results in (("full-size", full), ("no verification", unverified), ("small", small)):
        stages = {stage: median(r["wall"][stage] for r in results) for stage in results[0]["wall"]}
        total = sum(stages.values())
        shares.append((name, *(f"{s:.2f} s, {s / total:.0%}" for s in stages.values())))
    return Section(
        "Compile time",
        '`detc.compile(model, postprocess=True, masks="pasted")` and `save`, verified after each pass as by default, '
        "against `torch.onnx.export(..., dynamo=False)` of torchvision's `maskrcnn_resnet50_fpn`; each in a fresh "
        "process, after the imports and with the model built. Capturing is measured of torchvision's `vit_b_16` and "
        "`swin_t`; the latter is run besides, at sizes at which its branches go otherwise.",
        rows,
        shares,
    )


def _total(results: Iterable[Mapping[str, Any]], clock: str) -> float:
    return median(sum(result[clock].values()) for result in results)


def _seconds(results: list[dict[str, Any]]) -> str:
    return f"{_total(results, 'wall'):.2f} s"


def _dynamo(weights: str, output: str) -> str:
    try:
        result = measure("try-dynamo", "--weights", weights, "--output", output)
    except TaskError as error:
        return f"not tried, {error}"
    return f"fails: {result['error']}" if result["error"] else f"{result['s']:.2f} s"
