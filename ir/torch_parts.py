"""The non-public parts of torch that detc uses: all of them, each with what detc relies on of it.

A part is looked up at its first use, `torch_parts.make_fx`, so that a part which torch lacks disturbs only what needs
it. Then one InputError names torch's version and the part. `check()` looks up all of them, to judge a new torch.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import requires
from typing import TYPE_CHECKING, Any

import torch

from .errors import InputError

if TYPE_CHECKING:
    from torch._C import FunctionSchema
    from torch._C import _get_tracing_state as get_tracing_state
    from torch._C import _set_tracing_state as set_tracing_state  # type: ignore[attr-defined]  # torch's stub lacks it
    from torch._dispatch.python import enable_python_dispatcher
    from torch._dynamo.source import ConstantSource
    from torch._jit_internal import _qualified_name as qualified_name
    from torch._ops import OpOverload
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, uninteresting_files
    from torch.fx.traceback import get_current_meta, preserve_node_meta
    from torch.jit._recursive import concrete_type_store
    from torch.jit._state import _jit_caching_layer as jit_caching_layer
    from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten
    from torch.utils._sympy.symbol import SymT, symbol_is_type

__all__ = [
    "QUALNAME_OVERRIDE",
    "SCRIPT_CLASS",
    "ConstantSource",
    "DimDynamic",
    "FakeTensorMode",
    "OpOverload",
    "ShapeEnv",
    "SymT",
    "check",
    "concrete_type_store",
    "enable_python_dispatcher",
    "expression",
    "get_current_meta",
    "get_tracing_state",
    "jit_caching_layer",
    "make_fx",
    "preserve_node_meta",
    "qualified_name",
    "schema",
    "script_methods",
    "script_text",
    "set_tracing_state",
    "storage_key",
    "symbol_is_type",
    "tree_flatten",
    "tree_leaves",
    "tree_unflatten",
    "uninteresting_files",
]

NEWEST = "2.15"
"""The newest torch that detc was tested with. The oldest is the one that it requires."""

SCRIPT_CLASS = "__torch_script_class__"
"""The attribute of a class that says that torch.jit has compiled it."""
QUALNAME_OVERRIDE = "_jit_override_qualname"
"""The attribute of a class that says under which name torch.jit knows it."""


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
    "ShapeEnv": _Part(
        "torch.fx.experimental.symbolic_shapes.ShapeEnv",
        _SIZES,
        _Call(0),
        {
            "create_symbol": _Call(3, ("positive", "do_not_specialize_zero_one")),
            "create_symintnode": _Call(1, ("hint",)),
            "_suppress_guards_tls": _Call(0),
            # ExampleShapeEnv overrides these.
            "replace": _Call(1),
            "evaluate_expr": _Call(1, ("hint",)),
            "_maybe_evaluate_static": _Call(1, ("compute_hint",)),
        },
        example=lambda found: found(),
    ),
    "DimDynamic": _Part(
        "torch.fx.experimental.symbolic_shapes.DimDynamic", _SIZES, members={"DYNAMIC": None}
    ),
    "uninteresting_files": _Part(
        "torch.fx.experimental.symbolic_shapes.uninteresting_files", _SIZES, _Call(0)
    ),
    "ConstantSource": _Part("torch._dynamo.source.ConstantSource", _SIZES, _Call(1)),
    "SymT": _Part(
        "torch.utils._sympy.symbol.SymT", _SIZES, members={"UNBACKED_INT": None, "UNBACKED_FLOAT": None}
    ),
    "symbol_is_type": _Part("torch.utils._sympy.symbol.symbol_is_type", _SIZES, _Call(2)),
    "SymNode": _Part("torch.fx.experimental.sym_node.SymNode", _SIZES, members={"expr": None}),
    "FakeTensorMode": _Part(
        "torch._subclasses.fake_tensor.FakeTensorMode",
        _SIZES,
        _Call(0, ("shape_env", "allow_non_fake_inputs")),
    ),
    "enable_python_dispatcher": _Part("torch._dispatch.python.enable_python_dispatcher", _SIZES, _Call(0)),
    "make_fx": _Part(
        "torch.fx.experimental.proxy_tensor.make_fx",
        _TRACING,
        _Call(1, ("tracing_mode", "pre_dispatch", "_allow_non_fake_inputs")),
    ),
    "preserve_node_meta": _Part("torch.fx.traceback.preserve_node_meta", _TRACING, _Call(0)),
    "get_current_meta": _Part("torch.fx.traceback.get_current_meta", _TRACING, _Call(0)),
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


def expression(size: torch.SymInt | torch.SymFloat) -> Any:
    """The sympy expression of a symbolic size."""
    _part("SymNode")
    return size.node.expr


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
