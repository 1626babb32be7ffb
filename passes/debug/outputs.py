"""Which outputs of a graph belong to one set of detections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from detc.ir import InstancesType, Type
from detc.ir.dialects.instances import InstancesBatch

from ..detection.instances import flat_names


def flatten_outputs(outputs: Mapping[str, Any], types: Mapping[str, Type]) -> dict[str, Tensor]:
    """A graph's results with instances taken apart, named as `FlattenInstances` names them."""
    names = flat_names(types)
    flat: dict[str, Tensor] = {}
    for output, value in outputs.items():
        if isinstance(value, InstancesBatch):
            flat.update({names[output, field]: tensor for field, tensor in value.fields.items()})
        else:
            flat[output] = value
    return flat


def detection_groups(types: Mapping[str, Type]) -> list[dict[str, str]]:
    """Which outputs are fields of one set of detections: role -> output.

    Instances are a set each. Flat outputs are one where there are boxes, scores and batch_index with a common
    prefix, or names that a target registered; all tensors that share their first, data-dependent size belong to it.
    """
    groups: list[dict[str, str]] = []
    for output, type in types.items():
        if isinstance(type, InstancesType):
            names = {key: name for key, name in flat_names(types).items() if key[0] == output}
            roles = {_role(name, output): name for name in names.values()}
            if {"boxes", "scores", "batch_index"} <= set(roles):
                groups.append(roles)
    for name, type in types.items():
        if not name.endswith("boxes") or isinstance(type, InstancesType):
            continue
        prefix = name.removesuffix("boxes")
        if all(f"{prefix}{role}" in types for role in ("scores", "batch_index")):
            groups.append({n.removeprefix(prefix): n for n in _with_rows_of(name, types)})
    for named in _detection_names:
        outputs = {role: output for output, role in named.items()}
        if outputs["boxes"] in types and outputs["scores"] in types:
            groups.append({named.get(n, n): n for n in _with_rows_of(outputs["boxes"], types)})
    return groups


_detection_names: list[Mapping[str, str]] = []


def register_detection_names(roles: Mapping[str, str]) -> None:
    """Let outputs of these names be known as fields of one set of detections: output -> role, which must include
    "boxes" and "scores"."""
    _detection_names.append(roles)


def _with_rows_of(name: str, types: Mapping[str, Type]) -> list[str]:
    rows = getattr(types[name], "shape", (None,))[0]
    return [n for n, type in types.items() if getattr(type, "shape", (0,))[:1] == (rows,)]


def _role(name: str, output: str) -> str:
    return name.removeprefix(f"{output}_")
