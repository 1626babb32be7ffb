"""Nested inputs and outputs as a flat tuple, and back: what `torch.jit.trace` can take and give.

A schema says how an object was taken apart. It is a plain dataclass: schemas compare equal, and go to JSON and back
without any code of the file being run.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from detc.backends.torchscript import is_tracing
from detc.ir import InputError

_WRAPPERS = ("Boxes", "RotatedBoxes", "BitMasks", "ROIMasks", "Keypoints")
_STRUCTURES = ("detc.ir.structures", "detectron2.structures")
"""Where the classes are that a schema can name."""


@dataclass(frozen=True)
class Schema:
    """How to rebuild an object: `schema(values)`."""

    def __call__(self, values: Sequence[Any]) -> Any:
        """The object, from as many values as flattening it gave.

        Errors:
            InputError: their number is another.
        """
        raise NotImplementedError

    @property
    def size(self) -> int:
        """How many values the object takes."""
        raise NotImplementedError

    def to_json(self) -> str:
        """The schema as JSON text, for `schema_from_json`."""
        return json.dumps(_encode(self))


@dataclass(frozen=True)
class IdentitySchema(Schema):
    """A value that is kept as it is: a tensor, a number, text, None."""

    def __call__(self, values: Sequence[Any]) -> Any:
        _check_count(values, 1)
        return values[0]

    @property
    def size(self) -> int:
        return 1


@dataclass(frozen=True)
class ListSchema(Schema):
    """A list. `schemas` are those of its items."""

    schemas: tuple[Schema, ...]

    def __call__(self, values: Sequence[Any]) -> Any:
        return self._parts(values)

    @property
    def size(self) -> int:
        return sum(schema.size for schema in self.schemas)

    def _parts(self, values: Sequence[Any]) -> list[Any]:
        _check_count(values, self.size)
        parts: list[Any] = []
        start = 0
        for schema in self.schemas:
            parts.append(schema(values[start : start + schema.size]))
            start += schema.size
        return parts


@dataclass(frozen=True)
class TupleSchema(ListSchema):
    """A tuple."""

    def __call__(self, values: Sequence[Any]) -> Any:
        return tuple(self._parts(values))


@dataclass(frozen=True)
class DictSchema(ListSchema):
    """A dictionary with text as keys; `keys` in alphabetical order."""

    keys: tuple[str, ...]

    def __call__(self, values: Sequence[Any]) -> Any:
        return dict(zip(self.keys, self._parts(values), strict=True))


@dataclass(frozen=True)
class InstancesSchema(DictSchema):
    """`Instances`. `keys` are the fields; the last value is the image's size i64[2], (height, width).

    `class_name` is the class's full name. While torch traces, the rebuilt object's size is a tensor too.
    """

    class_name: str

    def __call__(self, values: Sequence[Any]) -> Any:
        _check_count(values, self.size)
        size = values[-1]
        if isinstance(size, Tensor) and not is_tracing():
            size = tuple(int(side) for side in size)
        made = _structure(self.class_name)(size)
        for name, value in zip(self.keys, self._parts(values[:-1]), strict=True):
            # Not `set`: comparing lengths would fix them in a trace.
            made._fields[name] = value
        return made

    @property
    def size(self) -> int:
        return super().size + 1

    def _parts(self, values: Sequence[Any]) -> list[Any]:
        return ListSchema(self.schemas)._parts(values)


@dataclass(frozen=True)
class TensorWrapSchema(Schema):
    """An object around one tensor, its attribute `tensor`: `Boxes`, `RotatedBoxes`, masks, keypoints."""

    class_name: str

    def __call__(self, values: Sequence[Any]) -> Any:
        _check_count(values, 1)
        return wrap_tensor(_structure(self.class_name), values[0])

    @property
    def size(self) -> int:
        return 1


def flatten_to_tuple(obj: Any) -> tuple[tuple[Any, ...], Schema]:
    """Take an object apart: lists, tuples, dictionaries, `Instances`, `Boxes` and the like; anything else is a value.

    Returns:
        the values, and the schema for which `schema(values)` is the object again.

    Errors:
        InputError: a dictionary has keys that are no text.
    """
    if isinstance(obj, Mapping):
        return _flatten_mapping(obj)
    if isinstance(obj, list | tuple):
        values, schemas = _flatten_all(obj)
        return values, (TupleSchema if isinstance(obj, tuple) else ListSchema)(schemas)
    name = _structure_name(type(obj))
    if name is None:
        return (obj,), IdentitySchema()
    if name.endswith(".Instances"):
        given = obj.get_fields()
        keys = tuple(sorted(given))
        values, schemas = _flatten_all([given[key] for key in keys])
        size = obj.image_size
        size = size if isinstance(size, Tensor) else torch.tensor([int(side) for side in size])
        return (*values, size), InstancesSchema(schemas, keys, name)
    return (obj.tensor,), TensorWrapSchema(name)


def wrap_tensor(cls: type, tensor: Tensor) -> Any:
    """An object of a class that holds one tensor. While torch traces, its checks are left out: they would be fixed."""
    if not is_tracing():
        return cls(tensor)
    made: Any = object.__new__(cls)
    made.tensor = tensor
    return made


def schema_from_json(text: str) -> Schema:
    """The schema that `to_json` wrote. Nothing in the text is run.

    Errors:
        InputError: the text is no schema.
    """
    try:
        return _decode(json.loads(text))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"this is no schema that to_json wrote: {error}") from None


def _flatten_mapping(obj: Mapping[Any, Any]) -> tuple[tuple[Any, ...], Schema]:
    wrong = [key for key in obj if not isinstance(key, str)]
    if wrong:
        raise InputError(f"only dictionaries whose keys are text can be flattened; {wrong[0]!r} is none")
    keys = tuple(sorted(obj))
    values, schemas = _flatten_all([obj[key] for key in keys])
    return values, DictSchema(schemas, keys)


def _flatten_all(items: Sequence[Any]) -> tuple[tuple[Any, ...], tuple[Schema, ...]]:
    flat = [flatten_to_tuple(item) for item in items]
    return tuple(value for values, _ in flat for value in values), tuple(schema for _, schema in flat)


def _check_count(values: Sequence[Any], wanted: int) -> None:
    if len(values) != wanted:
        raise InputError(f"{len(values)} values were given for a schema of {wanted}")


def _structure_name(cls: type) -> str | None:
    """The name under which a schema knows a class; None if it is no structure of detc's or detectron2's."""
    for package in _STRUCTURES if cls.__name__ in (*_WRAPPERS, "Instances") else ():
        if getattr(sys.modules.get(package), cls.__name__, None) is cls:
            return f"{package}.{cls.__name__}"
    return None


def _structure(name: str) -> Any:
    package, _, cls = name.rpartition(".")
    if package not in _STRUCTURES or cls not in (*_WRAPPERS, "Instances"):
        raise InputError(f"a schema cannot name {name!r}; it can name {', '.join((*_WRAPPERS, 'Instances'))}")
    try:
        module = sys.modules.get(package) or importlib.import_module(package)
    except ImportError:
        raise InputError(f"the schema names {name}, and {package.split('.')[0]} is not installed") from None
    return getattr(module, cls)


_SCHEMAS = (IdentitySchema, ListSchema, TupleSchema, DictSchema, InstancesSchema, TensorWrapSchema)


def _encode(schema: Schema) -> dict[str, Any]:
    said: dict[str, Any] = {"kind": type(schema).__name__}
    for field in fields(schema):
        value = getattr(schema, field.name)
        said[field.name] = [_encode(item) for item in value] if field.name == "schemas" else value
    return said


def _decode(said: Any) -> Schema:
    kinds = {kind.__name__: kind for kind in _SCHEMAS}
    if not isinstance(said, dict) or said.get("kind") not in kinds:
        raise ValueError(f"there is no kind in {str(said)[:80]!r}")
    kind = kinds[said["kind"]]
    given: dict[str, Any] = {}
    for field in fields(kind):
        value = said[field.name]
        if field.name == "schemas":
            value = tuple(_decode(item) for item in value)
        elif field.name == "keys":
            value = tuple(str(item) for item in value)
        elif not isinstance(value, str):
            raise ValueError(f"{field.name} is no text")
        given[field.name] = value
    if "keys" in given and len(given["keys"]) != len(given["schemas"]):
        raise ValueError("the keys and the schemas differ in number")
    made: Schema = kind(**given)
    if isinstance(made, InstancesSchema | TensorWrapSchema):
        package, _, name = made.class_name.rpartition(".")
        if package not in _STRUCTURES or name not in (*_WRAPPERS, "Instances"):
            raise ValueError(f"it names {made.class_name!r}")
    return made
