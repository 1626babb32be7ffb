"""Capturing the tensor-only parts of a model: one run over fake tensors whose sizes are the IR's symbols.

torch's `make_fx` records the operators that a module calls. The fake tensors hold no data and have symbolic sizes,
so nothing of any image can enter. What it recorded is imported op by op; weights keep their names and storage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule
from torch.fx import Node as FxNode
from torch.fx import traceback as fx_traceback
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from detc.ir import (
    Builder,
    Condition,
    DetcError,
    Dim,
    Graph,
    IRError,
    TensorType,
    UnsupportedError,
    Value,
    freeze,
)
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
from detc.ir.types import type_symbols

_IGNORED_ARGUMENTS = {"device", "layout", "pin_memory", "memory_format", "generator", "non_blocking"}
IMAGE_SIZES = ("H", "W")
"""The sizes of the batch's images, padded, in pixels."""
ASSUMPTIONS = "assumptions"
"""The graph's metadata about sizes it does not hold for: a list of {"condition": "H/32 > 7", "where": ...}."""

_NO_EFFECT_ON_VALUES = ("aten._assert_async", "aten.sym_constrain_range", "aten._assert_scalar")


class _NeedsFunctionalization(Exception):
    """A tensor is changed in place while a view of it is around: the recorded names do not tell what changes."""


def trace(
    builder: Builder,
    function: Callable[..., Any],
    inputs: tuple[Any, ...],
    *,
    root: nn.Module,
    path: str,
) -> Any:
    """Put what `function(*inputs)` computes into the graph, and return its outputs with values as leaves.

    `inputs` are (nested lists, tuples and dicts of) IR values; `root` is the whole model, for the names of weights
    and modules; `path` is where in it the function belongs.

    Errors:
        UnsupportedError: the function is no pure function of tensors, or looks at their data.
    """
    leaves, structure = pytree.tree_flatten(inputs, is_leaf=lambda x: isinstance(x, Value))
    values = [leaf for leaf in leaves if isinstance(leaf, Value)]
    if any(not isinstance(value.type, TensorType) for value in values):
        name = type(function).__qualname__
        raise UnsupportedError(
            f"{path or 'the model'} ({name}) takes instances, and only functions of tensors can be traced: register an "
            f"importer for it with @detc.importer({name})"
        )
    world = SymbolicShapes(s for v in values for s in type_symbols(v.type))
    fakes = [world.tensor(v.tensor_type) for v in values]
    output_structure: list[Any] = []

    def flat(*tensors: torch.Tensor) -> list[Any]:
        waiting = iter(tensors)
        arguments = [next(waiting) if isinstance(leaf, Value) else leaf for leaf in leaves]
        outputs = function(*pytree.tree_unflatten(arguments, structure))
        flat_outputs, tree = pytree.tree_flatten(outputs)
        output_structure.append(tree)
        return flat_outputs

    try:
        traced = _record(flat, fakes, root, path)
        fixed = world.decided()
        if fixed is not None:
            raise UnsupportedError(
                f"{path or type(function).__qualname__} asks whether the size {fixed} is a certain number, and can be "
                "traced for that one only. Register an importer for its class with @detc.importer"
            )
        _note_branches(builder.graph, world, path)
        outputs = _Import(builder, traced, world, values, root, path).run()
    except _NeedsFunctionalization:
        traced = _record(torch.func.functionalize(flat), fakes, root, path, pre_dispatch=False)
        outputs = _Import(builder, traced, world, values, root, path).run()
    return pytree.tree_unflatten(outputs, output_structure[-1])


def _note_branches(graph: Graph, world: SymbolicShapes, path: str) -> None:
    """What the function asked about sizes: of the images, an assumption of the graph; of a count, an error."""
    for condition, line in world.branches():
        if condition is not None and _not_empty(condition):
            # With no rows there is nothing to get wrong: the other branch only saves work.
            continue
        where = f"{path} ({line})" if path else line
        if condition is None or any(s.name not in IMAGE_SIZES for s in condition.symbols()):
            asked = f" ({condition})" if condition is not None else ""
            raise UnsupportedError(
                f"{where} branches on a number of rows or images{asked}, and one branch only can be traced. Write it "
                "without the branch, or register an importer for its class with @detc.importer"
            )
        assumption = {"condition": str(condition), "where": where}
        assumptions = graph.metadata.setdefault(ASSUMPTIONS, [])
        if all(known["condition"] != assumption["condition"] for known in assumptions):
            assumptions.append(assumption)


def _not_empty(condition: Condition) -> bool:
    if condition.relation in ("<", "<="):
        return condition.left == (0 if condition.relation == "<" else 1)
    if condition.relation == "!=":
        return 0 in (condition.left, condition.right)
    return condition.right == {">": 0, ">=": 1}.get(condition.relation)


def _record(
    flat: Callable[..., Any], fakes: list[torch.Tensor], root: nn.Module, path: str, pre_dispatch: bool = True
) -> GraphModule:
    # Before dispatch, conv2d, linear and batch_norm are still one operator each.
    tracer = make_fx(flat, tracing_mode="symbolic", pre_dispatch=pre_dispatch, _allow_non_fake_inputs=True)
    try:
        with torch.no_grad(), fx_traceback.preserve_node_meta(), _module_paths(root, path):
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
    meta = fx_traceback.get_current_meta()

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


def weight_names(root: nn.Module) -> dict[int, str]:
    """id of each parameter and buffer -> its name. A shared one has the name it is registered under first."""
    names: dict[int, str] = {}
    for name, tensor in [*root.named_parameters(), *root.named_buffers()]:
        names.setdefault(id(tensor), name)
    return names


class _Import:
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
        self.aliases: dict[FxNode, set[FxNode]] = {}
        self.constants: dict[int, Value] = {}

    def run(self) -> list[Any]:
        waiting = iter(self.inputs)
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = next(waiting)
                self.aliases[node] = {node}
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
            return self.values[argument]
        if isinstance(argument, list | tuple):
            return [self._read(a) for a in argument]
        if isinstance(argument, torch.SymInt):
            return self.world.dim(argument)
        return argument

    def _call(self, node: FxNode) -> None:
        result = node.meta.get("val")
        if isinstance(result, torch.SymInt | int) and not isinstance(result, bool):
            self.values[node] = self._size(result)
            return
        if getattr(node.target, "__name__", "") == "getitem":
            self.values[node] = self._read(node.args[0])[node.args[1]]
            source = node.args[0]
            if isinstance(source, FxNode) and source in self.aliases:
                self.aliases[node] = self.aliases[source]
            return
        overload = node.target
        if not isinstance(overload, torch._ops.OpOverload):
            if result is None or isinstance(result, torch.SymBool | torch.SymFloat | bool | float):
                self.values[node] = result
                return
            raise UnsupportedError(f"{self._source(node)}: {overload} has no place in the IR")
        if overload_name(overload) in _NO_EFFECT_ON_VALUES or result is None:
            return
        if overload._schema.is_mutable:
            self._mutation(node, overload)
        else:
            self.values[node] = self._emit(node, overload)
            self._note_alias(node, overload)

    def _size(self, size: Any) -> Dim:
        return self.world.dim(size)

    def _source(self, node: FxNode) -> str:
        return (node.meta.get("nn_module_stack") or {}).get("detc", self.path)

    def _mutation(self, node: FxNode, overload: torch._ops.OpOverload) -> None:
        """An in-place operator becomes the plain one; later uses of the tensor see its result."""
        changed = node.args[0]
        functional = _out_of_place(overload)
        if functional is None or not isinstance(changed, FxNode):
            raise _NeedsFunctionalization
        group = self.aliases.get(changed, {changed})
        if any(member.op == "placeholder" for member in group):
            raise UnsupportedError(
                f"{self._source(node)}: changes its input in place ({overload_name(overload)})"
            )
        if len(group) > 1 and any(self.values.get(m) is not self.values.get(changed) for m in group):
            raise _NeedsFunctionalization
        value = self._emit(node, functional)
        for member in group:
            self.values[member] = value
        self.values[node] = value
        self.aliases[node] = group | {node}
        for member in self.aliases[node]:
            self.aliases[member] = self.aliases[node]

    def _note_alias(self, node: FxNode, overload: torch._ops.OpOverload) -> None:
        group = {node}
        for argument, given in zip(overload._schema.arguments, node.args, strict=False):
            may_share = argument.alias_info is not None or overload.name().startswith(
                ("aten::reshape", "aten::to.")
            )
            if may_share and isinstance(given, FxNode):
                group |= self.aliases.get(given, {given})
        for member in group:
            self.aliases[member] = group

    def _emit(self, node: FxNode, overload: torch._ops.OpOverload) -> Any:
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

    def _arguments(self, node: FxNode, overload: torch._ops.OpOverload) -> tuple[list[Any], dict[str, Any]]:
        operands: list[Any] = []
        attributes: dict[str, Any] = {}
        given: Mapping[str, Any] = node.kwargs
        for position, argument in enumerate(overload._schema.arguments):
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
                if isinstance(value, bool | int | float):
                    attributes[argument.name] = value
                else:
                    operands.append(value)
            elif argument.name not in _IGNORED_ARGUMENTS and not _is_default(overload, argument, value):
                attributes[argument.name] = value
        while operands and operands[-1] is None:
            operands.pop()
        return operands, attributes


def _is_default(overload: torch._ops.OpOverload, argument: Any, value: Any) -> bool:
    if argument.name in inert_arguments(overload):
        return True
    default = default_of(overload, argument)
    if isinstance(default, int | float) and isinstance(value, list):
        return all(v == default for v in value)
    return type(value) is type(default) and bool(value == default)


def _out_of_place(overload: torch._ops.OpOverload) -> torch._ops.OpOverload | None:
    """`aten.relu` for `aten.relu_`, None where torch has no such twin."""
    namespace, base, *rest = overload_name(overload).split(".")
    if not base.endswith("_") or overload._schema.arguments[0].alias_info is None:
        return None
    return overload_of(".".join([namespace, base[:-1], *rest]))
