"""The non-public parts of torch that detc uses: all of them, each with what detc relies on of it.

A part is looked up at its first use, `torch_parts.schema`, so that a part which torch lacks disturbs only what needs
it. Then one InputError names torch's version and the part. `check()` looks up all of them, to judge a new torch.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import requires
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from .errors import InputError

if TYPE_CHECKING:
    from torch._C import FunctionSchema
    from torch._C import _disabled_torch_function_impl as disabled_torch_function
    from torch._C import _get_tracing_state as get_tracing_state
    from torch._C import _set_tracing_state as set_tracing_state  # type: ignore[attr-defined]  # torch's stub lacks it
    from torch._dispatch.python import enable_python_dispatcher
    from torch._jit_internal import _qualified_name as qualified_name
    from torch._ops import OpOverload
    from torch.fx.experimental import sym_node
    from torch.jit._recursive import concrete_type_store
    from torch.jit._state import _jit_caching_layer as jit_caching_layer
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

__all__ = [
    "QUALNAME_OVERRIDE",
    "SCRIPT_CLASS",
    "OpOverload",
    "TorchDispatchMode",
    "check",
    "concrete_type_store",
    "disabled_torch_function",
    "enable_python_dispatcher",
    "expression",
    "get_tracing_state",
    "jit_caching_layer",
    "node_of",
    "qualified_name",
    "schema",
    "script_methods",
    "script_text",
    "set_tracing_state",
    "storage_key",
    "sym_int",
    "sym_node",
    "tree_flatten",
    "tree_leaves",
    "tree_unflatten",
    "wrapper",
]

NEWEST = "2.15"
"""The newest torch that detc was tested with. The oldest is the one that it requires."""

SCRIPT_CLASS = "__torch_script_class__"
"""The attribute of a class that says that torch.jit has compiled it."""
QUALNAME_OVERRIDE = "_jit_override_qualname"
"""The attribute of a class that says under which name torch.jit knows it."""


T = TypeVar("T", bound=torch.Tensor)


@dataclass(frozen=True)
class _Call:
    """What a function must take: this many positional arguments, and these by keyword."""

    positional: int
    keywords: tuple[str, ...] = ()

    def refused_by(self, function: Any) -> str | None:
        """What the function does not take, None if it takes all."""
        try:
            signature = inspect.signature(function)
        except ValueError:  # functions written in C++ do not tell
            return None
        for keyword in self.keywords:
            try:
                signature.bind_partial(**{keyword: None})
            except TypeError:
                return f"{keyword}="
        try:
            signature.bind(*range(self.positional), **dict.fromkeys(self.keywords))
        except TypeError:
            return {0: "no argument", 1: "one argument"}.get(self.positional, f"{self.positional} arguments")
        return None


@dataclass(frozen=True)
class _Part:
    path: str
    purpose: str
    call: _Call | None = None
    members: Mapping[str, _Call | None] = field(default_factory=dict)
    example: Callable[[Any], Any] = lambda found: found
    """Where the members are looked for: in the part itself, or in an instance that this makes."""

    def find(self) -> Any:
        module, _, name = self.path.rpartition(".")
        return getattr(import_module(module), name)

    def missing(self) -> list[str]:
        """What torch lacks of the part."""
        try:
            found = self.find()
        except (ImportError, AttributeError):
            return [self.path]
        refused = self.call and self.call.refused_by(found)
        if refused:
            return [f"{self.path} that takes {refused}"]
        try:
            example = self.example(found)
        except Exception as error:  # anything: torch may have changed in any way
            return [f"{self.path} that works ({(str(error).splitlines() or [type(error).__name__])[0]})"]
        lacking: list[str] = []
        for name, call in self.members.items():
            if not hasattr(example, name):
                lacking.append(f"{self.path}.{name}")
            elif refused := call and call.refused_by(getattr(example, name)):
                lacking.append(f"{self.path}.{name} that takes {refused}")
        return lacking

    def message(self, missing: str) -> str:
        return (
            f"torch {torch.__version__} has no {missing}, which detc needs {self.purpose}; "
            f"detc was tested with torch {_oldest()} to {NEWEST}: install one of these"
        )


_OPERATORS = "to read torch's operators"
_SIZES = "to infer sizes"
_TRACING = "to trace modules"
_SCRIPTING = "to script models"
_DUMPING = "to dump TorchScript"

_PARTS = {
    "OpOverload": _Part(
        "torch._ops.OpOverload",
        _OPERATORS,
        members={"_schema": None},
        example=lambda _: torch.ops.aten.relu.default,
    ),
    "TorchDispatchMode": _Part(
        "torch.utils._python_dispatch.TorchDispatchMode",
        _TRACING,
        members={"__enter__": None, "__exit__": None},
    ),
    "disabled_torch_function": _Part("torch._C._disabled_torch_function_impl", _TRACING),
    "Tensor": _Part("torch.Tensor", _TRACING, members={"_make_wrapper_subclass": None}),
    "sym_node": _Part(
        "torch.fx.experimental.sym_node",
        _SIZES,
        members={"to_node": _Call(2), "wrap_node": _Call(1), "__file__": None},
    ),
    "SymNode": _Part("torch.fx.experimental.sym_node.SymNode", _SIZES, members={"expr": None}),
    "enable_python_dispatcher": _Part("torch._dispatch.python.enable_python_dispatcher", _SIZES, _Call(0)),
    "tree_flatten": _Part("torch.utils._pytree.tree_flatten", _TRACING, _Call(1, ("is_leaf",))),
    "tree_unflatten": _Part("torch.utils._pytree.tree_unflatten", _TRACING, _Call(2)),
    "tree_leaves": _Part("torch.utils._pytree.tree_leaves", _TRACING, _Call(1)),
    "UntypedStorage": _Part("torch.UntypedStorage", _TRACING, members={"_cdata": None}),
    "get_tracing_state": _Part("torch._C._get_tracing_state", _SCRIPTING),
    "set_tracing_state": _Part("torch._C._set_tracing_state", _SCRIPTING),
    "qualified_name": _Part("torch._jit_internal._qualified_name", _SCRIPTING, _Call(1)),
    "concrete_type_store": _Part(
        "torch.jit._recursive.concrete_type_store", _SCRIPTING, members={"type_store": None}
    ),
    "jit_caching_layer": _Part(
        "torch.jit._state._jit_caching_layer", _SCRIPTING, members={"clear": _Call(0)}
    ),
    "ScriptModule": _Part(
        "torch._C.ScriptModule",
        _DUMPING,
        members={"dump_to_str": None, "_method_names": None, "_get_method": None},
    ),
    "RecursiveScriptModule": _Part(
        "torch.jit.RecursiveScriptModule",
        _DUMPING,
        members={"_c": None},
        example=lambda _: _scripted(),
    ),
}


def check() -> list[str]:
    """One message for each thing that this torch lacks of what detc uses."""
    return [part.message(missing) for part in _PARTS.values() for missing in part.missing()]


def sym_int(node: Any) -> torch.SymInt:
    """A symbolic integer that holds an object with the methods of torch's SymNode."""
    return torch.SymInt(node)


def node_of(number: torch.SymInt | torch.SymFloat) -> Any:
    """What a symbolic number holds: what `sym_int` was given, or torch's own SymNode."""
    return number.node


def expression(size: torch.SymInt) -> Any:
    """The sympy expression of a symbolic size of torch's own making."""
    _part("SymNode")
    return node_of(size).expr


def wrapper(cls: type[T], shape: Sequence[Any], dtype: torch.dtype) -> T:
    """A tensor of that class without data, which says that it is on the CPU. The sizes may be symbolic.

    Asked for its strides, it asks the class, or the mode that is active.
    """
    _part("Tensor")
    with torch.inference_mode(False):
        made: T = torch.Tensor._make_wrapper_subclass(
            cls, shape, dtype=dtype, device=torch.device("cpu"), dispatch_sizes_strides_policy="strides"
        )
    return made


def schema(overload: OpOverload) -> FunctionSchema:
    """The arguments and results that an operator declares."""
    _part("OpOverload")
    return overload._schema


def storage_key(tensor: torch.Tensor) -> int:
    """The same for two tensors, fake ones too, exactly if they are views of the same data. Both must be alive."""
    _part("UntypedStorage")
    return int(tensor.untyped_storage()._cdata)


def script_text(module: torch.jit.ScriptModule) -> str:
    """The graphs of a traced or scripted module and of the modules in it, without the weights."""
    _part("ScriptModule")
    _part("RecursiveScriptModule")
    return str(module._c.dump_to_str(True, False, False))


def script_methods(module: torch.jit.ScriptModule) -> list[Any]:
    """The compiled methods of a traced or scripted module, each a `torch.ScriptMethod`."""
    _part("ScriptModule")
    _part("RecursiveScriptModule")
    return [module._c._get_method(name) for name in module._c._method_names()]


@cache
def _part(name: str) -> Any:
    part = _PARTS[name]
    for missing in part.missing():
        raise InputError(part.message(missing))
    return part.find()


def _scripted() -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit calls itself deprecated
        made: torch.jit.ScriptModule = torch.jit.script(torch.nn.Identity())
    return made


def _oldest() -> str:
    found = re.search(r"^torch\b.*>=([\d.]+)", "\n".join(requires("detc") or ()), re.MULTILINE)
    assert found, "detc requires a least torch"
    return found[1]


if not TYPE_CHECKING:  # else every misspelt name were a part to the type checker

    def __getattr__(name: str) -> Any:
        if name not in _PARTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found = _part(name)
        return found
