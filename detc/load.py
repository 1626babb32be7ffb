"""Loading what `export` wrote, by what it is."""

from __future__ import annotations

import os
from pathlib import Path

from detc.backends.onnx import OnnxRuntimeModel
from detc.ir import InputError

from .detector import Detector


def load_artifact(path: str | os.PathLike[str]) -> Detector:
    """A compiled detector, ready to run.

    Errors:
        InputError: there is no such file, or it is nothing that detc wrote.
    """
    file = Path(path)
    if not file.exists():
        raise InputError(f"there is no file {file}")
    if file.suffix.lower() != ".onnx":
        raise InputError(f"cannot tell what {file} is: compiled detectors end in .onnx")
    return Detector(OnnxRuntimeModel(file), source=str(file))
