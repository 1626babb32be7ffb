"""Declaring operations: one typed Python function is an op's signature, its documentation and its meaning.

    @op("det.normalize", infer=same_as_first)
    def normalize(data: Tensor, im_info: Tensor, *, mean: tuple[float, ...]) -> Tensor:
        '''What it does, with shapes, units and source.'''
        ...the reference semantics in torch...

Positional parameters are operands: `Tensor`, `Tensor | None` (may be left out), `Sequence[Tensor]` (a list)
or `InstancesBatch`. Keyword-only parameters are attributes. The inference rule gets the operands' types and
the attributes, and returns the results' types; builder and verifier both use it. A size that depends on
data is `Fresh`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import import_module
from importlib.metadata import entry_points
from types import NoneType
from typing import Any, TypeAlias, TypeVar, Union, get_args, get_origin

from .dims import SymExpr, symbol
from .errors import IRError
from .node import Attribute, Operand
from .types import Type

OperandType: TypeAlias = Union[Type, "tuple[Type | None, ...]", None]
InferRule: TypeAlias = Callable[..., "Type | Sequence[Type]"]
OperandRule: TypeAlias = Callable[[Sequence[Operand], Mapping[str, Attribute]], Sequence[Type]]
F = TypeVar("F", bound=Callable[..., Any])

FRESH_PREFIX = "fresh__"


def Fresh(stem: str) -> SymExpr:
    """For inference rules: a size that only the data knows. The builder gives it a name of its own."""
    return symbol(FRESH_PREFIX + stem)


@dataclass(frozen=True)
class Parameter:
    """An operand position of an op."""

    name: str
    optional: bool = False
    variadic: bool = False


@dataclass(frozen=True, eq=False)
class Op:
    """An operation. `body` computes the results from runtime operands and attributes."""

    name: str
    operands: tuple[Parameter, ...]
    attributes: Mapping[str, Any]
    """Attribute name -> default, `inspect.Parameter.empty` where it must be given."""
    body: Callable[..., Any]
    infer: InferRule
    doc: str = ""
    has_effects: bool = False
    """Whether it does more than give results, such as changing an operand."""
    is_random: bool = False
    """Whether it may draw random numbers: two uses are then not one, and none can be computed ahead."""
    open_attributes: bool = field(default=False)
    """Whether attributes that are not in the list may be given (dialects whose schemas check them themselves)."""
    infer_from: OperandRule | None = None
    """For ops whose results' types depend on constants' values (a shape, axes): the rule over the operands
    themselves, used in place of `infer` where it is given."""

    @cached_property
    def dialect(self) -> str:
        return self.name.partition(".")[0]

    @cached_property
    def _required(self) -> tuple[str, ...]:
        return tuple(n for n, default in self.attributes.items() if default is inspect.Parameter.empty)

    @cached_property
    def _named(self) -> frozenset[str]:
        return frozenset(p.name for p in self.operands)

    @cached_property
    def _least(self) -> int:
        return sum(not p.optional for p in self.operands)

    def check(self, operand_count: int, attributes: Mapping[str, Attribute]) -> str | None:
        """What is wrong with a use of this op, or None."""
        # An attribute may stand in for an operand of its name (aten: a number where a tensor may be).
        least = self._least - len(self._named.intersection(attributes))
        if operand_count > len(self.operands):
            return f"{operand_count} operands, at most {len(self.operands)} are taken"
        if operand_count < least:
            return f"{operand_count} operands, at least {least} are needed"
        for name in self._required:
            if name not in attributes:
                return f"the attribute {name!r} is missing"
        if not self.open_attributes:
            for name in attributes:
                if name not in self.attributes and name not in self._named:
                    return f"there is no attribute {name!r}; known: {', '.join(self.attributes) or 'none'}"
        return None

    def __repr__(self) -> str:
        return f"<Op {self.name}>"


_registry: dict[str, Op] = {}
_resolvers: dict[str, Callable[[str], Op | None]] = {}


def register(new: Op) -> Op:
    """Make an op known by its name. Raises IRError if there is one of that name."""
    if new.name in _registry:
        raise IRError(f"there is an op {new.name!r} already")
    _registry[new.name] = new
    return new


def register_dialect(dialect: str, resolver: Callable[[str], Op | None]) -> None:
    """Let `resolver(name)` make the ops of a dialect when they are first asked for (torch's, onnx's)."""
    _resolvers[dialect] = resolver


_BUILT_IN = {
    "aten": (".aten",),
    # The second registers the operators with torch.
    "torchvision": (".aten", "torchvision"),
    "det": (".dialects",),
    "instances": (".dialects",),
}
"""Dialect -> the modules that declare it."""
ENTRY_POINTS = "detc.dialects"
"""The group of entry points for the others: each has a dialect's name, and names the module that registers it."""


@cache
def load_dialect(dialect: str) -> None:
    """Import what declares a dialect, and the level that is called like it; nothing where no package does."""
    for module in _BUILT_IN.get(dialect, ()):
        import_module(module, __package__)
    for entry in entry_points(group=ENTRY_POINTS, name=dialect):
        entry.load()


def get_op(name: str) -> Op:
    """The op of that full name, such as `det.normalize`.

    Errors:
        IRError: there is none.
    """
    known = _registry.get(name)
    if known is not None:
        return known
    dialect = name.partition(".")[0]
    load_dialect(dialect)
    if name in _registry:
        return _registry[name]
    resolver = _resolvers.get(dialect)
    made = resolver(name) if resolver else None
    if made is None:
        raise IRError(f"there is no op {name!r}")
    return register(made)


def registered_ops() -> list[Op]:
    """Every op known so far, by name."""
    return [_registry[name] for name in sorted(_registry)]


def op(name: str, *, infer: InferRule, has_effects: bool = False) -> Callable[[F], F]:
    """Declare an op by its reference implementation (see the module's docstring)."""

    def declare(function: F) -> F:
        operands, attributes = parameters_of(function)
        doc = inspect.getdoc(function) or ""
        register(Op(name, operands, attributes, function, infer, doc, has_effects))
        return function

    return declare


def parameters_of(body: Callable[..., Any]) -> tuple[tuple[Parameter, ...], dict[str, Any]]:
    """The operands of an op with this body, and its attributes with their defaults (see the module's docstring).

    Errors:
        IRError: an annotation names a type that the body's module does not know.
    """
    try:
        parameters = inspect.signature(body, eval_str=True).parameters.values()
    except (NameError, AttributeError, TypeError) as error:
        raise IRError(
            f"the annotations of {body.__name__} must be types that its module imports: {error}"
        ) from None
    operands = tuple(_operand(p.name, p.annotation) for p in parameters if p.kind is not p.KEYWORD_ONLY)
    return operands, {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _operand(name: str, annotation: Any) -> Parameter:
    variadic = (get_origin(annotation) or annotation) in (Sequence, list, tuple)
    return Parameter(name, NoneType in get_args(annotation), variadic)
