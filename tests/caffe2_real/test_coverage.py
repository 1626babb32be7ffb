"""Every operator that detc has a body for is one of those that these tests compare with the real Caffe2."""

from __future__ import annotations

import ast
from pathlib import Path

from detc.backends.caffe2.ops import BODIES

ON_GPUS_ONLY = {"CopyCPUToGPU", "CopyGPUToCPU"}
"""What a Caffe2 without GPUs does not have. Here they are what Copy is."""


def test_every_operator_is_compared() -> None:
    named: set[str] = set()
    for path in set(Path(__file__).parent.glob("test_*.py")) - {Path(__file__)}:
        tree = ast.parse(path.read_text())
        named |= {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value in BODIES
        }
    assert set(BODIES) - named == ON_GPUS_ONLY
    assert {BODIES[name] for name in ON_GPUS_ONLY} == {BODIES["Copy"]}
