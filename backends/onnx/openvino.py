"""Running an ONNX file in OpenVINO, which reads such files as they are. OpenVINO is detc's extra `openvino`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from detc.ir import InputError
from detc.ir.extras import extra

from .feeds import Declared, decode_metadata, read_feed


class OpenVinoModel:
    """An ONNX model in OpenVINO, on the CPU.

    It computes in float32, as the file says; left alone, OpenVINO takes bfloat16 where the processor has it.

    Attributes:
        compiled: OpenVINO's compiled model.
        metadata: what the model says about itself, JSON values decoded; empty for files that are not detc's.
        input_names, output_names: in the file's order.
    """

    gives_tensors = False

    def __init__(self, model: str | os.PathLike[str] | bytes, *, threads: int | None = None) -> None:
        """Load a model from a path or from a file's content; `threads` of None leaves their number to OpenVINO.

        Errors:
            InputError: OpenVINO is not installed, there is no such file, or it does not take it.
        """
        with extra("openvino", "running in OpenVINO"):
            import openvino  # noqa: PLC0415
        what = "the model" if isinstance(model, bytes) else os.fspath(model)
        if not isinstance(model, bytes):
            if not Path(model).is_file():
                raise InputError(f"there is no file {what}")
            model = Path(model).read_bytes()
        core = openvino.Core()
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        try:
            parsed = onnx.load_model_from_string(model)
            self.compiled = core.compile_model(core.read_model(model), "CPU", options)
        except Exception as error:  # their exceptions share no base class
            raise InputError(f"OpenVINO cannot load {what}: {_reason(error)}") from None
        weights = {weight.name for weight in parsed.graph.initializer}
        self._declared = [_declared(value) for value in parsed.graph.input if value.name not in weights]
        self._outputs = [value.name for value in parsed.graph.output]
        self._taken = {name for port in self.compiled.inputs for name in port.get_names()}
        self.metadata = decode_metadata({entry.key: entry.value for entry in parsed.metadata_props})

    @property
    def input_names(self) -> list[str]:
        """The inputs' names in order."""
        return [one.name for one in self._declared]

    @property
    def output_names(self) -> list[str]:
        """The outputs' names in order."""
        return list(self._outputs)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The outputs by name.

        Errors:
            InputError: an input is missing, unknown, of another element type or rank, of a size that the
                model does not take, or OpenVINO fails on it.
        """
        feed = read_feed(self._declared, inputs, self.metadata)
        try:
            # It drops inputs that nothing uses, and refuses them then.
            values = self.compiled({name: array for name, array in feed.items() if name in self._taken})
        except Exception as error:  # as above
            raise InputError(f"OpenVINO failed: {' '.join(str(error).split())}") from None
        return {name: values[name] for name in self._outputs}


def _reason(error: Exception) -> str:
    """What OpenVINO lacks, or else all that it says."""
    lacking = re.search(r"No conversion rule found for operations: (.*)", str(error))
    return f"it has no {lacking[1].strip()}" if lacking else " ".join(str(error).split())


def _declared(value: onnx.ValueInfoProto) -> Declared:
    kind = value.type.tensor_type
    shape = tuple(
        int(dim.dim_value) if dim.HasField("dim_value") else (dim.dim_param or None) for dim in kind.shape.dim
    )
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    except KeyError:
        dtype = None
    return Declared(value.name, dtype, shape)
