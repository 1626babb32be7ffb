"""Dumps of a pipeline are read back, weights included, and run by a process that imports detc and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import detc
from detc.backends.target import known_targets

READER = """
import sys
from pathlib import Path
import detc
from safetensors.torch import load_file

inputs = load_file(sys.argv[1])
for path in sys.argv[2:]:
    graph = detc.load_graph(path)
    found = detc.run(graph, {value.name: inputs[value.name] for value in graph.inputs})
    print(Path(path).name, graph.level, len(graph), sorted(found))
"""


@pytest.mark.parametrize("target", known_targets())
def test_a_fresh_process_reads_and_runs_every_dump(
    target: str, captured: Callable[[str], detc.Graph], tmp_path: Path
) -> None:
    passes = detc.pipeline(target)
    passes.run(captured("mask_rcnn_R_50_FPN"), [detc.DumpIR(tmp_path / "ir")])
    inputs = {
        "data": 255 * torch.rand(1, 3, 64, 96),
        "im_info": torch.tensor([[64.0, 96.0, 1.0]]),
        "output_size": torch.tensor([[64, 96]]),
    }
    save_file(inputs, tmp_path / "inputs.safetensors")
    dumps = sorted((tmp_path / "ir").glob("*.ir"))
    command = [sys.executable, "-c", READER, tmp_path / "inputs.safetensors", *dumps]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [dump.name for dump in dumps]
    assert len(lines) == len(passes) + 1
