"""Recording what a function of tensors calls, as nodes of the IR.

While a recorder is active it gets each operator that is called before anything is computed, conv2d, linear or
batch_norm as one. The tensors have a type and no data, so nothing of any image can enter. The types are those that the
IR's own rules give.

The IR has no operators that change a tensor. A recorded one becomes the plain operator, and what is read afterwards
is its result; of a view that was changed, the tensors that it is a view of get the changed part put in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from detc.ir import Builder, Node, SymExpr, UnsupportedError, Value, torch_parts
from detc.ir.aten import default_of, inert_arguments, operand_kind, overload_name, overload_of
from detc.ir.errors import SizeIsNoNumber
from detc.ir.ops import Op, get_op
from detc.ir.questions import place_at_work
from detc.ir.spans import span
from detc.ir.symbolic import dim_of, power_of, size

from .constructors import Constructors
from .views import Call, Cell, may_share

_IGNORED_ARGUMENTS = {"device", "layout", "pin_memory", "memory_format", "generator", "non_blocking"}
_NO_EFFECT_ON_VALUES = ("aten._assert_async", "aten.sym_constrain_range", "aten._assert_scalar")
_OF_NEW_CONSTANTS = ("aten.lift_fresh", "aten.detach_")
"""What `torch.tensor([1.0])` calls on a tensor that has its data already."""
_OF_STRIDES = (
    "aten.sym_",
    "aten.is_contiguous",
    "aten.is_strides_like",
    "aten.is_non_overlapping",
    "aten.stride",
)
"""What asks how a tensor lies in memory."""


_CALLED_OTHERWISE = {"transpose_": "aten.transpose.int", "zero_": "aten.zeros_like"}
"""In-place operators whose plain twins are not called the same."""


class NotPure(Exception):
    """The function does more than to compute tensors from tensors."""


class TracedTensor(Tensor):
    """A tensor with a type and without data: what a function is traced with."""

    cell: Cell

    @staticmethod
    def of(cell: Cell) -> TracedTensor:
        """A tensor of the type of the cell's value."""
        type = cell.value.tensor_type
        made = torch_parts.wrapper(TracedTensor, tuple(map(size, type.shape)), type.dtype)
        made.cell = cell
        return made

    __torch_function__ = torch_parts.disabled_torch_function  # type: ignore[assignment]  # as torch's classes have it

    @classmethod
    def __torch_dispatch__(cls, overload: Any, *_: Any) -> Any:
        if overload_name(overload) == "aten._has_compatible_shallow_copy_type":
            return True  # that `tensor.data = another` is possible
        raise UnsupportedError(f"{overload} was called with a tensor of a trace that has ended")

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]  # torch's takes `tensor_contents`
        return f"<traced {self.cell.value.type}>"


@dataclass(frozen=True)
class _Facts:
    """What the recorder asks of an operator."""

    name: str
    op: Op
    arguments: Sequence[torch.Argument]
    operands: frozenset[str]
    defaults: Mapping[str, Any]
    """Of the arguments that may be attributes: those that say something."""
    gives_tensors: bool
    gives_one: bool
    is_mutable: bool
    may_share: bool

    @classmethod
    @lru_cache(1024)
    def of(cls, overload: torch_parts.OpOverload) -> _Facts:
        schema = torch_parts.schema(overload)
        kinds = [str(result.type) for result in schema.returns]
        silent = _IGNORED_ARGUMENTS | inert_arguments(overload).keys()
        return cls(
            name=overload_name(overload),
            op=get_op(overload_name(overload)),
            arguments=schema.arguments,
            operands=frozenset(a.name for a in schema.arguments if operand_kind(a) is not None),
            defaults={a.name: default_of(overload, a) for a in schema.arguments if a.name not in silent},
            gives_tensors=bool(kinds) and set(kinds) <= {"Tensor", "List[Tensor]"},
            gives_one=kinds == ["Tensor"],
            is_mutable=schema.is_mutable,
            may_share=may_share(overload),
        )


class Recorder(torch_parts.TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's is not typed
    """Puts a node into the builder's graph for each operator that is called while it is active."""

    def __init__(self, builder: Builder, root: nn.Module, weights: Mapping[int, str], path: str) -> None:
        """`root` has the modules that are named, `weights` are the names of the tensors by their ids."""
        super().__init__()  # type: ignore[no-untyped-call]  # likewise
        self.builder = builder
        self.path = path
        self.weights = weights
        self.modules = {id(module): name for name, module in root.named_modules()}
        self.cells: dict[int, Cell] = {}
        """Of the tensors that have data, by their ids."""
        self.kept: list[Tensor] = []
        """These tensors, so that no other gets such an id."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Else torch imports its compiler to make sure that it does not compile this.
        return False

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Within the block what is called is recorded, each node with the path of the module that is running."""
        running: list[AbstractContextManager[None]] = []

        def enter(module: nn.Module, _: Any) -> None:
            running.append(self._inside(module))
            running[-1].__enter__()

        def leave(module: nn.Module, _: Any, __: Any) -> None:
            running.pop().__exit__(None, None, None)

        hooks = [
            nn.modules.module.register_module_forward_pre_hook(enter),
            nn.modules.module.register_module_forward_hook(leave, always_call=True),
        ]
        fast_attention = torch.backends.mha.get_fastpath_enabled()
        try:
            # In this mode an operator that is made of others arrives itself.
            with self.builder.at(self.path), torch.inference_mode(), self, Constructors():
                torch.backends.mha.set_fastpath_enabled(False)
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_attention)
            for hook in hooks:
                hook.remove()

    @contextmanager
    def _inside(self, module: nn.Module) -> Iterator[None]:
        """Within the block the module runs."""
        path, kind = self.modules.get(id(module)), type(module).__name__
        source = self.builder.source if path is None else path
        with self.builder.at(source), span(path or kind, module=kind):
            yield

    def input(self, value: Value) -> TracedTensor:
        """What the function is called with for a value."""
        return TracedTensor.of(Cell(value, is_input=True))

    def __torch_dispatch__(
        self, overload: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        facts, kwargs = _Facts.of(overload), kwargs or {}
        if facts.name in _NO_EFFECT_ON_VALUES:
            return None
        if facts.name in _OF_NEW_CONSTANTS and not isinstance(args[0], TracedTensor):
            return args[0]
        if facts.is_mutable:
            return self._mutation(facts, overload, args, kwargs)
        if not facts.gives_tensors:
            return self._no_tensor(facts, overload, args, kwargs)
        made = [TracedTensor.of(cell) for cell in self._emit(facts, overload, args, kwargs)]
        return made[0] if facts.gives_one else made

    def _no_tensor(self, facts: _Facts, overload: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Answer a call that returns no tensor, such as one for strides."""
        leaves = torch_parts.tree_leaves([args, kwargs])
        if not any(isinstance(leaf, TracedTensor) for leaf in leaves):
            return overload(*args, **kwargs)
        if not facts.name.startswith(_OF_STRIDES):
            raise NotPure(f"{facts.name} looks at the data of a tensor")
        return overload(args[0].cell.strided, *args[1:], **kwargs)

    def _emit(
        self, facts: _Facts, overload: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> list[Cell]:
        positional, named = self._with_cells(args), {name: self._with_cells(a) for name, a in kwargs.items()}
        node = self._node(facts, positional, named)
        shares = facts.may_share and isinstance(args[0], Tensor)
        return Call(overload, positional, named, node, shares).results

    def _with_cells(self, argument: Any) -> Any:
        if isinstance(argument, Tensor):
            return self._cell(argument)
        if isinstance(argument, list | tuple):
            return [self._with_cells(a) for a in argument]
        return argument

    def _mutation(self, facts: _Facts, overload: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """An in-place operator becomes the plain one; what shares the tensor's data sees the result from now on."""
        functional = _out_of_place(overload)
        if functional is None:
            raise UnsupportedError(f"{self.builder.source}: {facts.name} has no place in the IR")
        changed = self._cell(args[0])
        if changed.root.is_input:
            raise UnsupportedError(
                f"{self.builder.source}: changes its input in place ({overload_name(overload)})"
            )
        plain = _Facts.of(functional)
        if torch.Tag.inplace_view in overload.tags:
            (view,) = self._emit(plain, functional, args, kwargs)
            args[0].data = TracedTensor.of(view)
            args[0].cell = view
        else:
            (made,) = self._emit(plain, functional, args, kwargs)
            changed.write(self.builder, self._as(args[0].dtype, made.value))
        return args[0]

    def _as(self, dtype: torch.dtype, value: Value) -> Value:
        """The value as numbers of that type: a tensor that is changed in place keeps its own."""
        if value.tensor_type.dtype == dtype:
            return value
        return self.builder.aten.to.dtype(value, dtype=dtype)

    def _cell(self, tensor: Tensor) -> Cell:
        if isinstance(tensor, TracedTensor):
            return tensor.cell
        cell = self.cells.get(id(tensor))
        if cell is None:
            graph, name = self.builder.graph, self.weights.get(id(tensor))
            value = (
                graph.add_weight(name, tensor) if name else graph.constant(tensor, f"{self.path}.constant")
            )
            cell = self.cells[id(tensor)] = Cell(value, data=tensor)
            self.kept.append(tensor)
        return cell

    def _node(self, facts: _Facts, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Node:
        operands: list[Any] = []
        attributes: dict[str, Any] = {}
        for position, argument in enumerate(facts.arguments):
            name = argument.name
            if position < len(args):
                value = self.read(args[position])
            elif name in kwargs:
                value = self.read(kwargs[name])
            elif name in facts.operands:
                value = None
            else:
                continue
            if name == "training" and value is True:
                raise UnsupportedError(f"{self.builder.source}: is in training mode; call model.eval() first")
            if name in facts.operands:
                if isinstance(value, bool | int | float | SymExpr):
                    attributes[name] = value
                else:
                    operands.append(value)
            elif name in facts.defaults and not _is_default(facts.defaults[name], value):
                attributes[name] = value
        try:
            return self.builder.node(facts.op, operands, attributes)
        except SizeIsNoNumber as error:
            raise SizeIsNoNumber(error.size, place_at_work()) from None

    def read(self, argument: Any) -> Any:
        """An argument, or what the function returns, with values for tensors, and the IR's sizes for torch's."""
        if isinstance(argument, Tensor):
            argument = self._cell(argument)
        if isinstance(argument, Cell):
            return argument.read(self.builder)
        if isinstance(argument, list | tuple):
            return [self.read(a) for a in argument]
        if isinstance(argument, torch.SymInt):
            return dim_of(argument)
        if isinstance(argument, torch.SymFloat):
            return self._real_number(argument)
        return argument

    def _real_number(self, number: torch.SymFloat) -> Value | float:
        """A number computed from sizes, as a tensor of no dimensions."""
        (above, below), exponent = power_of(number)
        if isinstance(above, int) and isinstance(below, int):
            return float((above / below) ** exponent)
        made = self.builder.aten.full(size=(), fill_value=above, dtype=torch.float32)
        if below != 1:
            made = self.builder.aten.div.Tensor(made, other=below)
        return made if exponent == 1 else self.builder.aten.pow.Tensor_Scalar(made, exponent=exponent)


def _is_default(default: Any, value: Any) -> bool:
    if isinstance(default, int | float) and isinstance(value, list):
        return all(v == default for v in value)
    return type(value) is type(default) and bool(value == default)


def _out_of_place(overload: torch_parts.OpOverload) -> torch_parts.OpOverload | None:
    """`aten.relu` for `aten.relu_`, None where torch has no such twin."""
    namespace, base, *rest = overload_name(overload).split(".")
    arguments = torch_parts.schema(overload).arguments
    if not base.endswith("_") or arguments[0].alias_info is None:
        return None
    return overload_of(_CALLED_OTHERWISE.get(base, ".".join([namespace, base[:-1], *rest])))
