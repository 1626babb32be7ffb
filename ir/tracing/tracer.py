"""Capturing the tensor-only parts of a model: one run over fake tensors whose sizes are the IR's symbols.

torch's `make_fx` records the operators that a module calls. The fake tensors hold no data and have symbolic sizes,
so nothing of any image can enter. What it recorded is imported op by op; weights keep their names and storage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from detc.ir import Builder, DetcError, Graph, TensorType, UnsupportedError, Value, torch_parts
from detc.ir.errors import SizeGrows, SizeIsNoNumber
from detc.ir.symbolic import SymbolicShapes
from detc.ir.types import type_symbols

from .branches import Trial, note_branches
from .conversions import sizes_stay_symbolic
from .recorded import NeedsFunctionalization, RecordedImport


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
    output_structure: list[Any] = []

    def flat(*tensors: torch.Tensor) -> list[Any]:
        waiting = iter(tensors)
        arguments = [next(waiting) if isinstance(leaf, Value) else leaf for leaf in leaves]
        outputs, tree = torch_parts.tree_flatten(function(*torch_parts.tree_unflatten(arguments, structure)))
        output_structure.append(tree)
        return outputs

    symbols = [s for v in values for s in type_symbols(v.type)]
    model = nn.Module() if root is None else root

    def recorded(function: Callable[..., Any], **options: Any) -> RecordedImport:
        world = SymbolicShapes(symbols, repeats=root is not None)
        fakes = [world.tensor(v.tensor_type) for v in values]
        traced = _record(function, fakes, model, path, **options)
        return RecordedImport(builder, traced, world, values, model, path)

    def trial() -> Trial:
        graph = Graph("trial", level="captured")
        tensors = [graph.add_input(f"x{i}", v.type) for i, v in enumerate(values)]
        again = RecordedImport(Builder(graph), record.traced, record.world, tensors, model, path)
        outputs = [output for output in again.run() if isinstance(output, Value)]
        graph.set_outputs({f"y{i}": output for i, output in enumerate(outputs)})
        return Trial(flat, graph)

    with _sizes_explained(path or type(function).__qualname__):
        try:
            record = recorded(flat)
        except SizeIsNoNumber:
            with sizes_stay_symbolic(function, model):
                record = recorded(flat)
        try:
            outputs = record.run()
        except NeedsFunctionalization:
            with sizes_stay_symbolic(function, model):
                record = recorded(torch.func.functionalize(flat), pre_dispatch=False)
            outputs = record.run()
    made = torch_parts.tree_unflatten(outputs, output_structure[-1])
    note_branches(builder.graph, record.world, path, trial)  # which runs `flat` again
    return made


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


def _record(
    flat: Callable[..., Any], fakes: list[torch.Tensor], root: nn.Module, path: str, pre_dispatch: bool = True
) -> GraphModule:
    # Before dispatch, conv2d, linear and batch_norm are still one operator each.
    tracer = torch_parts.make_fx(
        flat, tracing_mode="symbolic", pre_dispatch=pre_dispatch, _allow_non_fake_inputs=True
    )
    try:
        with torch.no_grad(), torch_parts.preserve_node_meta(), _module_paths(root, path):
            return tracer(*fakes)
    except DetcError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnsupportedError(
            f"{path or type(root).__name__} cannot be captured as a pure function of tensors: {reason}. "
            "If it computes with structures or looks at data, register an importer for its class with @detc.importer"
        ) from error


@contextmanager
def _module_paths(root: nn.Module, path: str) -> Iterator[None]:
    """While active, each recorded node carries the path of the module that is running."""
    names = {id(module): name for name, module in root.named_modules()}
    stack = [path]
    meta = torch_parts.get_current_meta()

    def enter(module: nn.Module, _: Any) -> None:
        stack.append(names.get(id(module), stack[-1]))
        meta["nn_module_stack"] = {"detc": stack[-1]}

    def leave(module: nn.Module, _: Any, __: Any) -> None:
        stack.pop()
        meta["nn_module_stack"] = {"detc": stack[-1]}

    meta["nn_module_stack"] = {"detc": path}
    hooks = [
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave, always_call=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        meta.pop("nn_module_stack", None)
