"""What an ONNX file says that it takes, and whether given arrays are that."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detc.ir import InputError


@dataclass(frozen=True)
class Declared:
    """An input as the file declares it.

    Attributes:
        dtype: None where numpy has no such type.
        shape: a number, the name of a size, or None for one without a name.
    """

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int | str | None, ...]


def read_feed(
    declared: Sequence[Declared], inputs: Mapping[str, Any], metadata: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The inputs as arrays.

    Errors:
        InputError: an input is missing, unknown, of another element type or rank, or of a size that the model does
            not take.
    """
    feed = {name: np.asarray(value) for name, value in inputs.items()}
    names = [one.name for one in declared]
    missing = [name for name in names if name not in feed]
    unknown = [name for name in feed if name not in names]
    if missing or unknown:
        parts = [f"missing: {', '.join(missing)}"] if missing else []
        parts += [f"not among the inputs: {', '.join(unknown)}"] if unknown else []
        raise InputError("; ".join(parts))
    multiples = metadata.get("schema", {}).get("multiples", {})
    sizes: dict[str, tuple[int, str]] = {}
    for one in declared:
        _check(one, feed[one.name], multiples, sizes)
    return feed


def _check(
    declared: Declared, array: np.ndarray, multiples: Mapping[str, int], sizes: dict[str, tuple[int, str]]
) -> None:
    what = f"the input {declared.name!r}"
    if declared.dtype is not None and array.dtype != declared.dtype:
        raise InputError(f"{what} is of {array.dtype}, not {declared.dtype}")
    if array.ndim != len(declared.shape):
        raise InputError(f"{what} has {array.ndim} dimensions, not {len(declared.shape)}")
    for axis, (dim, size) in enumerate(zip(declared.shape, array.shape, strict=True)):
        where = f"dimension {axis} of {what}"
        if isinstance(dim, int) and dim != size:
            raise InputError(f"{where} is {size}, not {dim}")
        if isinstance(dim, str):
            if size % multiples.get(dim, 1):
                raise InputError(f"{where} ({dim}) is {size}, which is no multiple of {multiples[dim]}")
            first = sizes.setdefault(dim, (size, where))
            if first[0] != size:
                raise InputError(f"{where} ({dim}) is {size}, but {first[1]} is {first[0]}")


def decode_metadata(properties: Mapping[str, str]) -> dict[str, Any]:
    """A file's metadata, of which detc's is JSON; what is not stays text."""
    return {key: _decode(text) for key, text in properties.items()}


def _decode(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
