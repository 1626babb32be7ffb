"""Turning what torch recorded of a function, an fx graph, into nodes of the IR.

The IR has no operators that change a tensor. A recorded one becomes the plain operator, and what is read afterwards
is its result; of a view that was changed, the tensors that it is a view of get the changed part put in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule
from torch.fx import Node as FxNode

from detc.ir import Builder, Dim, IRError, SymExpr, UnsupportedError, Value, freeze, torch_parts
from detc.ir.aten import (
    default_of,
    flat_results,
    inert_arguments,
    operand_kind,
    overload_name,
    overload_of,
    remember_types,
)
from detc.ir.ops import get_op
from detc.ir.symbolic import SymbolicShapes

from .views import may_share, put_back, share_storage

_IGNORED_ARGUMENTS = {"device", "layout", "pin_memory", "memory_format", "generator", "non_blocking"}
_NO_EFFECT_ON_VALUES = ("aten._assert_async", "aten.sym_constrain_range", "aten._assert_scalar")


class NeedsFunctionalization(Exception):
    """A tensor is changed in place while a view of it is around: the recorded names do not tell what changes."""


def weight_names(root: nn.Module) -> dict[int, str]:
    """id of each parameter and buffer -> its name. A shared one has the name it is registered under first."""
    names: dict[int, str] = {}
    for name, tensor in [*root.named_parameters(), *root.named_buffers()]:
        names.setdefault(id(tensor), name)
    return names


class RecordedImport:
    """Turns one recorded fx graph into IR nodes."""

    def __init__(
        self,
        builder: Builder,
        traced: GraphModule,
        world: SymbolicShapes,
        inputs: list[Value],
        root: nn.Module,
        path: str,
    ) -> None:
        self.builder = builder
        self.traced = traced
        self.world = world
        self.inputs = inputs
        self.path = path
        self.weights = weight_names(root)
        self.values: dict[FxNode, Any] = {}
        self.viewed: dict[FxNode, FxNode] = {}
        """What a view is a view of: a tensor, or the list of views that it is one of."""
        self.views: dict[FxNode, list[FxNode]] = {}
        self.stale: set[FxNode] = set()
        """The views of tensors that have changed since."""
        self.constants: dict[int, Value] = {}

    def run(self) -> list[Any]:
        waiting = iter(self.inputs)
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = next(waiting)
            elif node.op == "get_attr":
                self.values[node] = self._constant(node.target)
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                return [self._read(leaf) for leaf in node.args[0]]
        raise IRError("a recorded graph has no output")

    def _constant(self, target: str) -> Value:
        tensor: Any = self.traced
        for part in target.split("."):
            tensor = getattr(tensor, part)
        if not isinstance(tensor, torch.Tensor):
            raise UnsupportedError(
                f"{self.path}: a recorded constant is a {type(tensor).__name__}, not a tensor"
            )
        name = self.weights.get(id(tensor))
        if name is not None:
            return self.builder.graph.add_weight(name, tensor)
        if id(tensor) not in self.constants:
            self.constants[id(tensor)] = self.builder.graph.constant(tensor, f"{self.path}.constant")
        return self.constants[id(tensor)]

    def _read(self, argument: Any) -> Any:
        """A recorded argument with fx nodes replaced by IR values, and symbolic integers by dimensions."""
        if isinstance(argument, FxNode):
            if argument not in self.values:
                raise IRError(f"{argument} is used before it is computed")
            if argument in self.stale:
                self.stale.discard(argument)
                self.values[argument] = self._view(argument)
            found = self.values[argument]
            return self._real_number(found) if isinstance(found, torch.SymFloat) else found
        if isinstance(argument, list | tuple):
            return [self._read(a) for a in argument]
        if isinstance(argument, torch.SymInt):
            return self.world.dim(argument)
        return argument

    def _real_number(self, number: torch.SymFloat) -> Value | float:
        """A number computed from sizes, as a tensor of no dimensions."""
        above, below = self.world.ratio(number)
        if isinstance(above, int) and isinstance(below, int):
            return above / below
        made = self.builder.aten.full(size=(), fill_value=above, dtype=torch.float32)
        if below != 1:
            made = self.builder.aten.div.Tensor(made, other=below)
        return made

    def _call(self, node: FxNode) -> None:
        result = node.meta.get("val")
        if isinstance(result, torch.SymInt | int) and not isinstance(result, bool):
            self.values[node] = self._size(result)
            return
        if getattr(node.target, "__name__", "") == "getitem":
            self.values[node] = self._view(node)
            source = node.args[0]
            if isinstance(source, FxNode) and source in self.viewed:
                self._note_view(node, source)
            return
        overload = node.target
        if not isinstance(overload, torch_parts.OpOverload):
            if result is None or isinstance(result, torch.SymBool | torch.SymFloat | bool | float):
                self.values[node] = result
                return
            raise UnsupportedError(f"{self._source(node)}: {overload} has no place in the IR")
        if overload_name(overload) in _NO_EFFECT_ON_VALUES:
            return
        if result is None:
            if torch_parts.schema(overload).is_mutable:
                raise UnsupportedError(
                    f"{self._source(node)}: {overload_name(overload)} has no place in the IR"
                )
            return
        if torch_parts.schema(overload).is_mutable:
            self._mutation(node, overload)
        else:
            self.values[node] = self._emit(node, overload)
            self._note_alias(node, overload)

    def _size(self, size: Any) -> Dim:
        return self.world.dim(size)

    def _source(self, node: FxNode) -> str:
        source: str = (node.meta.get("nn_module_stack") or {}).get("detc", self.path)
        return source

    def _view(self, node: FxNode) -> Any:
        """What a view is, of what it is a view of now."""
        if getattr(node.target, "__name__", "") == "getitem":
            return self._read(node.args[0])[node.args[1]]
        assert isinstance(node.target, torch_parts.OpOverload)
        return (
            self._read(node.args[0])
            if torch_parts.schema(node.target).is_mutable
            else self._emit(node, node.target)
        )

    def _note_view(self, node: FxNode, of: FxNode) -> None:
        self.viewed[node] = of
        self.views.setdefault(of, []).append(node)

    def _mutation(self, node: FxNode, overload: torch_parts.OpOverload) -> None:
        """An in-place operator becomes the plain one; later uses of the tensor, and of what shares its data, see it."""
        changed = node.args[0]
        functional = _out_of_place(overload)
        if functional is None or not isinstance(changed, FxNode):
            raise NeedsFunctionalization
        owner = changed
        while owner in self.viewed:
            owner = self.viewed[owner]
        if owner.op == "placeholder":
            raise UnsupportedError(
                f"{self._source(node)}: changes its input in place ({overload_name(overload)})"
            )
        if torch.Tag.inplace_view in overload.tags and (changed in self.viewed or changed in self.views):
            raise NeedsFunctionalization
        self._write(changed, self._emit(node, functional))
        self.values[node] = self.values[changed]
        self._note_view(node, changed)

    def _write(self, changed: FxNode, value: Any) -> None:
        """The tensor has this value from now on, and what it is a view of has it as a part."""
        viewed = self.viewed.get(changed)
        if viewed is not None:
            with self.builder.at(self._source(changed)):
                self._write(viewed, self._with_part(changed, viewed, value))
        self._outdate(changed)
        self.values[changed] = value
        self.stale.discard(changed)

    def _with_part(self, view: FxNode, viewed: FxNode, value: Any) -> Any:
        """What is viewed, after the view has changed to the value."""
        made_by, whole = view.target, self._read(viewed)
        if getattr(made_by, "__name__", "") == "getitem":
            return [value if i == view.args[1] else part for i, part in enumerate(whole)]
        assert isinstance(made_by, torch_parts.OpOverload)
        if torch_parts.schema(made_by).is_mutable:
            return value
        _, attributes = self._arguments(view, made_by)
        before, now = self.values[view], value
        if not isinstance(value, list):
            before, now = [before], [value]
        for index, (old, part) in enumerate(zip(before, now, strict=True)):
            if part is not old:
                whole = put_back(self.builder, made_by, attributes, whole, now, index, part)
                if whole is None:
                    raise NeedsFunctionalization
        return whole

    def _outdate(self, changed: FxNode) -> None:
        for view in self.views.get(changed, ()):
            self.stale.add(view)
            self._outdate(view)

    def _note_alias(self, node: FxNode, overload: torch_parts.OpOverload) -> None:
        for argument, given in zip(torch_parts.schema(overload).arguments, node.args, strict=False):
            if may_share(argument, overload) and isinstance(given, FxNode):
                if share_storage(node.meta["val"], given.meta.get("val")):
                    self._note_view(node, given)
                return

    def _emit(self, node: FxNode, overload: torch_parts.OpOverload) -> Any:
        operands, attributes = self._arguments(node, overload)
        op = get_op(overload_name(overload))
        results = flat_results(node.meta["val"])
        types = [self.world.type(t) for t in results]
        remember_types(op, operands, {k: freeze(v) for k, v in attributes.items()}, types)
        with self.builder.at(self._source(node)):
            made = self.builder.node(op, operands, attributes, types)
        if isinstance(node.meta["val"], torch.Tensor):
            return made.results[0]
        return list(made.results)

    def _arguments(self, node: FxNode, overload: torch_parts.OpOverload) -> tuple[list[Any], dict[str, Any]]:
        operands: list[Any] = []
        attributes: dict[str, Any] = {}
        given: Mapping[str, Any] = node.kwargs
        for position, argument in enumerate(torch_parts.schema(overload).arguments):
            if position < len(node.args):
                value = self._read(node.args[position])
            elif argument.name in given:
                value = self._read(given[argument.name])
            elif operand_kind(argument) is not None:
                value = None
            else:
                continue
            if argument.name == "training" and value is True:
                raise UnsupportedError(f"{self._source(node)}: is in training mode; call model.eval() first")
            if operand_kind(argument) is not None:
                if isinstance(value, bool | int | float | SymExpr):
                    attributes[argument.name] = value
                else:
                    operands.append(value)
            elif argument.name not in _IGNORED_ARGUMENTS and not _is_default(overload, argument, value):
                attributes[argument.name] = value
        while operands and operands[-1] is None:
            operands.pop()
        return operands, attributes


def _is_default(overload: torch_parts.OpOverload, argument: Any, value: Any) -> bool:
    if argument.name in inert_arguments(overload):
        return True
    default = default_of(overload, argument)
    if isinstance(default, int | float) and isinstance(value, list):
        return all(v == default for v in value)
    return type(value) is type(default) and bool(value == default)


def _out_of_place(overload: torch_parts.OpOverload) -> torch_parts.OpOverload | None:
    """`aten.relu` for `aten.relu_`, None where torch has no such twin."""
    namespace, base, *rest = overload_name(overload).split(".")
    if not base.endswith("_") or torch_parts.schema(overload).arguments[0].alias_info is None:
        return None
    return overload_of(".".join([namespace, base[:-1], *rest]))
