"""The bridge between IR dimensions and torch's symbolic integers: fake tensors with the IR's sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch

from . import torch_parts
from .conditions import Condition
from .dims import Dim, Symbol, SymExpr
from .errors import IRError
from .node import Attribute
from .types import DTYPE_NAMES, TensorType

_RELATIONS = {
    "Equality": "==",
    "Unequality": "!=",
    "StrictLessThan": "<",
    "LessThan": "<=",
    "StrictGreaterThan": ">",
    "GreaterThan": ">=",
}


class SymbolicShapes:
    """One world of symbolic sizes: a fake-tensor mode in which each IR symbol is a torch.SymInt."""

    def __init__(self, symbols: Iterable[Symbol], *, repeats: bool = True) -> None:
        """`repeats` says whether operators are called again and again with the same types, as a network does."""
        # Only who traces or infers sizes needs torch's parts that it derives from.
        from .shape_env import ExampleShapeEnv  # noqa: PLC0415

        self._env = ExampleShapeEnv(symbols)
        self.mode = torch_parts.FakeTensorMode(shape_env=self._env, allow_non_fake_inputs=True)
        # To remember what an operator gave takes longer than to find it out once.
        self.mode.cache_enabled &= repeats

    def tensor(self, type: TensorType) -> torch.Tensor:
        """A fake tensor of that type."""
        with self.mode:
            return torch.empty(tuple(self.size(d) for d in type.shape), dtype=type.dtype)

    def size(self, dim: Dim) -> Any:
        """The dimension as an int or a torch.SymInt."""
        return self._env.size(dim)

    def attribute(self, attribute: Attribute) -> Any:
        """The attribute with every symbolic size in it as a torch.SymInt."""
        if isinstance(attribute, SymExpr):
            return self.size(attribute)
        if isinstance(attribute, tuple):
            return [self.attribute(a) for a in attribute]
        return attribute

    def dim(self, size: Any) -> Dim:
        """An int or torch.SymInt as a dimension."""
        if isinstance(size, torch.SymInt):
            return self._env.dim(torch_parts.expression(size))
        return int(size)

    def ratio(self, number: torch.SymFloat) -> tuple[Dim, Dim]:
        """A real number computed from sizes as a fraction of two."""
        return self._env.ratio(torch_parts.expression(number))

    def type(self, tensor: torch.Tensor) -> TensorType:
        """A fake tensor's type."""
        if tensor.dtype not in DTYPE_NAMES:
            raise IRError(f"tensors of {tensor.dtype} have no IR type")
        return TensorType(tensor.dtype, tuple(self.dim(s) for s in tensor.shape))

    def enter(self) -> AbstractContextManager[Any]:
        """A context in which torch computes on fake tensors."""
        stack = ExitStack()
        # Without it some conversions run in C++, which asks for the sizes as numbers.
        stack.enter_context(torch_parts.enable_python_dispatcher())
        stack.enter_context(self.mode)
        return stack

    def branches(self) -> Iterator[tuple[Condition | None, str]]:
        """What code outside of torch asked about sizes and was told is true, and the line that asked.

        The example values gave the answer. None stands for a condition that the IR cannot express.
        """
        for asked, place in self._env.questions:
            yield self._condition(asked), place

    def _condition(self, expr: Any) -> Condition | None:
        relation = _RELATIONS.get(type(expr).__name__)
        if relation is None:
            return None
        try:
            return Condition(self._env.dim(expr.args[0]), relation, self._env.dim(expr.args[1]))
        except IRError:
            return None
