"""Loading what `export` wrote, by what it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from detc.backends.caffe2.model import Caffe2Model
from detc.backends.detector import Detector, Runtime
from detc.backends.onnx import OnnxRuntimeModel, OpenVinoModel
from detc.backends.torchscript import ExportedRuntime, TorchScriptRuntime
from detc.ir import InputError

_RUNTIMES: dict[str, dict[str, Callable[[Path], Runtime]]] = {
    ".onnx": {"onnxruntime": OnnxRuntimeModel, "openvino": OpenVinoModel},
    ".ts": {"torch.jit": TorchScriptRuntime},
    ".pt2": {"torch.export": ExportedRuntime},
}
"""What a file's name ends in -> what runs it, by name; the first one by default."""
RUNTIMES = ("onnxruntime", "openvino")
"""The runtimes among which there is a choice."""


def load_artifact(
    path: str | os.PathLike[str], *, runtime: str | None = None, trusted: bool = False
) -> Detector:
    """A compiled detector, ready to run: an .onnx, .ts or .pt2 file, or a folder with a Caffe2 model.

    An .onnx file runs in "onnxruntime", or in the `runtime` "openvino". A .pt2 file is loaded only when it is
    `trusted`: torch's format for it can hold code that runs on loading.

    Errors:
        InputError: there is no such file, it is nothing that detc wrote, the runtime does not run such files, or the
            file is to be trusted first.
    """
    file = Path(path)
    if not file.exists():
        raise InputError(f"there is no file {file}")
    if runtime is not None and (file.is_dir() or runtime not in _RUNTIMES.get(file.suffix.lower(), {})):
        raise InputError(f"{file} does not run in {runtime}: {' and '.join(RUNTIMES)} are for .onnx files")
    if file.is_dir():
        model = Caffe2Model.load_protobuf(file)
        _ = model.runtime  # made by the first call otherwise, which is late for saying that it is no detector
        return model
    suffix = file.suffix.lower()
    if suffix == ".pt2" and not trusted:
        raise InputError(
            f"loading {file} can run code that is in it; if you trust it, say so: --trust, or trusted=True"
        )
    if suffix not in _RUNTIMES:
        raise InputError(
            f"cannot tell what {file} is: compiled detectors end in {', '.join(_RUNTIMES)}, or are Caffe2's folders"
        )
    found = _RUNTIMES[suffix]
    return Detector(found[runtime or next(iter(found))](file), source=str(file))
