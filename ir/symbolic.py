"""The bridge between IR dimensions and torch's symbolic integers: fake tensors with the IR's sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.utils._sympy.symbol import SymT, symbol_is_type

from .conditions import Condition
from .dims import Dim, Symbol, SymExpr, evaluate, floor_div, maximum, minimum, mod, symbol
from .errors import IRError
from .node import Attribute
from .ops import Fresh
from .types import DTYPE_NAMES, TensorType

# Torch decides a question about sizes (is this dimension 1? are these two equal?) on example values. Large
# primes that differ from each other give the answer that holds for sizes in general, and no size of the
# model enters.
_EXAMPLES = [p for p in range(1009, 4000) if all(p % q for q in range(2, 64))]

_TORCH = tuple(f"{path}/" for path in torch.__path__)
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

    def __init__(self, symbols: Iterable[Symbol]) -> None:
        self._symbols = list(dict.fromkeys(symbols))
        if len(self._symbols) > len(_EXAMPLES):
            raise IRError(f"more than {len(_EXAMPLES)} symbolic sizes at once")
        self._env = ShapeEnv()
        self.mode = FakeTensorMode(shape_env=self._env, allow_non_fake_inputs=True)
        self._values: dict[str, Any] = {}
        self._back: dict[Any, Dim] = {}
        if self._symbols:
            example = torch.empty(_EXAMPLES[: len(self._symbols)], device="meta")
            context: Any = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC] * len(self._symbols))
            fake = self.mode.from_tensor(example, symbolic_context=context)
            sizes: tuple[Any, ...] = tuple(fake.shape)
            for known, size in zip(self._symbols, sizes, strict=True):
                # A symbol with a known divisor k stands for k times a free one: its multiples are exact.
                self._values[known.name] = size * known.multiple
                self._back[size.node.expr] = _divided(known)

    def tensor(self, type: TensorType) -> torch.Tensor:
        """A fake tensor of that type."""
        with self.mode:
            return torch.empty(tuple(self.size(d) for d in type.shape), dtype=type.dtype)

    def size(self, dim: Dim) -> Any:
        """The dimension as an int or a torch.SymInt."""
        return evaluate(dim, self._values)

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
            return self._from_sympy(size.node.expr)
        return int(size)

    def type(self, tensor: torch.Tensor) -> TensorType:
        """A fake tensor's type."""
        if tensor.dtype not in DTYPE_NAMES:
            raise IRError(f"tensors of {tensor.dtype} have no IR type")
        return TensorType(tensor.dtype, tuple(self.dim(s) for s in tensor.shape))

    def enter(self) -> AbstractContextManager[Any]:
        """A context in which torch computes on fake tensors."""
        stack = ExitStack()
        # Without it some conversions run in C++, which asks for the sizes as numbers.
        stack.enter_context(enable_python_dispatcher())
        stack.enter_context(self.mode)
        return stack

    def decided(self) -> str | None:
        """The name of a size that an operator has fixed to its example value, None if all are free."""
        fixed = [e for e, value in self._env.replacements.items() if value.is_Integer]
        return str(self._back.get(fixed[0], fixed[0])) if fixed else None

    def branches(self) -> Iterator[tuple[Condition | None, str]]:
        """What code outside of torch asked about sizes and was told is true, and the line that asked.

        The example values gave the answer. None stands for a condition that the IR cannot express. Whether a size is 0
        or 1 torch answers with no, and keeps no record of it: to ask for one would make the sizes of networks that
        compute with them (windowed attention) grow without bound.
        """
        for guard in self._env.guards:
            frame = guard.sloc.framework_loc
            if frame is None or isinstance(frame, str) or frame.filename.startswith(_TORCH):
                continue
            yield self._condition(guard.expr), f"{Path(frame.filename).name}:{frame.lineno}"

    def _condition(self, expr: Any) -> Condition | None:
        relation = _RELATIONS.get(type(expr).__name__)
        if relation is None:
            return None
        try:
            return Condition(self._from_sympy(expr.args[0]), relation, self._from_sympy(expr.args[1]))
        except IRError:
            return None

    def _from_sympy(self, expr: Any) -> Dim:
        if expr in self._back:
            return self._back[expr]
        if expr.is_Integer:
            return int(expr)
        if expr.is_Symbol and symbol_is_type(expr, SymT.UNBACKED_INT):
            # A size that depends on the data, such as the number of rows of a nonzero.
            return Fresh(str(expr))
        args = expr.args
        match type(expr).__name__:
            case "Add":
                total: Dim = 0
                for arg in args:
                    total = total + self._from_sympy(arg)
                return total
            case "Mul":
                product: Dim = 1
                for arg in args:
                    product = product * self._from_sympy(arg)
                return product
            case "Pow" if args[1].is_Integer and args[1] > 0:
                base, power = self._from_sympy(args[0]), 1
                result: Dim = base
                while power < int(args[1]):
                    result, power = result * base, power + 1
                return result
            case "FloorDiv" | "CleanDiv":
                return floor_div(self._from_sympy(args[0]), self._from_sympy(args[1]))
            case "Mod" | "PythonMod":
                return mod(self._from_sympy(args[0]), self._from_sympy(args[1]))
            case "ModularIndexing":
                return mod(
                    floor_div(self._from_sympy(args[0]), self._from_sympy(args[1])), self._from_sympy(args[2])
                )
            case "CeilToInt" | "FloorToInt" if type(args[0]).__name__ == "IntTrueDiv":
                numerator, divisor = (self._from_sympy(a) for a in args[0].args)
                up = type(expr).__name__ == "CeilToInt"
                return floor_div(numerator + (divisor - 1) if up else numerator, divisor)
            case "TruncToInt" | "FloorToInt" if type(args[0]).__name__ == "Mul" and len(args[0].args) == 2:
                factor, number = args[0].args
                if factor.is_Float and type(number).__name__ == "ToFloat":
                    # A size times a factor such as 1.5, rounded down.
                    ratio = Fraction(float(factor))
                    product = self._from_sympy(number.args[0]) * ratio.numerator
                    return floor_div(product, ratio.denominator)
            case "Max":
                return maximum(*(self._from_sympy(a) for a in args))
            case "Min":
                return minimum(*(self._from_sympy(a) for a in args))
        raise IRError(f"a size that the IR cannot express: {expr}")


def _divided(known: Symbol) -> Dim:
    return floor_div(symbol(known.name, known.multiple), known.multiple)
