"""The artifact of the target `onnx`."""

from __future__ import annotations

import os
from functools import cached_property

from typing_extensions import override

from detc.ir import Graph

from ..detector import Artifact
from . import OnnxRuntimeModel, emit


class OnnxArtifact(Artifact):
    """An ONNX model, and onnxruntime to run it in.

    Attributes:
        graph: the lowered graph.
        model: the emitted model; its large weights share storage with the detector.
    """

    def __init__(self, graph: Graph) -> None:
        # The runtime is started by the first call: most artifacts are only saved.
        self.graph = graph
        self.model = emit(graph)

    @cached_property
    def runtime(self) -> OnnxRuntimeModel:  # type: ignore[override]  # made when first asked for
        """onnxruntime with the model loaded, on the CPU."""
        return OnnxRuntimeModel(self.model.to_bytes())

    @cached_property
    def metadata(self) -> dict[str, object]:  # type: ignore[override]  # made when first asked for
        """What the model says about itself."""
        return dict(self.runtime.metadata)

    @property
    @override
    def nodes(self) -> int:
        """How many nodes the ONNX graph has."""
        return len(self.model.skeleton.graph.node)

    @override
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the .onnx file. An old file stays as it is until the new one is complete."""
        self.model.save(path)
