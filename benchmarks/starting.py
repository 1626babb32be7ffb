"""The part `start`: what a command costs before and besides its work, in CPU seconds of fresh processes."""

from __future__ import annotations

import resource
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from statistics import median

from .report import Row, Section, at_most

_BOUNDS = {"--help": 0.15, "passes": 0.3, "report --check": 4.6}
"""Command -> what it may cost at most, in multiples of importing torch."""


def run(work: Path, rounds: int) -> list[Section]:
    """Measure the commands on the bundled Mask R-CNN."""
    data = Path(str(files("detc") / "data"))
    model, scene = data / "mask_rcnn_R_50_FPN", data / "scenes" / "shapes.png"
    source = ["--config", model / "config.yaml", "--weights", model / "model_final.pth"]
    graph, file = work / "start.ir", work / "start.onnx"
    _cpu_seconds("-c", _SAVE, graph, model)
    commands: dict[str, list[object]] = {
        "--help": ["--help"],
        "passes": ["passes"],
        "export": ["export", *source, "--output", file],
        "run FILE.onnx": ["run", file, scene],
        "show": ["show", *source],
        "analyze FILE.ir": ["analyze", graph],
        "opt FILE.ir": ["opt", graph, "--passes", "dead-code", "-o", work / "start_out.ir"],
        "report --check": [
            "report",
            *source,
            "--pipeline",
            "onnx",
            "--check",
            scene,
            "-o",
            work / "start.html",
        ],
    }
    peer: list[float] = []
    ours: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        peer.append(_cpu_seconds("-c", "import torch"))
        for name, command in commands.items():
            ours[name].append(_cpu_seconds("-m", "detc", *command))
    rows = [Row("import torch", f"{median(peer):.2f} s")]
    for name, measured in ours.items():
        rows.append(_row(f"detc {name}", median(measured), median(peer), _BOUNDS.get(name)))
    details = [("command", "CPU time"), *((f"detc {name}", f"{median(s):.2f} s") for name, s in ours.items())]
    return [
        Section(
            "Start",
            "Whole commands on the bundled Mask R-CNN, in fresh processes: CPU time in multiples of that of "
            "`python -c 'import torch'`.",
            rows,
            details,
        )
    ]


_SAVE = """
import sys, detc
path, model = sys.argv[1:]
detc.save_graph(detc.capture(detc.load_model(f"{model}/config.yaml", f"{model}/model_final.pth")), path)
"""


def _row(what: str, seconds: float, peer: float, bound: float | None) -> Row:
    ratio = seconds / peer
    return Row(what, f"{ratio:.2f}x") if bound is None else at_most(what, ratio, bound)


def _cpu_seconds(*arguments: object) -> float:
    """User and system time of one process of Python."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
