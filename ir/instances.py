"""`Instances`, which holds tensors or, where nothing needs torch, arrays."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, Union

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Index: TypeAlias = Union[int, slice, "Tensor", np.ndarray, Sequence[int]]


BOX_FIELDS = ("pred_boxes", "proposal_boxes")
"""The fields that hold boxes, in the order in which postprocessing looks for them."""


UPRIGHT_WITHIN = 1.0
"""Boxes turned by at most this many degrees are clipped to their image, as in detectron2; others stay as they are."""


def is_tensor(value: object) -> TypeGuard[Tensor]:
    """Whether it is a tensor of torch's, which is not imported to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


class Instances:
    """The instances of one image: named fields of equal length (boxes, scores, masks, ...).

    Fields are set and read as attributes or with `set` and `get`; indexing selects in every field. A field's
    value can be anything with a length and indexing: a tensor, an array, a list, `Boxes`, ...
    """

    _image_size: tuple[int, int]
    _fields: dict[str, Any]

    def __init__(self, image_size: tuple[int, int], **fields: Any) -> None:
        """
        Args:
            image_size: (height, width) of the image that coordinates refer to.
            fields: the first fields.
        """
        self._image_size = image_size
        self._fields = {}
        for name, value in fields.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self._image_size

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        elif name == "image_size":
            raise AttributeError("the image_size of Instances cannot be changed")
        else:
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        # Reached only when normal lookup failed; `_fields` itself is missing while copying or unpickling.
        if name.startswith("_") or name not in self._fields:
            raise AttributeError(f"Instances has no field '{name}'")
        return self._fields[name]

    def set(self, name: str, value: Any) -> None:
        """Set the field `name`.

        Raises:
            ValueError: its length differs from that of the fields already there.
        """
        if self._fields and len(value) != len(self):
            raise ValueError(f"field '{name}' has {len(value)} entries, but these Instances have {len(self)}")
        self._fields[name] = value

    def has(self, name: str) -> bool:
        return name in self._fields

    def remove(self, name: str) -> None:
        del self._fields[name]

    def get(self, name: str) -> Any:
        return self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """The fields themselves, by name, in the order they were set."""
        return self._fields

    def to(self, *args: Any, **kwargs: Any) -> Instances:
        """These instances with `to` called on every field that has it."""
        moved = Instances(self._image_size)
        for name, value in self._fields.items():
            moved.set(name, value.to(*args, **kwargs) if hasattr(value, "to") else value)
        return moved

    def __getitem__(self, item: Index) -> Instances:
        """Select instances; an int gives `Instances` of length one.

        Raises:
            IndexError: an int out of range.
        """
        if isinstance(item, int):
            if not -len(self) <= item < len(self):
                raise IndexError(f"index {item} is out of range for {len(self)} instances")
            item = slice(item, None, len(self))
        selected = Instances(self._image_size)
        for name, value in self._fields.items():
            selected.set(name, value[item])
        return selected

    def __len__(self) -> int:
        for value in self._fields.values():
            return len(value)
        raise NotImplementedError("Instances without fields have no length")

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError("Instances cannot be iterated; index them, or iterate over a field")

    @staticmethod
    def cat(instance_lists: Sequence[Instances]) -> Instances:
        """The instances of a list that is not empty, all of one image, with the fields of the first."""
        if len(instance_lists) == 0 or not all(isinstance(item, Instances) for item in instance_lists):
            raise TypeError("Instances.cat takes a list of Instances that is not empty")
        first = instance_lists[0]
        if len(instance_lists) == 1:
            return first
        if any(item.image_size != first.image_size for item in instance_lists):
            raise ValueError("Instances.cat takes instances of one image size")
        joined = Instances(first.image_size)
        for name, value in first.get_fields().items():
            values = [item.get(name) for item in instance_lists]
            if isinstance(value, np.ndarray):
                joined.set(name, np.concatenate(values))
            elif isinstance(value, list):
                joined.set(name, list(itertools.chain.from_iterable(values)))
            elif hasattr(type(value), "cat"):
                joined.set(name, type(value).cat(values))
            elif is_tensor(value):
                joined.set(name, sys.modules["torch"].cat(values))
            else:
                raise ValueError(f"field '{name}' of type {type(value).__name__} cannot be concatenated")
        return joined

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}: {value}" for name, value in self._fields.items())
        count = len(self) if self._fields else 0
        height, width = self._image_size
        return (
            f"Instances(num_instances={count}, image_height={height}, image_width={width}, fields=[{fields}])"
        )
