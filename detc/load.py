"""Loading what `export` wrote, by what it is."""

from __future__ import annotations

import os
from pathlib import Path

from detc.backends.onnx import OnnxRuntimeModel
from detc.ir import InputError

from .caffe2_model import Caffe2Model
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
        model = Caffe2Model.load_protobuf(file)
        _ = model.runtime  # made by the first call otherwise, which is late for saying that it is no detector
        return model
    if file.suffix.lower() != ".onnx":
        raise InputError(
            f"cannot tell what {file} is: compiled detectors end in .onnx, or are Caffe2's folders"
        )
    return Detector(OnnxRuntimeModel(file), source=str(file))
