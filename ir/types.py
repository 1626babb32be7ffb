"""The types of IR values: frozen, hashable, printed the way the text form spells them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, TypeAlias

from .dims import Dim, Symbol, substitute, symbols_of
from .errors import IRError
from .lazy import torch

_NAMES = {
    "float32": "f32",
    "float64": "f64",
    "float16": "f16",
    "bfloat16": "bf16",
    "int64": "i64",
    "int32": "i32",
    "int16": "i16",
    "int8": "i8",
    "uint8": "u8",
    "bool": "bool",
}


@cache
def dtype_names() -> dict[torch.dtype, str]:
    """The element types of the IR, and how its text spells them."""
    return {getattr(torch, name): spelling for name, spelling in _NAMES.items()}


@cache
def dtypes() -> dict[str, torch.dtype]:
    """The element types of the IR by how its text spells them."""
    return {spelling: dtype for dtype, spelling in dtype_names().items()}


if TYPE_CHECKING:
    DTYPE_NAMES: dict[torch.dtype, str]
    DTYPES: dict[str, torch.dtype]
else:

    def __getattr__(name: str) -> object:
        # Made when they are first used, as torch is imported.
        if name not in ("DTYPE_NAMES", "DTYPES"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return dtypes() if name == "DTYPES" else dtype_names()


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

    @cached_property
    def _hash(self) -> int:
        return hash((self.dtype, self.shape))

    def __hash__(self) -> int:
        return self._hash

    @property
    def rank(self) -> int:
        return len(self.shape)

    @cached_property
    def _text(self) -> str:
        return f"{dtype_names()[self.dtype]}[{','.join(map(str, self.shape))}]"

    def __str__(self) -> str:
        return self._text

    def with_shape(self, *shape: Dim) -> TensorType:
        """The same element type with another shape."""
        return TensorType(self.dtype, shape)

    @staticmethod
    def of(tensor: torch.Tensor) -> TensorType:
        """The type of a real tensor."""
        if tensor.dtype not in dtype_names():
            raise IRError(f"tensors of {tensor.dtype} have no IR type")
        return TensorType(tensor.dtype, tuple(tensor.shape))


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


Type: TypeAlias = TensorType | InstancesType


def tensors_of(type: Type) -> Iterator[TensorType]:
    """Every tensor type inside a type."""
    if isinstance(type, TensorType):
        yield type
    else:
        for _, field in type.fields:
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
        case InstancesType(), InstancesType():
            fields = dict(right.fields)
            for name, field in left.fields:
                if name in fields:
                    yield from dim_pairs(field, fields[name])


def substitute_type(type: Type, mapping: Mapping[str, Dim]) -> Type:
    """The type with symbolic sizes replaced."""
    if type.size_names.isdisjoint(mapping):
        return type
    if isinstance(type, TensorType):
        return _substituted(type, mapping)
    return InstancesType(tuple((name, _substituted(field, mapping)) for name, field in type.fields))


def _substituted(type: TensorType, mapping: Mapping[str, Dim]) -> TensorType:
    return type.with_shape(*(substitute(dim, mapping) for dim in type.shape))
