"""Loading what `export` wrote, by what it is."""

from __future__ import annotations

import os
from pathlib import Path

from detc.backends.caffe2 import Caffe2Runtime
from detc.backends.onnx import OnnxRuntimeModel
from detc.ir import InputError

from .caffe2_artifact import Caffe2Detections
from .detector import Detector


def load_artifact(path: str | os.PathLike[str]) -> Detector:
    """A compiled detector, ready to run: an .onnx file, or a folder with a Caffe2 model.

    Errors:
        InputError: there is no such file, or it is nothing that detc wrote.
    """
    file = Path(path)
    if not file.exists():
        raise InputError(f"there is no file {file}")
    if file.is_dir():
        return Detector(Caffe2Detections(Caffe2Runtime(file), str(file)), source=str(file))
    if file.suffix.lower() != ".onnx":
        raise InputError(
            f"cannot tell what {file} is: compiled detectors end in .onnx, or are Caffe2's folders"
        )
    return Detector(OnnxRuntimeModel(file), source=str(file))
