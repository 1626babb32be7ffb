"""`Instances` and `Boxes` as TorchScript's classes: every field declared, with its type."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
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


def write_instances(fields: Mapping[str, type], names: Mapping[type, str]) -> str:
    """The class's text. `names` says what each type is called there."""
    typed = {name: names[type_] for name, type_ in fields.items()}
    cls = "ScriptedInstances"
    lines: list[str] = [f"class {cls}:"]

    def method(head: str, *body: str) -> None:
        lines.extend(["", f"    def {head}:", *(f"        {line}" for line in body)])

    optional = "".join(f", {name}: Optional[{type_}] = None" for name, type_ in typed.items())
    method(
        f"__init__(self, image_size: Tuple[int, int]{optional})",
        "self.image_size = image_size",
        *(f"self._{name} = torch.jit.annotate(Optional[{type_}], {name})" for name, type_ in typed.items()),
    )
    for name, type_ in typed.items():
        lines += ["", "    @property"]
        method(
            f"{name}(self) -> {type_}",
            f"value = self._{name}",
            f'assert value is not None, "the field {name} is not set"',
            "return value",
        )
        lines += ["", f"    @{name}.setter"]
        method(f"{name}(self, value: {type_}) -> None", f"self._{name} = value")
    method(
        "__len__(self) -> int",
        *_for_each(typed, "return len({value})"),
        'raise NotImplementedError("Instances without a field have no length")',
    )
    method(
        "has(self, name: str) -> bool",
        *(f'if name == "{name}": return self._{name} is not None' for name in typed),
        "return False",
    )
    # A class's own methods do not see its defaults.
    made = f"made = {cls}(self.image_size{', None' * len(typed)})"
    method(
        f'to(self, device: torch.device) -> "{cls}"',
        made,
        *_for_each(typed, "made._{name} = {value}.to(device=device)"),
        "return made",
    )
    method(
        f'__getitem__(self, item: Tensor) -> "{cls}"',
        made,
        *_for_each(typed, "made._{name} = {value}[item]"),
        "return made",
    )
    method(
        f'cat(self, instances: List["{cls}"]) -> "{cls}"',
        made,
        *(
            line
            for name, type_ in typed.items()
            for line in _for_each(
                {name: type_},
                f"made._{name} = "
                + (
                    f"torch.cat([x.{name} for x in instances], dim=0)"
                    if type_ == "Tensor"
                    else f"{{value}}.cat([x.{name} for x in instances])"
                ),
            )
        ),
        "return made",
    )
    method(
        "get_fields(self) -> Dict[str, Tensor]",
        "made: Dict[str, Tensor] = {}",
        *(
            line
            for name, type_ in typed.items()
            for line in _for_each(
                {name: type_}, f'made["{name}"] = {{value}}' + ("" if type_ == "Tensor" else ".tensor")
            )
        ),
        "return made",
    )
    return "\n".join(lines) + "\n"


def _for_each(typed: Mapping[str, str], then: str) -> list[str]:
    lines: list[str] = []
    for number, name in enumerate(typed):
        # A variable of its own for each: TorchScript gives a variable one type.
        value = f"value{number}" if len(typed) > 1 else "value"
        lines += [f"{value} = self._{name}", f"if {value} is not None:"]
        lines.append("    " + then.format(name=name, value=value))
    return lines


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
