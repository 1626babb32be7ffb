"""What `detc.export` needs of torch.jit: scripting a model with classes in other classes' stead, and dumps."""

from __future__ import annotations

import itertools
import linecache
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import torch
from torch import nn

from detc.ir import InputError, torch_parts

_numbers = itertools.count(1)


def is_tracing() -> bool:
    """Whether torch.jit.trace is recording."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]  # torch exports it without a type


@contextmanager
def tracing_paused() -> Iterator[None]:
    """Within the block torch.jit.trace records nothing."""
    state = torch_parts.get_tracing_state()
    torch_parts.set_tracing_state(None)
    try:
        yield
    finally:
        torch_parts.set_tracing_state(state)


@contextmanager
def source_module(text: str, names: Mapping[str, Any], classes: Sequence[str]) -> Iterator[ModuleType]:
    """A module made of a text, importable within the block, whose `classes` torch.jit knows. `names` are its globals.

    Every module has a name of its own: torch.jit takes two classes of one full name for the same.
    """
    name = f"detc_scripted_{next(_numbers)}"
    module = ModuleType(name)
    module.__file__ = f"<{name}>"
    vars(module).update(names)
    sys.modules[name] = module
    linecache.cache[module.__file__] = (len(text), None, text.splitlines(keepends=True), module.__file__)
    try:
        exec(compile(text, module.__file__, "exec"), vars(module))  # noqa: S102  (a text that detc has written)
        # In the module's own namespace: torch.jit looks up there what the classes refer to.
        exec("".join(f"torch.jit.script({cls})\n" for cls in classes), vars(module))  # noqa: S102
        yield module
    finally:
        del sys.modules[name]
        del linecache.cache[module.__file__]


@contextmanager
def standing_in(classes: Mapping[type, type]) -> Iterator[None]:
    """Within the block torch.jit compiles, for each class, the other in its stead."""
    try:
        for original, stand_in in classes.items():
            setattr(original, torch_parts.SCRIPT_CLASS, True)
            setattr(original, torch_parts.QUALNAME_OVERRIDE, torch_parts.qualified_name(stand_in))
        _forget_compiled()
        yield
    finally:
        for original in classes:
            for name in (torch_parts.SCRIPT_CLASS, torch_parts.QUALNAME_OVERRIDE):
                if name in vars(original):
                    delattr(original, name)
        _forget_compiled()


def _forget_compiled() -> None:
    # torch.jit shares what it compiled among modules of one class: that was for other classes then.
    torch_parts.concrete_type_store.type_store.clear()
    torch_parts.jit_caching_layer.clear()


@contextmanager
def constant_training_mode(model: nn.Module) -> Iterator[None]:
    """Within the block torch.jit takes `training` for a constant: what is for training only is not compiled."""
    classes = {type(module) for module in model.modules()}
    before = {cls: vars(cls).get("__annotations__") for cls in classes}
    try:
        for cls in classes:
            cls.__annotations__ = {**getattr(cls, "__annotations__", {}), "training": Final[bool]}
        yield
    finally:
        for cls, annotations in before.items():
            if annotations is None:
                del cls.__annotations__
            else:
                cls.__annotations__ = annotations


def script(model: nn.Module) -> torch.jit.ScriptModule:
    """torch.jit.script.

    Errors:
        InputError: torch cannot compile the model.
    """
    try:
        made: torch.jit.ScriptModule = torch.jit.script(model)
    except (RuntimeError, NotImplementedError, TypeError, OSError) as error:
        raise InputError(f"torch.jit.script does not take {type(model).__name__}: {error}") from error
    return made


def script_function(function: Any) -> Any:
    """torch.jit.script of a function."""
    return torch.jit.script(function)


def dump_torchscript_IR(
    model: torch.jit.ScriptModule | torch.jit.ScriptFunction[Any, Any], dir: str | os.PathLike[str]
) -> None:
    """Write what a traced or scripted module or function consists of into a folder, made if need be.

    `model_ts_code.txt`: the code of every method, as Python; `model_ts_IR.txt`: the graph, and those of the modules in
    it; `model_ts_IR_inlined.txt`: the graph with all calls inlined; `model.txt`: the modules (not for a function).

    Errors:
        InputError: the model is neither traced nor scripted, or the folder cannot be written.
    """
    if isinstance(model, torch.jit.ScriptFunction):
        files = {"model_ts_code.txt": str(model.code), "model_ts_IR.txt": str(model.graph)}
    elif isinstance(model, torch.jit.ScriptModule):
        files = {
            "model_ts_code.txt": "".join(_code(model)),
            "model_ts_IR.txt": torch_parts.script_text(model),
            "model.txt": str(model),
        }
    else:
        raise InputError(
            f"dump_torchscript_IR takes what torch.jit.trace or torch.jit.script gave, not {type(model).__name__}"
        )
    files["model_ts_IR_inlined.txt"] = str(model.inlined_graph)
    folder = Path(os.path.expanduser(dir))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror}") from None


def _code(module: torch.jit.ScriptModule) -> Iterator[str]:
    for name, child in module.named_modules():
        methods = torch_parts.script_methods(child) if isinstance(child, torch.jit.ScriptModule) else []
        yield f"# {name or 'the whole model'}: {getattr(child, 'original_name', type(child).__name__)}\n"
        yield from (f"{method.code}\n" for method in methods)
        yield "" if methods else "# no code of its own\n\n"
