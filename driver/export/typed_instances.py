"""`Instances` and `Boxes` as TorchScript's classes: every field declared, with its type."""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from detc.ir import InputError
from detc.ir.structures import Boxes

PREAMBLE = """
import torch
from torch import Tensor
from typing import Dict, List, Optional, Tuple
"""

BOXES = """
class ScriptedBoxes:
    def __init__(self, tensor: Tensor):
        self.tensor = tensor.to(torch.float32).reshape(-1, 4)

    def clone(self) -> "ScriptedBoxes":
        return ScriptedBoxes(self.tensor.clone())

    def to(self, device: torch.device) -> "ScriptedBoxes":
        return ScriptedBoxes(self.tensor.to(device=device))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def area(self) -> Tensor:
        return (self.tensor[:, 2] - self.tensor[:, 0]) * (self.tensor[:, 3] - self.tensor[:, 1])

    def clip(self, box_size: Tuple[int, int]) -> None:
        x = self.tensor[:, 0::2].clamp(min=0, max=box_size[1])
        y = self.tensor[:, 1::2].clamp(min=0, max=box_size[0])
        self.tensor = torch.stack((x[:, 0], y[:, 0], x[:, 1], y[:, 1]), dim=-1)

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        sides = self.tensor[:, 2:] - self.tensor[:, :2]
        return (sides > threshold).all(dim=1)

    def inside_box(self, box_size: Tuple[int, int], boundary_threshold: int = 0) -> Tensor:
        low = (self.tensor[:, :2] >= -boundary_threshold).all(dim=1)
        inside_x = self.tensor[:, 2] < box_size[1] + boundary_threshold
        return low & inside_x & (self.tensor[:, 3] < box_size[0] + boundary_threshold)

    def get_centers(self) -> Tensor:
        return (self.tensor[:, :2] + self.tensor[:, 2:]) / 2

    def scale(self, scale_x: float, scale_y: float) -> None:
        self.tensor[:, 0::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y

    def __getitem__(self, item: Tensor) -> "ScriptedBoxes":
        return ScriptedBoxes(self.tensor[item])

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def cat(self, boxes_list: List["ScriptedBoxes"]) -> "ScriptedBoxes":
        return ScriptedBoxes(torch.cat([boxes.tensor for boxes in boxes_list], dim=0))
"""
"""detc's `Boxes`, which TorchScript cannot read: it inherits. (detectron2's is a class that TorchScript knows.)"""


def check_fields(fields: Mapping[str, type], boxes: tuple[type, ...]) -> None:
    """See that the fields can be declared. `boxes` are the classes of boxes that can.

    Errors:
        InputError: there is none, a name is none for a field, or a type is neither a tensor nor boxes.
    """
    if not isinstance(fields, Mapping) or not fields:
        raise InputError(
            'the fields are a mapping of names to types, such as {"pred_boxes": Boxes, "scores": torch.Tensor}'
        )
    for name, type_ in fields.items():
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name[0] == "_":
            raise InputError(f"{name!r} is no name that a field of Instances can have")
        if name in ("image_size", *_METHODS):
            raise InputError(f"{name!r} cannot be a field: Instances have an attribute of that name")
        if type_ is not torch.Tensor and type_ not in boxes:
            said = type_.__name__ if isinstance(type_, type) else repr(type_)
            raise InputError(f"the field {name!r} is of {said}; a field is of torch.Tensor or Boxes")


_METHODS = ("has", "to", "cat", "get_fields")


_CLASS = "ScriptedInstances"


def write_instances(fields: Mapping[str, type], names: Mapping[type, str]) -> str:
    """The class's text. `names` says what each type is called there."""
    typed = {name: names[type_] for name, type_ in fields.items()}
    lines = [f"class {_CLASS}:", *_field_methods(typed), *_query_methods(typed), *_copying_methods(typed)]
    return "\n".join(lines) + "\n"


def _field_methods(typed: Mapping[str, str]) -> Iterator[str]:
    """`__init__`, and each field as a property."""
    optional = "".join(f", {name}: Optional[{type_}] = None" for name, type_ in typed.items())
    yield from _method(
        f"__init__(self, image_size: Tuple[int, int]{optional})",
        "self.image_size = image_size",
        *(f"self._{name} = torch.jit.annotate(Optional[{type_}], {name})" for name, type_ in typed.items()),
    )
    for name, type_ in typed.items():
        yield from _method(
            f"{name}(self) -> {type_}",
            f"value = self._{name}",
            f'assert value is not None, "the field {name} is not set"',
            "return value",
            decorator="@property",
        )
        setter = f"{name}(self, value: {type_}) -> None"
        yield from _method(setter, f"self._{name} = value", decorator=f"@{name}.setter")


def _query_methods(typed: Mapping[str, str]) -> Iterator[str]:
    """What is asked of the fields that are set."""
    yield from _method(
        "__len__(self) -> int",
        *_for_each(typed, "return len({value})"),
        'raise NotImplementedError("Instances without a field have no length")',
    )
    yield from _method(
        "has(self, name: str) -> bool",
        *(f'if name == "{name}": return self._{name} is not None' for name in typed),
        "return False",
    )
    yield from _method(
        "get_fields(self) -> Dict[str, Tensor]",
        "made: Dict[str, Tensor] = {}",
        *_for_each(typed, 'made["{name}"] = {value}', boxes='made["{name}"] = {value}.tensor'),
        "return made",
    )


def _copying_methods(typed: Mapping[str, str]) -> Iterator[str]:
    """What makes other instances of the fields that are set."""
    for head, then, boxes in (
        ("to(self, device: torch.device)", "{value}.to(device=device)", None),
        ("__getitem__(self, item: Tensor)", "{value}[item]", None),
        (
            f'cat(self, instances: List["{_CLASS}"])',
            "torch.cat([x.{name} for x in instances], dim=0)",
            "{value}.cat([x.{name} for x in instances])",
        ),
    ):
        yield from _method(
            f'{head} -> "{_CLASS}"',
            # A class's own methods do not see its defaults.
            f"made = {_CLASS}(self.image_size{', None' * len(typed)})",
            *_for_each(typed, f"made._{{name}} = {then}", boxes=f"made._{{name}} = {boxes or then}"),
            "return made",
        )


def _method(head: str, *body: str, decorator: str = "") -> Iterator[str]:
    yield ""
    if decorator:
        yield f"    {decorator}"
    yield f"    def {head}:"
    yield from (f"        {line}" for line in body)


def _for_each(typed: Mapping[str, str], tensor: str, boxes: str = "") -> Iterator[str]:
    """Statements about each field that is set: one for tensors and one, if it differs, for boxes."""
    for number, (name, type_) in enumerate(typed.items()):
        # A variable of its own for each: TorchScript gives a variable one type.
        value = f"value{number}"
        yield f"{value} = self._{name}"
        yield f"if {value} is not None:"
        then = tensor if type_ == "Tensor" else boxes or tensor
        yield "    " + then.format(name=name, value=value)


def type_names(fields: Mapping[str, type]) -> tuple[dict[type, str], dict[str, Any]]:
    """What the fields' types are called in the text, and the globals that make these names known."""
    names: dict[type, str] = {torch.Tensor: "Tensor"}
    known: dict[str, Any] = {}
    for type_ in fields.values():
        if type_ is Boxes:
            names[type_] = "ScriptedBoxes"
        elif type_ is not torch.Tensor:
            names[type_] = "LiveBoxes"
            known["LiveBoxes"] = type_
    return names, known
