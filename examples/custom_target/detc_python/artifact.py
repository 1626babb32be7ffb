"""What compiling gives, and what runs it: in memory, and from a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from detc import Artifact, Graph, InputError
from detc.ir import bind_inputs, parse_type
from detc.ir.files import atomic_write

from .write import Program, write_program


class PythonArtifact(Artifact):
    """A file to be.

    Attributes:
        graph: the lowered graph.
        program: the file's text and the weights.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.program: Program = write_program(graph)
        module = _run(self.program.text, "the module")
        super().__init__(PythonRuntime(module, module.Detector(self.program.weights)), "the module")

    @property
    def nodes(self) -> int:
        """How many operators and functions `forward` calls."""
        return len(self.graph.nodes)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the .py file. An old file stays as it is until the new one is complete."""
        with atomic_write(path) as file:
            file.write(self.program.text.encode())
            file.write(self.program.packed_weights())


class PythonRuntime:
    """A written module and its detector; a `Runtime`.

    Attributes:
        metadata: what the file says about itself.
    """

    gives_tensors = True

    def __init__(self, module: ModuleType, detector: nn.Module) -> None:
        self.metadata: Mapping[str, Any] = module.METADATA
        self._detector = detector
        schema = self.metadata["schema"]
        self._types = {e["name"]: parse_type(e["type"], schema["multiples"]) for e in schema["inputs"]}
        self.input_names = list(self._types)
        self.output_names: list[str] = [entry["name"] for entry in schema["outputs"]]

    @torch.no_grad()
    def run(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """The outputs by name.

        Errors:
            InputError: an input is missing, unknown, or of another element type or shape than METADATA says.
        """
        feed = {name: torch.as_tensor(value) for name, value in inputs.items()}
        bind_inputs(self._types, feed)
        found: dict[str, Tensor] = self._detector(*(feed[name] for name in self.input_names))._asdict()
        return found


def load(path: Path) -> PythonRuntime:
    """A written file, ready to run. This runs the code in it.

    Errors:
        InputError: the code fails, or the file is not one of this target's.
    """
    try:
        module = _run(path.read_text("utf-8"), str(path))
        return PythonRuntime(module, module.load())
    except (AttributeError, LookupError) as error:
        raise InputError(f"{path} is not a detector that detc wrote: {error}") from None
    except Exception as error:
        raise InputError(f"{path} cannot be run: {type(error).__name__}: {error}") from None


def _run(text: str, file: str) -> ModuleType:
    """The module that a text makes. Nothing is kept in sys.modules or __pycache__, which an old file could leave."""
    module = ModuleType(Path(file).stem)
    module.__file__ = file
    exec(compile(text, file, "exec"), vars(module))  # noqa: S102  (the target says runs_code)
    return module
