"""Running an ONNX file in onnxruntime, with inputs checked against what the file says about itself."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from detc.ir import InputError

_NUMPY_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


class OnnxRuntimeModel:
    """An ONNX model in onnxruntime.

    Attributes:
        session: onnxruntime's session.
        metadata: what the model says about itself, JSON values decoded; empty for files that are not detc's.
    """

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
        self.metadata: dict[str, Any] = {
            key: _decode(text) for key, text in self.session.get_modelmeta().custom_metadata_map.items()
        }

    @property
    def input_names(self) -> list[str]:
        """The inputs' names in order."""
        return [i.name for i in self.session.get_inputs()]

    @property
    def output_names(self) -> list[str]:
        """The outputs' names in order."""
        return [o.name for o in self.session.get_outputs()]

    def run(self, inputs: Mapping[str, np.ndarray | torch.Tensor]) -> dict[str, np.ndarray]:
        """The outputs by name.

        Errors:
            InputError: an input is missing, unknown, of another element type or rank, of a size that the
                model does not take, or onnxruntime fails on it.
        """
        feed = {name: np.asarray(value) for name, value in inputs.items()}
        self._check(feed)
        try:
            arrays = self.session.run(None, feed)
        except Exception as error:  # as above
            raise InputError(f"onnxruntime failed: {' '.join(str(error).split())}") from None
        return dict(zip(self.output_names, arrays, strict=True))

    def _check(self, feed: Mapping[str, np.ndarray]) -> None:
        missing = [name for name in self.input_names if name not in feed]
        unknown = [name for name in feed if name not in self.input_names]
        if missing or unknown:
            parts = [f"missing: {', '.join(missing)}"] if missing else []
            parts += [f"not among the inputs: {', '.join(unknown)}"] if unknown else []
            raise InputError("; ".join(parts))
        multiples = self.metadata.get("schema", {}).get("multiples", {})
        sizes: dict[str, tuple[int, str]] = {}
        for declared in self.session.get_inputs():
            array = feed[declared.name]
            wanted = _NUMPY_TYPES.get(declared.type)
            if wanted is not None and array.dtype != wanted:
                raise InputError(f"the input {declared.name!r} is of {array.dtype}, not {np.dtype(wanted)}")
            if array.ndim != len(declared.shape):
                raise InputError(
                    f"the input {declared.name!r} has {array.ndim} dimensions, not {len(declared.shape)}"
                )
            for axis, (dim, size) in enumerate(zip(declared.shape, array.shape, strict=True)):
                where = f"dimension {axis} of the input {declared.name!r}"
                if isinstance(dim, int) and dim != size:
                    raise InputError(f"{where} is {size}, not {dim}")
                if isinstance(dim, str):
                    if size % multiples.get(dim, 1):
                        raise InputError(
                            f"{where} ({dim}) is {size}, which is no multiple of {multiples[dim]}"
                        )
                    first = sizes.setdefault(dim, (size, where))
                    if first[0] != size:
                        raise InputError(f"{where} ({dim}) is {size}, but {first[1]} is {first[0]}")


def _decode(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
