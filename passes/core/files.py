"""Graphs as files: the text in one that ends in `.ir`, weights beside it.

model.ir  model.safetensors                   a graph by itself, `save_graph`
003_fuse.ir  ...  weights.safetensors         one of a dump, whose stages share their weights, `DumpIR`
model.inputs.safetensors                      inputs to run it on, where there are such
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from detc.ir import Graph, InputError, ParseError, parse_graph, print_graph
from detc.ir.dialects.instances import InstancesBatch
from detc.ir.files import atomic_path, atomic_write

WEIGHTS_FILE = "weights.safetensors"
"""The weights of all stages of a dump."""
_FIELD = "/"


def save_graph(graph: Graph, path: str | os.PathLike[str], inputs: Mapping[str, Any] | None = None) -> None:
    """Write a graph's text, its weights beside it, and on request inputs to run it on.

    An old file stays as it is until the new one is complete.

    Errors:
        InputError: the name does not end in .ir, or the files cannot be written.
    """
    file = Path(path)
    if file.suffix != ".ir":
        raise InputError(f"the text of a graph goes into a file that ends in .ir, not {file.name}")
    weights = {name: w.data for name, w in graph.weights.items() if not w.data.is_meta}
    write_tensors(weights, file.with_suffix(".safetensors"))
    if inputs is not None:
        write_tensors(_flat(inputs), _inputs_file(file))
    with atomic_write(file) as stream:
        stream.write(print_graph(graph).encode())


def load_graph(path: str | os.PathLike[str]) -> Graph:
    """The graph of a file with its text, with the weights that lie beside it (without data where they are missing).

    Errors:
        InputError: the file cannot be read.
        ParseError: it is no IR.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ParseError(f"{file} is no text") from None
    graph = parse_graph(text)
    for beside in (file.with_suffix(".safetensors"), file.parent / WEIGHTS_FILE):
        if beside.exists():
            # Of all stages' weights only those that this text names are read.
            return parse_graph(text, _read_tensors(beside, set(graph.weights)))
    return graph


def load_inputs(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The inputs that lie beside the file of a graph, None where there are none.

    Errors:
        InputError: they cannot be read.
    """
    file = _inputs_file(Path(path))
    if not file.exists():
        return None
    inputs: dict[str, Any] = {}
    instances: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in _read_tensors(file).items():
        name, inside, field = key.partition(_FIELD)
        if inside:
            instances.setdefault(name, {})[field] = tensor
        else:
            inputs[name] = tensor
    return {**inputs, **{name: InstancesBatch(fields) for name, fields in instances.items()}}


def _inputs_file(path: Path) -> Path:
    return path.with_suffix(".inputs.safetensors")


def _flat(inputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    flat: dict[str, torch.Tensor] = {}
    for name, value in inputs.items():
        if isinstance(value, InstancesBatch):
            flat.update({f"{name}{_FIELD}{field}": tensor for field, tensor in value.fields.items()})
        else:
            flat[name] = value
    return flat


def write_tensors(
    tensors: Mapping[str, torch.Tensor], target: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file. An old one stays as it is until the new one is complete.

    Errors:
        InputError: it cannot be written.
    """
    with atomic_path(target) as beside:
        try:
            save_file(_apart(tensors), beside, metadata=metadata)
        except SafetensorError as error:
            raise InputError(f"cannot write {target}: {error}") from None


def _read_tensors(file: Path, names: set[str] | None = None) -> dict[str, torch.Tensor]:
    try:
        with safe_open(file, framework="pt") as stored:
            keys = stored.keys() if names is None else names.intersection(stored.keys())
            return {name: stored.get_tensor(name) for name in keys}
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read {file}: {error}") from None


def _apart(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors as the file format wants them: contiguous, none in another's storage."""
    taken: set[int] = set()
    result: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        storage = tensor.untyped_storage()
        whole = tensor.is_contiguous() and storage.nbytes() == tensor.numel() * tensor.element_size()
        if not whole or storage.data_ptr() in taken:
            tensor = tensor.detach().clone(memory_format=torch.contiguous_format)  # noqa: PLW2901
        taken.add(storage.data_ptr())
        result[name] = tensor.detach()
    return result
