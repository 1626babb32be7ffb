"""Running a graph of `caffe2.*` ops with torch's kernels, with inputs checked against what it says it takes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from detc.ir import Graph, InputError, Interpreter, IRError

from .load import load


class Caffe2Runtime:
    """A Caffe2 net that runs without Caffe2.

    Attributes:
        graph: the net, as a graph of the level `caffe2`.
        metadata: what the net says about itself.
    """

    def __init__(self, model: Graph | str | os.PathLike[str]) -> None:
        """Take a graph, or load the nets of a folder.

        Errors:
            InputError: see `load`; the graph is of another level.
        """
        self.graph = model if isinstance(model, Graph) else load(model)
        if self.graph.level != "caffe2":
            raise InputError(f"the graph is of the level {self.graph.level!r}, not 'caffe2'")
        self.metadata: dict[str, Any] = dict(self.graph.metadata)
        self._interpreter = Interpreter(self.graph)

    @property
    def input_names(self) -> list[str]:
        """The inputs' names in order."""
        return [value.name for value in self.graph.inputs]

    @property
    def output_names(self) -> list[str]:
        """The outputs' names in order."""
        return list(self.graph.outputs)

    def run(self, inputs: Mapping[str, np.ndarray | torch.Tensor]) -> dict[str, np.ndarray]:
        """The outputs by name.

        Errors:
            InputError: an input is missing, unknown, of another type or of a size that the net does not take.
        """
        tensors = {name: torch.as_tensor(value) for name, value in inputs.items()}
        try:
            with torch.inference_mode():
                outputs = self._interpreter.run(tensors)
        except InputError:
            raise
        except IRError as error:
            # The graph is valid: what an operator cannot take comes from the inputs' sizes or from the net itself.
            raise InputError(f"the net cannot be run on these inputs: {error}") from error
        return {name: np.asarray(value) for name, value in outputs.items()}
