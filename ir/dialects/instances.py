"""`instances.*`: detectron2's `Instances` of a whole batch as one value with named fields.

All images' rows follow one another in image order. The field `batch_index` (i64) says which image a row is
of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import IRError
from ..ops import op
from ..types import InstancesType, TensorType, Type


@dataclass
class InstancesBatch:
    """The runtime form: field name -> tensor, all of one length."""

    fields: dict[str, Tensor]

    def split(self, images: int) -> list[dict[str, Tensor]]:
        """One dict of fields per image, `batch_index` left out."""
        index = self.fields["batch_index"]
        rows = [torch.nonzero(index == i)[:, 0] for i in range(images)]
        return [{n: t[r] for n, t in self.fields.items() if n != "batch_index"} for r in rows]


def _make_type(fields: tuple[Type, ...], *, names: tuple[str, ...]) -> Type:
    if len(fields) != len(names):
        raise IRError(f"{len(names)} names for {len(fields)} fields")
    if "batch_index" not in names:
        raise IRError("the field 'batch_index' is missing")
    typed: list[tuple[str, TensorType]] = []
    for name, field in zip(names, fields, strict=True):
        if not isinstance(field, TensorType) or not field.shape:
            raise IRError(f"the field {name!r} is no tensor with rows")
        if typed and field.shape[0] != typed[0][1].shape[0]:
            raise IRError(
                f"the field {name!r} has {field.shape[0]} rows, {typed[0][0]!r} has {typed[0][1].shape[0]}"
            )
        typed.append((name, field))
    return InstancesType(tuple(typed))


@op("instances.make", infer=_make_type)
def make(fields: Sequence[Tensor], *, names: tuple[str, ...]) -> InstancesBatch:
    """Put tensors with a common first dimension together. `names` are the fields' names, in order."""
    return InstancesBatch(dict(zip(names, fields, strict=True)))


def _get_type(instances: Type, *, field: str) -> Type:
    if not isinstance(instances, InstancesType):
        raise IRError(f"takes instances, not {instances}")
    return instances.field(field)


@op("instances.get", infer=_get_type)
def get(instances: InstancesBatch, *, field: str) -> Tensor:
    """One field of the instances."""
    return instances.fields[field]


def _set_type(instances: Type, value: Type, *, field: str) -> Type:
    if not isinstance(instances, InstancesType) or not isinstance(value, TensorType):
        raise IRError(f"takes instances and a tensor, not {instances} and {value}")
    rows = instances.fields[0][1].shape[0]
    if not value.shape or value.shape[0] != rows:
        raise IRError(f"the field {field!r} needs {rows} rows, not {value}")
    kept = tuple((n, t) for n, t in instances.fields if n != field)
    return InstancesType((*kept, (field, value)))


@op("instances.set", infer=_set_type)
def set_(instances: InstancesBatch, value: Tensor, *, field: str) -> InstancesBatch:
    """The instances with one field added or replaced; the operand itself stays as it was."""
    kept = {n: t for n, t in instances.fields.items() if n != field}
    return InstancesBatch({**kept, field: value})
