"""The artifacts of the targets `torchscript` and `torch-export`."""

from __future__ import annotations

import os
from functools import cached_property

from typing_extensions import override

from detc.ir import Graph

from ..detector import Artifact
from . import (
    ExportedModel,
    ExportedRuntime,
    TorchScriptModel,
    TorchScriptRuntime,
    emit,
    export,
)


class TorchScriptArtifact(Artifact):
    """A TorchScript module.

    Attributes:
        graph: the lowered graph.
        model: the module; its weights share storage with the detector.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.model: TorchScriptModel = emit(graph)
        super().__init__(TorchScriptRuntime(self.model), "the module")

    @property
    @override
    def nodes(self) -> int:
        """How many operators the module has."""
        return self.model.nodes

    @override
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the .ts file. An old file stays as it is until the new one is complete."""
        self.model.save(path)


class ExportedArtifact(Artifact):
    """A `torch.export`ed program.

    Attributes:
        graph: the lowered graph.
        model: the program.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.model: ExportedModel = export(graph)
        self.metadata = dict(self.model.metadata)

    @cached_property
    def runtime(self) -> ExportedRuntime:  # type: ignore[override]  # made when first asked for
        """The program, ready to run."""
        return ExportedRuntime(self.model)

    @property
    @override
    def nodes(self) -> int:
        """How many operators the program has."""
        return self.model.nodes

    @override
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the .pt2 file. An old file stays as it is until the new one is complete."""
        self.model.save(path)
