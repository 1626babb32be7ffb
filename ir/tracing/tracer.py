"""Tracing: one run of a function over tensors without data, whose sizes are the IR's, gives the nodes of a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from detc.ir import Builder, Dim, Graph, TensorType, UnsupportedError, Value, torch_parts
from detc.ir.dims import SymExpr, substitute, symbol
from detc.ir.errors import SizeGrows, SizeIsNoNumber
from detc.ir.questions import Questions, questions_noted
from detc.ir.types import type_symbols

from .branches import Trial, note_branches
from .conversions import sizes_stay_symbolic


def weight_names(root: nn.Module) -> dict[int, str]:
    """id of each parameter and buffer -> its name. A shared one has the name it is registered under first."""
    names: dict[int, str] = {}
    for name, tensor in [*root.named_parameters(), *root.named_buffers()]:
        names.setdefault(id(tensor), name)
    return names


def trace(
    builder: Builder,
    function: Callable[..., Any],
    inputs: tuple[Any, ...],
    *,
    root: nn.Module | None = None,
    path: str,
) -> Any:
    """Put what `function(*inputs)` computes into the graph, and return its outputs with values as leaves.

    `inputs` are (nested lists, tuples and dicts of) IR values; `root` is the whole model, for the names of weights
    and modules, None of a function that is no part of one; `path` is where in it the function belongs.

    Errors:
        UnsupportedError: the function is no pure function of tensors, or looks at their data.
    """
    leaves, structure = torch_parts.tree_flatten(inputs, is_leaf=lambda x: isinstance(x, Value))
    values = [leaf for leaf in leaves if isinstance(leaf, Value)]
    _refuse_instances(values, path, type(function).__qualname__)
    model = nn.Module() if root is None else root

    def flat(*tensors: torch.Tensor) -> tuple[list[Any], Any]:
        waiting = iter(tensors)
        arguments = [next(waiting) if isinstance(leaf, Value) else leaf for leaf in leaves]
        return torch_parts.tree_flatten(function(*torch_parts.tree_unflatten(arguments, structure)))

    with _sizes_explained(path or type(function).__qualname__):
        try:
            recorded = _record(flat, values, model, path)
        except SizeIsNoNumber:
            with sizes_stay_symbolic(function, model):
                recorded = _record(flat, values, model, path)
    note_branches(builder.graph, recorded.questions, path, Trial(flat, recorded.graph))
    sizes: dict[str, Dim] = {s.name: symbol(s.name, s.multiple) for v in values for s in type_symbols(v.type)}
    made = iter(builder.inline(recorded.graph, values, sizes))
    outputs = [
        next(made)
        if isinstance(leaf, Value)
        else substitute(leaf, sizes)
        if isinstance(leaf, SymExpr)
        else leaf
        for leaf in recorded.outputs
    ]
    return torch_parts.tree_unflatten(outputs, recorded.structure)


@dataclass
class _Record:
    """What a function did.

    Attributes:
        graph: its inputs are the function's tensors, its outputs those that it returned.
        outputs: what it returned, flattened, with the graph's values for tensors.
        structure: of what it returned.
    """

    graph: Graph
    outputs: list[Any]
    structure: Any
    questions: Questions


def _record(
    flat: Callable[..., tuple[list[Any], Any]], values: Sequence[Value], root: nn.Module, path: str
) -> _Record:
    # Only who traces needs torch's parts that it derives from.
    from .recorder import Recorder  # noqa: PLC0415

    graph = Graph("traced", level="captured")
    recorder = Recorder(Builder(graph), root, weight_names(root), path)
    tensors = [recorder.input(graph.add_input(f"x{i}", value.type)) for i, value in enumerate(values)]
    try:
        with questions_noted() as questions, recorder.recording():
            returned, structure = flat(*tensors)
    except (UnsupportedError, SizeIsNoNumber, SizeGrows):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnsupportedError(
            f"{path or type(root).__name__} cannot be captured as a pure function of tensors: {reason}. "
            "If it computes with structures or looks at data, register an importer for its class with @detc.importer"
        ) from error
    outputs = [recorder.read(leaf) for leaf in returned]
    graph.set_outputs({f"y{i}": output for i, output in enumerate(outputs) if isinstance(output, Value)})
    return _Record(graph, outputs, structure, questions)


def _refuse_instances(values: list[Value], path: str, name: str) -> None:
    if any(not isinstance(value.type, TensorType) for value in values):
        raise UnsupportedError(
            f"{path or 'the model'} ({name}) takes instances, and only functions of tensors can be traced: register an "
            f"importer for it with @detc.importer({name})"
        )


@contextmanager
def _sizes_explained(what: str) -> Iterator[None]:
    """Errors about sizes that symbols cannot stand for, as what to do about them in `what`."""
    try:
        yield
    except SizeIsNoNumber as error:
        raise UnsupportedError(
            f"{what} ({error.where}) needs the size {error.size} as a number, and can "
            "be traced for one number only. Write it without, or register an importer for its class with @detc.importer"
        ) from None
    except SizeGrows as error:
        raise UnsupportedError(
            f"{what} ({error.where}) computes sizes from sizes until they are too long "
            f"to keep: {error.size[:60]}... Compute them in fewer steps, or register an importer with @detc.importer"
        ) from None
