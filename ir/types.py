"""The types of IR values: frozen, hashable, printed the way the text form spells them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import torch

from .dims import Dim, Symbol, substitute, symbols_of
from .errors import IRError

DTYPE_NAMES: dict[torch.dtype, str] = {
    torch.float32: "f32",
    torch.float64: "f64",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int16: "i16",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.bool: "bool",
}
DTYPES: dict[str, torch.dtype] = {name: dtype for dtype, name in DTYPE_NAMES.items()}


class _Sized:
    @cached_property
    def size_names(self) -> frozenset[str]:
        """The names of the symbolic sizes in it."""
        if TYPE_CHECKING:
            assert isinstance(self, Type)
        return frozenset(symbol.name for symbol in type_symbols(self))


@dataclass(frozen=True)
class TensorType(_Sized):
    """A tensor with a known element type and rank. A dimension is an int or a symbolic size.

    >>> str(TensorType(torch.float32, (symbol("N"), 3, symbol("H"), symbol("W"))))
    'f32[N,3,H,W]'
    """

    dtype: torch.dtype
    shape: tuple[Dim, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __str__(self) -> str:
        return f"{DTYPE_NAMES[self.dtype]}[{','.join(map(str, self.shape))}]"

    def with_shape(self, *shape: Dim) -> TensorType:
        """The same element type with another shape."""
        return TensorType(self.dtype, shape)

    @staticmethod
    def of(tensor: torch.Tensor) -> TensorType:
        """The type of a real tensor."""
        if tensor.dtype not in DTYPE_NAMES:
            raise IRError(f"tensors of {tensor.dtype} have no IR type")
        return TensorType(tensor.dtype, tuple(tensor.shape))


@dataclass(frozen=True)
class ListType(_Sized):
    """A list of values of one type, of a length that is known only at run time."""

    element: Type

    def __str__(self) -> str:
        return f"list<{self.element}>"


@dataclass(frozen=True)
class TupleType(_Sized):
    """A fixed number of values, each of its own type."""

    elements: tuple[Type, ...]

    def __str__(self) -> str:
        return f"tuple<{', '.join(map(str, self.elements))}>"


@dataclass(frozen=True)
class InstancesType(_Sized):
    """detectron2's `Instances` of a whole batch, flattened: all fields share their first dimension.

    The images' rows follow one another; the field `batch_index` (i64) says which image a row belongs to.
    """

    fields: tuple[tuple[str, TensorType], ...]

    def __str__(self) -> str:
        return "instances<" + ", ".join(f"{name}: {type}" for name, type in self.fields) + ">"

    def field(self, name: str) -> TensorType:
        """The type of one field. Raises IRError when there is none of that name."""
        for known, type in self.fields:
            if known == name:
                return type
        raise IRError(f"no field {name!r}; there are {', '.join(n for n, _ in self.fields)}")


@dataclass(frozen=True)
class ScalarType(_Sized):
    """A Python number or flag: `int`, `float` or `bool`."""

    name: str

    def __str__(self) -> str:
        return self.name


Type: TypeAlias = TensorType | ListType | TupleType | InstancesType | ScalarType


def tensors_of(type: Type) -> Iterator[TensorType]:
    """Every tensor type inside a type."""
    match type:
        case TensorType():
            yield type
        case ListType(element):
            yield from tensors_of(element)
        case TupleType(elements):
            for element in elements:
                yield from tensors_of(element)
        case InstancesType(fields):
            for _, field in fields:
                yield field


def type_symbols(type: Type) -> Iterator[Symbol]:
    """Every symbolic size inside a type, with repetitions."""
    for tensor in tensors_of(type):
        for dim in tensor.shape:
            yield from symbols_of(dim)


def dim_pairs(left: Type, right: Type) -> Iterator[tuple[Dim, Dim]]:
    """The dimensions in the same places of two types: of tensors of one rank, of instances' fields of one name."""
    match left, right:
        case TensorType(), TensorType():
            if left.rank == right.rank:
                yield from zip(left.shape, right.shape, strict=True)
        case ListType(), ListType():
            yield from dim_pairs(left.element, right.element)
        case TupleType(), TupleType():
            for mine, theirs in zip(left.elements, right.elements, strict=False):
                yield from dim_pairs(mine, theirs)
        case InstancesType(), InstancesType():
            fields = dict(right.fields)
            for name, field in left.fields:
                if name in fields:
                    yield from dim_pairs(field, fields[name])


def substitute_type(type: Type, mapping: Mapping[str, Dim]) -> Type:
    """The type with symbolic sizes replaced."""
    if type.size_names.isdisjoint(mapping):
        return type
    match type:
        case TensorType(dtype, shape):
            return TensorType(dtype, tuple(substitute(d, mapping) for d in shape))
        case ListType(element):
            return ListType(substitute_type(element, mapping))
        case TupleType(elements):
            return TupleType(tuple(substitute_type(e, mapping) for e in elements))
        case InstancesType(fields):
            return InstancesType(
                tuple(
                    (n, TensorType(t.dtype, tuple(substitute(d, mapping) for d in t.shape)))
                    for n, t in fields
                )
            )
    return type
