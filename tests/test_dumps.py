"""Dumps of a pipeline are read back, weights included, and run by a process that imports detc and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

import detc
from detc.backends.target import known_targets

READER = """
import os, sys
from pathlib import Path
from detc import load_graph, run  # takes seconds: what follows branches off
from safetensors.torch import load_file

inputs = load_file(sys.argv[1])
for folder in map(Path, sys.argv[2:]):
    sys.stdout.flush()
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
        continue
    for path in sorted(folder.glob("*.ir")):
        graph = load_graph(path)
        found = run(graph, {value.name: inputs[value.name] for value in graph.inputs})
        print(path.relative_to(folder.parent), graph.level, len(graph), sorted(found), flush=True)
    sys.exit()
"""


def test_a_fresh_process_reads_and_runs_every_dump(
    captured: Callable[[str], detc.Graph], tmp_path: Path
) -> None:
    """One process for each target, so that it finds none of its ops loaded by another."""
    folders = [tmp_path / target for target in known_targets()]
    for folder in folders:
        detc.pipeline(folder.name).run(captured("mask_rcnn_R_50_FPN"), [detc.DumpIR(folder)])
    inputs = {
        "data": 255 * torch.rand(1, 3, 64, 96),
        "im_info": torch.tensor([[64.0, 96.0, 1.0]]),
        "output_size": torch.tensor([[64, 96]]),
    }
    save_file(inputs, tmp_path / "inputs.safetensors")
    command = [sys.executable, "-c", READER, tmp_path / "inputs.safetensors", *folders]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    read = [line.split()[0] for line in done.stdout.splitlines()]
    assert read == [f"{f.name}/{dump.name}" for f in folders for dump in sorted(f.glob("*.ir"))]
    assert len(read) == sum(len(detc.pipeline(folder.name)) + 1 for folder in folders)
