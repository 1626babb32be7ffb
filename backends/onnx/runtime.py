"""Running an ONNX file in onnxruntime, with inputs checked against what the file says about itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from detc.ir import InputError

from .feeds import Declared, decode_metadata, read_feed

_NUMPY_TYPES = {
    f"tensor({name})": np.dtype(type)
    for name, type in {
        "float": np.float32,
        "double": np.float64,
        "float16": np.float16,
        "int64": np.int64,
        "int32": np.int32,
        "int16": np.int16,
        "int8": np.int8,
        "uint8": np.uint8,
        "bool": np.bool_,
    }.items()
}


class OnnxRuntimeModel:
    """An ONNX model in onnxruntime.

    Attributes:
        session: onnxruntime's session.
        metadata: what the model says about itself, JSON values decoded; empty for files that are not detc's.
    """

    gives_tensors = False

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        *,
        threads: int | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        """Load a model from a path or from a file's content.

        `threads` is how many one operator may use; None leaves it to onnxruntime.

        Errors:
            InputError: there is no such file, or onnxruntime does not take it.
        """
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        if not isinstance(model, bytes):
            if not Path(model).is_file():
                raise InputError(f"there is no file {os.fspath(model)}")
            model = os.fspath(model)
        try:
            self.session = onnxruntime.InferenceSession(model, options, providers=list(providers))
        except Exception as error:  # onnxruntime's exceptions share no base class
            what = "the model" if isinstance(model, bytes) else model
            raise InputError(f"onnxruntime cannot load {what}: {' '.join(str(error).split())}") from None
        self.metadata = decode_metadata(self.session.get_modelmeta().custom_metadata_map)
        self._declared = [
            Declared(one.name, _NUMPY_TYPES.get(one.type), tuple(one.shape))
            for one in self.session.get_inputs()
        ]

    @property
    def input_names(self) -> list[str]:
        """The inputs' names in order."""
        return [i.name for i in self.session.get_inputs()]

    @property
    def output_names(self) -> list[str]:
        """The outputs' names in order."""
        return [o.name for o in self.session.get_outputs()]

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The outputs by name.

        Errors:
            InputError: an input is missing, unknown, of another element type or rank, of a size that the
                model does not take, or onnxruntime fails on it.
        """
        feed = read_feed(self._declared, inputs, self.metadata)
        try:
            arrays = self.session.run(None, feed)
        except Exception as error:  # as above
            raise InputError(f"onnxruntime failed: {' '.join(str(error).split())}") from None
        return dict(zip(self.output_names, arrays, strict=True))
