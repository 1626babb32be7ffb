"""Graphs from wherever they are: a model to capture, IR text, an ONNX file, a Caffe2 folder; and inputs for them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from detc.backends.arrays import batch_images
from detc.backends.images import model_input, read_image
from detc.backends.target import target_of_file
from detc.ir import Graph, InputError, InstancesType, TensorType, evaluate
from detc.ir.dialects.instances import InstancesBatch
from detc.ir.spans import span
from detc.ir.types import Type, tensors_of, type_symbols
from detc.passes import load_graph, load_inputs

EXAMPLE_SIZE = 3
"""What a symbolic size is, in random inputs, in units of what it is a multiple of."""


def read_graph(options: argparse.Namespace) -> Graph:
    """The graph that the options name.

    Errors:
        InputError: there is none, or it cannot be read.
    """
    if options.graph is None:
        if not options.config or not options.weights:
            raise InputError(
                "give a graph (model.ir, model.onnx, a Caffe2 folder), or --config and --weights"
            )
        from detc.frontend import capture, load_model  # noqa: PLC0415  (who reads a file need not wait for it)

        model = load_model(options.config, options.weights)
        with span("capture"):
            return capture(model)
    if options.config or options.weights:
        raise InputError(f"give either {options.graph}, or --config and --weights")
    path: Path = options.graph
    if not path.exists():
        raise InputError(f"there is no file {path}")
    return load_graph(path) if path.suffix == ".ir" else target_of_file(path).graph(path)


def inputs_for(graph: Graph, images: Sequence[str], path: Path | None) -> list[dict[str, Any]]:
    """Inputs to run the graph on: the images alone and as a batch; else those beside its file; else random ones.

    Errors:
        InputError: an image cannot be read, or the graph takes no images.
    """
    if images:
        return _image_inputs(graph, images)
    stored = load_inputs(path) if path is not None and path.suffix == ".ir" else None
    return [stored] if stored is not None else [random_inputs(graph)]


def _image_inputs(graph: Graph, images: Sequence[str]) -> list[dict[str, Any]]:
    names = [value.name for value in graph.inputs]
    if "data" not in names or "size_divisibility" not in graph.metadata:
        raise InputError(f"the graph takes {', '.join(names)}, no images: leave them out for random inputs")
    prepared = [model_input(read_image(path), graph.metadata) for path in images]
    fixed = graph.input("data").shape[0]
    batches = [[image] for image in prepared]
    if len(prepared) > 1 and not isinstance(fixed, int):
        batches.append(prepared)
    divisibility = int(graph.metadata["size_divisibility"])
    feeds = [batch_images(batch, divisibility) for batch in batches]
    return [{name: torch.as_tensor(feed[name]) for name in names} for feed in feeds]


def random_inputs(graph: Graph, seed: int = 0) -> dict[str, Any]:
    """Random values for each input, the same for the same seed: floats in [0, 1), integers and booleans 0 or 1.

    Symbolic sizes are small. What a detector takes besides its images fits them.
    """
    generator = torch.Generator().manual_seed(seed)
    symbols = {s.name: s for value in graph.inputs for s in type_symbols(value.type)}
    sizes = {name: EXAMPLE_SIZE * known.multiple for name, known in symbols.items()}
    values = {value.name: _random(value.type, sizes, generator) for value in graph.inputs}
    if "data" in values and "im_info" in values:
        data = values["data"].mul_(255)
        size = torch.tensor(data.shape[-2:])
        values["im_info"] = torch.tensor([*size.tolist(), 1.0]).expand(len(data), 3).contiguous()
        if "output_size" in values:
            values["output_size"] = size.expand(len(data), 2).contiguous()
    return values


def _random(type: Type, sizes: dict[str, int], generator: torch.Generator) -> Any:
    if isinstance(type, InstancesType):
        return InstancesBatch({name: _random(field, sizes, generator) for name, field in type.fields})
    if not isinstance(type, TensorType):
        raise InputError(
            f"random inputs of {type} cannot be made; {len(list(tensors_of(type)))} tensors in it"
        )
    shape = [int(evaluate(dim, sizes)) for dim in type.shape]
    if type.dtype.is_floating_point:
        return torch.rand(shape, generator=generator, dtype=type.dtype)
    return torch.randint(0, 2, shape, generator=generator).to(type.dtype)
