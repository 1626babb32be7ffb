"""Running a TorchScript file, with inputs checked against what the file says about itself."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision  # noqa: F401  (registers its operators)
from torch import Tensor

from detc.ir import InputError, bind_inputs, parse_type

from .emit import TorchScriptModel
from .weights import METADATA_FILE


class TorchScriptRuntime:
    """A TorchScript module that detc wrote.

    Attributes:
        module: the loaded module.
        metadata: what the file says about itself.
    """

    gives_tensors = True

    def __init__(
        self, model: TorchScriptModel | str | os.PathLike[str], *, device: str | torch.device | None = None
    ) -> None:
        """Take an emitted module as it is, or load a file, onto `device` (the processor where None).

        Errors:
            InputError: there is no such file, torch does not take it, or it is none of detc's.
        """
        if isinstance(model, TorchScriptModel):
            self.module, self.metadata = model.module, dict(model.metadata)
            if device is not None:
                raise InputError("an emitted module stays where it is; save it and load it onto the device")
        else:
            self.module, self.metadata = _load(Path(model), device)
        schema = self.metadata["schema"]
        multiples = schema["multiples"]
        self._types = {e["name"]: parse_type(e["type"], multiples) for e in schema["inputs"]}
        self.input_names = list(self._types)
        self.output_names: list[str] = [entry["name"] for entry in schema["outputs"]]

    @torch.no_grad()
    def run(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """The outputs by name, on the inputs' device.

        Errors:
            InputError: an input is missing, unknown, of another element type or rank, or of a size that the model
                does not take.
        """
        feed = {name: torch.as_tensor(value) for name, value in inputs.items()}
        bind_inputs(self._types, feed)
        try:
            results = self.module(*(feed[name] for name in self.input_names))
        except RuntimeError as error:
            raise InputError(f"the TorchScript module failed: {error}") from None
        return dict(zip(self.output_names, results, strict=True))


def _load(path: Path, device: str | torch.device | None) -> tuple[torch.jit.ScriptModule, dict[str, Any]]:
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    extra = {METADATA_FILE: ""}
    try:
        module = torch.jit.load(path, map_location=device or "cpu", _extra_files=extra)  # type: ignore[no-untyped-call]  # torch gives it no type
        found = json.loads(extra[METADATA_FILE]) if extra[METADATA_FILE] else None
    except (RuntimeError, ValueError) as error:
        raise InputError(f"torch cannot load {path}: {str(error).splitlines()[0]}") from None
    if not isinstance(found, dict) or not isinstance(found.get("schema"), dict):
        raise InputError(f"{path} is no TorchScript file that detc wrote: it holds no {METADATA_FILE}")
    return module, found
