"""From a graph of the level `torchscript` to a TorchScript module. With `runtime`, all of detc that uses torch.jit.

The graph is written as Python's text of one function, and torch compiles that. The module's parameters keep the
model's names, `module.to(device)` moves all of it, and no device is written into the code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torchvision.ops as _operators  # noqa: F401  (registers them)

from detc.backends.metadata import metadata
from detc.ir import Graph, IRError
from detc.ir.files import atomic_write

from . import functions as _functions
from .memory import plan_memory
from .source import write_source
from .weights import METADATA_FILE, module_tree


@dataclass(frozen=True)
class TorchScriptModel:
    """A TorchScript module, and what it says about itself.

    Attributes:
        module: called with the inputs in order; gives a NamedTuple of the outputs in order.
        source: the Python text that torch compiled.
        metadata: the graph's metadata and the schema.
    """

    module: torch.jit.ScriptModule
    source: str = field(repr=False)
    metadata: Mapping[str, Any] = field(repr=False)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file. An old file stays until the new one is complete.

        Errors:
            InputError: the file cannot be written.
        """
        with atomic_write(path) as file:
            torch.jit.save(self.module, file, _extra_files={METADATA_FILE: json.dumps(self.metadata)})

    @property
    def nodes(self) -> int:
        """How many operators there are: the inlined graph's nodes, those of loops once, but for constants, lists and
        attribute reads."""
        return _operator_count(self.module.inlined_graph)


def _operator_count(block: Any) -> int:
    return sum(
        (not node.kind().startswith("prim::")) + sum(_operator_count(inner) for inner in node.blocks())
        for node in block.nodes()
    )


def emit(graph: Graph) -> TorchScriptModel:
    """The TorchScript module of a graph. Its parameters share storage with the detector, but for convolutions' weights
    larger than a pixel: these are stored with their channels last, which `module.to(memory_format=...)` undoes.

    Errors:
        IRError: the graph is not of the level `torchscript`, or torch refuses the module.
    """
    source = write_source(graph, "Detections", plan_memory(graph))
    module = torch.jit.script(module_tree(source.weights))
    _define(module, source.text, _result_type(list(graph.outputs)))
    return TorchScriptModel(module.eval(), source.text, metadata(graph))


def _define(module: torch.jit.ScriptModule, text: str, result: type) -> None:
    # torch looks names in the text up among the locals of whoever calls `define`.
    Detections = result  # noqa: F841
    aten, torchvision, functions = torch.ops.aten, torch.ops.torchvision, _functions  # noqa: F841
    try:
        module.define(text)
    except RuntimeError as error:
        raise IRError(f"torch refuses the module: {error}") from None


def _result_type(outputs: list[str]) -> type:
    """A NamedTuple with a field for each output.

    Its module is called after the fields: torch takes two tuples of one full name for the same type.
    """
    made = NamedTuple("Detections", [(name, torch.Tensor) for name in outputs])  # type: ignore[misc]  # fields known at run time
    made.__module__ = f"detc.{'_'.join(outputs)}"
    return made
