"""The part `configs`: every config of detectron2's model zoo, full-size with seeded weights, compiled to ONNX."""

from __future__ import annotations

import gc
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

import detc
from detc.frontend.detectron2 import build_model
from detc.ir.structures import Boxes, Instances
from tests.zoo import CONFIGS, detectron2_configs

from .report import Row, Section, in_seconds


@dataclass(frozen=True)
class _Compiled:
    config: str
    parameters: int
    seconds: float = 0.0
    nodes: int = 0
    runs: bool = False
    problem: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """Its line of the table."""
        size = f"{self.parameters / 1e6:.0f} M"
        if self.problem:
            return self.config, size, "", "", self.problem
        return self.config, size, f"{self.seconds:.1f}", str(self.nodes), "yes" if self.runs else "no"


def run(work: Path, rounds: int) -> list[Section]:
    """Compile each config once, and run the result on a small image."""
    found: list[_Compiled] = []
    for path in detectron2_configs():
        print(f"  {path.relative_to(CONFIGS)}", file=sys.stderr)
        found.append(_compile(path))
        gc.collect()
    compiled = [one for one in found if not one.problem]
    running = sum(one.runs for one in compiled)
    return [
        Section(
            "Configs",
            "Every config of detectron2's model zoo, full-size with seeded weights: the time from the model in memory "
            "to the ONNX file in memory (once each, one process), the nodes of the file (raw detections), and whether "
            "onnxruntime runs it on an image of 96 x 128.",
            [
                Row(
                    "configs compiled", f"{len(compiled)} of {len(found)}", "all", len(compiled) == len(found)
                ),
                Row("of them running", f"{running}", "all", running == len(compiled)),
                in_seconds("median time", median(one.seconds for one in compiled), 0.7),
            ],
            [("config", "parameters", "seconds", "nodes", "runs"), *(one.cells for one in found)],
        )
    ]


def _compile(path: Path) -> _Compiled:
    torch.manual_seed(0)
    model = build_model(path).eval()
    name = str(path.relative_to(CONFIGS).with_suffix("")).removeprefix("configs/")
    parameters = sum(p.numel() for p in model.parameters())
    start = time.perf_counter()
    try:
        artifact = detc.compile(model)
    except detc.UnsupportedError as error:
        return _Compiled(name, parameters, problem=str(error).splitlines()[0])
    seconds = time.perf_counter() - start
    # Only a model without a proposal generator looks at the proposals.
    proposals = Instances((96, 128), proposal_boxes=Boxes(torch.tensor([[8.0, 8.0, 90.0, 80.0]])))
    found = artifact([{"image": 255 * torch.rand(3, 96, 128), "proposals": proposals}])
    return _Compiled(name, parameters, seconds, artifact.nodes, runs=len(found) == 1)
