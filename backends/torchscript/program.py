"""From a graph of the level `torchscript` to a `torch.export`ed program, torch's successor of TorchScript.

The same text that TorchScript compiles is run once here on symbolic sizes. Sizes of the batch and the images stay
free; counts that depend on data are torch's unbacked sizes. Two things are fixed by torch.export: the device, which
`torch.export.passes.move_to_device_pass` changes, and that no feature map has a single row or column (`least` in the
metadata says from which size of the images on that is so).
"""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import torch
import torchvision  # noqa: F401  (registers its operators)
from torch import Tensor, nn
from torch.export import Dim as ExportDim
from torch.export import ExportedProgram

from detc.backends.metadata import metadata
from detc.ir import (
    Graph,
    InputError,
    IRError,
    Symbol,
    SymExpr,
    TensorType,
    UnsupportedError,
    bind_inputs,
    evaluate,
    parse_type,
    torch_parts,
)
from detc.ir.files import atomic_write
from detc.ir.types import type_symbols

from .dialect import DIALECT
from .source import write_source
from .weights import METADATA_FILE, module_tree

OLDEST_TORCH = (2, 13)
"""Before, torch judges how sizes compare by those of its example: the program runs for few others."""
_LARGEST = 1 << 20
"""No size of an input is larger."""


@dataclass(frozen=True)
class ExportedModel:
    """An exported program, and what it says about itself.

    Attributes:
        program: its module, `program.module()`, is called with the inputs in order and gives a dict of the outputs.
        metadata: the graph's metadata, the schema, and the least sizes.
    """

    program: ExportedProgram
    metadata: Mapping[str, Any] = field(repr=False)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file. An old file stays until the new one is complete.

        Errors:
            InputError: the file cannot be written.
        """
        with atomic_write(path) as file:
            torch.export.save(self.program, file, extra_files={METADATA_FILE: json.dumps(self.metadata)})

    @property
    def nodes(self) -> int:
        """How many operators the program has."""
        return sum(node.op == "call_function" for node in self.program.graph.nodes)


def export(graph: Graph) -> ExportedModel:
    """The exported program of a graph.

    Errors:
        IRError: the graph is not of the level `torchscript`.
        UnsupportedError: it has functions with loops; all of them are listed.
        InputError: torch is too old, or torch.export does not take one of its ops.
    """
    if tuple(map(int, torch.__version__.split(".")[:2])) < OLDEST_TORCH:
        raise InputError(
            f"exported programs need torch {'.'.join(map(str, OLDEST_TORCH))} or later, and this is "
            f"{torch.__version__}; a TorchScript module (--target torchscript) needs no newer one"
        )
    loops = [
        f"{node.op.name.split('.')[1]} at {node.source or '(no module path)'}"
        for node in graph
        if node.op.dialect == DIALECT
    ]
    if loops:
        raise UnsupportedError(
            "an exported program has no loops whose length depends on the data, which would be needed for "
            f"{', '.join(loops)}; a TorchScript module (--target torchscript) has them"
        )
    symbols = list(dict.fromkeys(s for value in graph.inputs for s in type_symbols(value.type)))
    least = {s.name: least_size(graph, s) for s in symbols}
    free = {
        s.name: ExportDim(s.name.lower(), min=-(-least[s.name] // s.multiple), max=_LARGEST // s.multiple)
        for s in symbols
    }
    example = _example_sizes(symbols, least)
    inputs: list[Tensor] = []
    dynamic: list[dict[int, Any]] = []
    for value in graph.inputs:
        shape = value.tensor_type.shape
        inputs.append(torch.ones([evaluate(dim, example) for dim in shape], dtype=value.dtype))
        dynamic.append(
            {axis: _export_dim(dim, free) for axis, dim in enumerate(shape) if not isinstance(dim, int)}
        )
    try:
        with torch.no_grad():
            program = torch.export.export(
                _module(graph),
                tuple(inputs),
                dynamic_shapes=tuple(dynamic),
                # Which proposals and detections there are decides about sizes: torch checks them when it runs.
                prefer_deferred_runtime_asserts_over_guards=True,
            )
    except Exception as error:  # torch.export's exceptions share no base class
        said = str(error).strip().splitlines()
        raise InputError(
            f"torch.export does not take this model: {said[0] if said else type(error).__name__}"
        ) from error
    _allow_empty_nms(program)
    # They would be stored with the program.
    program.example_inputs = None
    return ExportedModel(program, {**metadata(graph), "least": least})


def _example_sizes(symbols: Sequence[Symbol], least: Mapping[str, int]) -> dict[str, int]:
    """Sizes to export with. They differ from each other, so that torch takes none of them for another."""
    example: dict[str, int] = {}
    for number, symbol in enumerate(symbols):
        size = max(least[symbol.name], (number + 2) * symbol.multiple)
        while size in example.values():
            size += symbol.multiple
        example[symbol.name] = size
    return example


def _module(graph: Graph) -> nn.Module:
    source = write_source(graph, "Detections")
    names = list(graph.outputs)

    def detections(*values: Tensor) -> dict[str, Tensor]:
        return dict(zip(names, values, strict=True))

    provided: dict[str, Any] = {
        "aten": torch.ops.aten,
        "torchvision": torch.ops.torchvision,
        "torch": torch,
        "Tensor": Tensor,
        "List": list,
        "Optional": Optional,
        # Python's own would decide a comparison of symbolic sizes.
        "min": torch.sym_min,
        "max": torch.sym_max,
        "Detections": detections,
    }
    exec(compile(source.text, "<detc>", "exec"), provided)  # noqa: S102  (the text that detc has just written)
    module = module_tree(source.weights)
    type(module).forward = provided["forward"]
    return module


def _allow_empty_nms(program: ExportedProgram) -> None:
    """Correct what torchvision's shape rule of NMS asserts: that two boxes or more are kept. It may be none."""
    for node in program.graph.find_nodes(op="call_function", target=torch.ops.torchvision.nms.default):
        for size in node.users:
            if size.target is torch.ops.aten.sym_size.int:
                for check in list(size.users):
                    if check.target is operator.ge and check.args[1] == 2:
                        check.args = (size, 0)
                known = torch_parts.expression(size.meta["val"])
                limits = program.range_constraints.get(known)
                if limits is not None:
                    program.range_constraints[known] = type(limits)(0, limits.upper)
    program.graph_module.recompile()


def _export_dim(dim: SymExpr, free: Mapping[str, Any]) -> Any:
    symbol = dim.as_symbol
    if symbol is None:
        raise IRError(f"an input's size is {dim}, which is no name")
    return symbol.multiple * free[symbol.name] if symbol.multiple != 1 else free[symbol.name]


def least_size(graph: Graph, symbol: Symbol) -> int:
    """The least size for which no dimension that depends on it alone is one, for a symbol of images' sizes."""
    dims = {
        dim
        for value in graph.values()
        if isinstance(value.type, TensorType) and value.rank == 4
        for dim in value.type.shape
        if isinstance(dim, SymExpr) and {s.name for s in dim.symbols()} == {symbol.name}
    }
    size = symbol.multiple
    if all(dim.as_symbol is not None for dim in dims):
        return size
    while any(evaluate(dim, {symbol.name: size}) < 2 for dim in dims):
        size += symbol.multiple
    return size


class ExportedRuntime:
    """An exported program that runs.

    Attributes:
        metadata: what the file says about itself.
    """

    gives_tensors = True

    def __init__(self, model: ExportedModel | str | os.PathLike[str]) -> None:
        """Take an exported program as it is, or load a file. Loading one can run code that is in it: torch's format
        holds pickles and expressions. Load only what you trust.

        Errors:
            InputError: there is no such file, torch does not take it, or it is none of detc's.
        """
        if not isinstance(model, ExportedModel):
            model = _load(Path(model))
        self.metadata = dict(model.metadata)
        self._module = model.program.module()
        schema = self.metadata["schema"]
        self._types = {e["name"]: parse_type(e["type"], schema["multiples"]) for e in schema["inputs"]}
        self.input_names: Sequence[str] = list(self._types)
        self.output_names: Sequence[str] = [entry["name"] for entry in schema["outputs"]]

    @torch.no_grad()
    def run(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """The outputs by name.

        Errors:
            InputError: an input is missing, unknown, of another element type or rank, or of a size that the program
                does not take.
        """
        feed = {name: torch.as_tensor(value) for name, value in inputs.items()}
        sizes = bind_inputs(self._types, feed)
        for name, least in self.metadata["least"].items():
            if sizes[name] < least:
                raise InputError(
                    f"the size {name} is {sizes[name]}; an exported program takes {least} or more"
                )
        try:
            found = self._module(*(feed[name] for name in self.input_names))
        except RuntimeError as error:
            raise InputError(f"the exported program failed: {error}") from None
        return {name: found[name] for name in self.output_names}


def _load(path: Path) -> ExportedModel:
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    extra = {METADATA_FILE: ""}
    try:
        program = torch.export.load(path, extra_files=extra)
        found = json.loads(extra[METADATA_FILE]) if extra[METADATA_FILE] else None
    except Exception as error:  # as above
        raise InputError(f"torch cannot load {path}: {str(error).strip().splitlines()[0]}") from None
    if not isinstance(found, dict) or not isinstance(found.get("schema"), dict):
        raise InputError(f"{path} is no exported program that detc wrote: it holds no {METADATA_FILE}")
    return ExportedModel(program, found)
