"""torch's symbolic sizes, spelled as the IR spells them, with questions about them answered on examples.

torch keeps a size as the expression that computed it and, asked a question, tries to prove the answer. In a network
that pads its map to whole windows, cuts it, and crops it again, sizes are divisions of divisions, and each proof takes
longer than the one before. Here a size is never more than a polynomial: what the IR writes as `ceil(H/28)` is a symbol
of its own to torch. Nothing is proven: a question is answered for large example sizes, and who asked is noted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

import sympy
import torch
from sympy.core.function import Application

from .dims import Call, Dim, Symbol, SymExpr, evaluate, floor_div, symbol
from .errors import IRError, SizeGrows, SizeIsNoNumber
from .ops import Fresh
from .sympy_dims import dim_from_sympy, ratio_from_sympy
from .torch_parts import ConstantSource, DimDynamic, ShapeEnv, SymT, symbol_is_type, uninteresting_files

# Torch decides a question about sizes (is this dimension 1? are these two equal?) on example values. Large
# primes that differ from each other give the answer that holds for sizes in general, and no size of the
# model enters.
_EXAMPLES = [p for p in range(1009, 4000) if all(p % q for q in range(2, 64))]
_TORCH = tuple(f"{path}/" for path in torch.__path__)
_LONGEST = 2_000
"""Characters in the text of a size: those of real networks have some tens."""


class ExampleShapeEnv(ShapeEnv):
    """See the module."""

    def __init__(self, symbols: Iterable[Symbol]) -> None:
        super().__init__()
        known = list(dict.fromkeys(symbols))
        if len(known) > len(_EXAMPLES):
            raise IRError(f"more than {len(_EXAMPLES)} symbolic sizes at once")
        self.questions: dict[tuple[Any, str], None] = {}
        """What code outside of torch asked: a relation that is true of the examples, and the line."""
        self._grown: SizeGrows | None = None
        self._examples: dict[Any, Any] = {}
        self._values: dict[str, int] = {}
        self._expressions: dict[Symbol | Call, Any] = {}
        self._dims: dict[Any, Dim] = {}
        self._spellings: dict[Any, Any] = {}
        # Newer torch asks for a size's expression through `replace` only once there are replacements.
        self._replacements_version_counter = 1
        for atom, example in zip(known, _EXAMPLES, strict=False):
            # A symbol with a known divisor k stands for k times a free one: its multiples are exact.
            free = self._new_symbol(atom.name, example)
            self._expressions[atom] = free * atom.multiple
            self._dims[free] = floor_div(symbol(atom.name, atom.multiple), atom.multiple)
            self._values[atom.name] = example * atom.multiple

    def size(self, dim: Dim) -> Any:
        """The dimension as an int or a torch.SymInt."""
        if not isinstance(dim, SymExpr):
            return dim
        return self.create_symintnode(self._expression(dim), hint=evaluate(dim, self._values))

    def dim(self, expr: Any) -> Dim:
        """A sympy expression of sizes as a dimension.

        Errors:
            IRError: the IR has no such arithmetic.
        """
        return dim_from_sympy(expr, self._leaf)

    def ratio(self, expr: Any) -> tuple[Dim, Dim]:
        """A sympy expression of real numbers as a fraction of two dimensions.

        Errors:
            IRError: the IR has no such arithmetic.
        """
        return ratio_from_sympy(expr, self._leaf)

    def replace(self, expr: Any) -> Any:  # type: ignore[override]  # torch's is an lru_cache
        """The expression as a polynomial over symbols; torch calls this whenever it looks at a size."""
        spelled = self._spellings.get(expr)
        if spelled is None:
            spelled = self._spellings[expr] = self._spelled(expr)
        return spelled

    def evaluate_expr(self, orig_expr: Any, hint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """The value of a question or size, for the examples."""
        if orig_expr.is_number or not orig_expr.free_symbols:
            return orig_expr
        if _depends_on_data(orig_expr):
            return super().evaluate_expr(orig_expr, hint, *args, **kwargs)
        value = sympy.sympify(hint) if hint is not None else orig_expr.xreplace(self._examples)
        if value not in (sympy.true, sympy.false):
            raise SizeIsNoNumber(self._text(orig_expr), _place(_frame_outside_of_torch()))
        frame, by_python = _asking_frame()
        if frame is None or frame.f_code.co_filename.startswith(_TORCH) or self._suppress_guards_tls():
            return value
        if by_python or not _is_plain(orig_expr):
            asked = orig_expr if value == sympy.true else sympy.Not(orig_expr)
            self.questions.setdefault((asked, _place(frame)))
        return value

    def _maybe_evaluate_static(self, expr: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # so here
        if kwargs.get("compute_hint") and not _depends_on_data(expr):
            return expr.xreplace(self._examples)
        return super()._maybe_evaluate_static(expr, *args, **kwargs)

    def _spelled(self, expr: Any) -> Any:
        if not expr.has(Application) or not expr.is_real or _depends_on_data(expr):
            return expr
        try:
            if expr.is_integer:
                return self._expression(self.dim(expr))
            above, below = self.ratio(expr)
        except SizeGrows:
            raise
        except IRError:
            return expr
        if isinstance(above, int) and isinstance(below, int):
            return sympy.Float(above / below)
        return expr

    def _leaf(self, expr: Any) -> Dim | None:
        if expr in self._dims:
            return self._dims[expr]
        if expr.is_Symbol and symbol_is_type(expr, SymT.UNBACKED_INT):
            # A size that depends on the data, such as the number of rows of a nonzero.
            return Fresh(str(expr))
        return None

    def _expression(self, dim: Dim) -> Any:
        if not isinstance(dim, SymExpr):
            return sympy.Integer(dim)
        total = sympy.Integer(0)
        for monomial, coefficient in dim.terms:
            product = sympy.Rational(coefficient.numerator, coefficient.denominator)
            for atom, power in monomial:
                product *= self._atom(atom) ** power
            total += product
        return total

    def _atom(self, atom: Symbol | Call) -> Any:
        expr = self._expressions.get(atom)
        if expr is None:
            if isinstance(atom, Symbol):
                raise IRError(f"the size {atom.name} is not known here")
            if len(atom.key) > _LONGEST:
                # Torch asks for it again while it handles the error; the first to ask is the one to name.
                self._grown = self._grown or SizeGrows(atom.key, _place(_frame_outside_of_torch()))
                raise self._grown
            dim = SymExpr.of(atom)
            expr = self._expressions[atom] = self._new_symbol(str(atom), evaluate(dim, self._values))
            self._dims[expr] = dim
        return expr

    def _new_symbol(self, name: str, example: int) -> Any:
        source = ConstantSource(f"{name}#{len(self._examples)}")
        positive = True if example > 0 else None
        made = self.create_symbol(
            example,
            source,
            DimDynamic.DYNAMIC,
            positive=positive,
            do_not_specialize_zero_one=example in (0, 1),  # else it were that number from now on
        )
        self._examples[made] = sympy.Integer(example)
        return made

    def _text(self, expr: Any) -> str:
        try:
            return str(self.dim(expr))
        except IRError:
            return str(expr)


def _depends_on_data(expr: Any) -> bool:
    return any(symbol_is_type(s, (SymT.UNBACKED_INT, SymT.UNBACKED_FLOAT)) for s in expr.free_symbols)


def _is_plain(question: Any) -> bool:
    """Whether it asks of one product of sizes if that is 0 or 1: what torch's operators ask of every size.

    To note these would be to note that no size is 1, of every size there is.
    """
    if len(question.args) != 2:
        return False
    number, size = sorted(question.args, key=lambda e: not e.is_number)
    return bool(number.is_number and number <= 1 and (size.is_Symbol or size.is_Mul) and size.is_positive)


@lru_cache(maxsize=1)
def _machinery() -> frozenset[str]:
    return frozenset(uninteresting_files()) | {__file__}


def _asking_frame() -> tuple[FrameType | None, bool]:
    """The frame that wants to know, and whether it does so by Python's operators (`if size > 3`), not torch's core."""
    by_python = False
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename in _machinery():
        by_python |= frame.f_code.co_filename == torch.__file__
        frame = frame.f_back
    return frame, by_python


def _frame_outside_of_torch() -> FrameType | None:
    frame = _asking_frame()[0]
    while frame is not None and frame.f_code.co_filename.startswith(_TORCH):
        frame = frame.f_back
    return frame


def _place(frame: FrameType | None) -> str:
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else "torch"
