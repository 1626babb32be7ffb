"""Running a graph of `caffe2.*` ops with torch's kernels, with inputs checked against what it says it takes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch

from detc.ir import Graph, InputError, Interpreter, IRError
from detc.ir.dims import evaluate, symbols_of
from detc.ir.interpreter import bind

from .load import load

_MAX_ELEMENTS: Final = 1 << 30
"""Of one tensor; the largest of a full-size detector for a batch of 50 images has as many."""


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
        self._accepted: set[tuple[tuple[int, ...], ...]] = set()

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
        self._refuse_huge(tensors)
        try:
            with torch.inference_mode():
                outputs = self._interpreter.run(tensors)
        except InputError:
            raise
        except IRError as error:
            # The graph is valid: what an operator cannot take comes from the inputs' sizes or from the net itself.
            raise InputError(f"the net cannot be run on these inputs: {error}") from error
        return {name: np.asarray(value) for name, value in outputs.items()}

    def _refuse_huge(self, inputs: Mapping[str, torch.Tensor]) -> None:
        """A net of a stranger can ask in a few bytes for more memory than there is."""
        shapes = tuple(tuple(inputs[value.name].shape) for value in self.graph.inputs if value.name in inputs)
        if shapes in self._accepted:
            return
        sizes: dict[str, int] = {}
        for value in self.graph.inputs:
            if value.name in inputs:
                bind(value.type, inputs[value.name], sizes)
        for node in self.graph:
            for result in node.results:
                # What depends on data is not known before the run.
                known = [
                    int(evaluate(dim, sizes))
                    for dim in result.tensor_type.shape
                    if all(symbol.name in sizes for symbol in symbols_of(dim))
                ]
                if math.prod(known) > _MAX_ELEMENTS:
                    raise InputError(
                        f"the net cannot be run on these inputs: {node.op.name} makes {result.name or 'a tensor'} "
                        f"{result.type} of {math.prod(known):.0e} elements"
                    )
        self._accepted.add(shapes)
