"""Tensors that are views of others, in what torch recorded: what an assignment to a part does to the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from detc.ir import Builder, Value, torch_parts
from detc.ir.aten import overload_name

_SAME = ("alias", "detach", "contiguous", "to", "view_as", "expand_as")
_SHAPES = ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze")
_SWAPS = ("transpose", "swapaxes", "swapdims", "t", "numpy_T", "mT", "matrix_H", "adjoint")


def may_share(argument: torch.Argument, overload: torch_parts.OpOverload) -> bool:
    """Whether the operator's result can be a view of that argument."""
    return argument.alias_info is not None or overload_name(overload).startswith(("aten.reshape", "aten.to."))


def share_storage(left: Any, right: Any) -> bool:
    """Whether two recorded (lists of) fake tensors are views of the same data."""
    first, second = _first(left), _first(right)
    if first is None or second is None:
        return True
    return torch_parts.storage_key(first) == torch_parts.storage_key(second)


def _first(fake: Any) -> torch.Tensor | None:
    if isinstance(fake, list | tuple):
        return _first(fake[0]) if fake else None
    return fake if isinstance(fake, torch.Tensor) else None


def put_back(
    build: Builder,
    overload: torch_parts.OpOverload,
    attributes: Mapping[str, Any],
    whole: Value,
    parts: Sequence[Value],
    index: int,
    part: Value,
) -> Value | None:
    """The whole tensor, after `part` has come in the place of its view number `index`; None for an unknown view.

    `overload(whole, **attributes)` made the view, or the several `parts`.
    """
    name = overload_name(overload).split(".")[1]
    dim = attributes.get("dim", 0)
    if name in _SAME or (name == "slice" and part.type == whole.type and attributes.get("step", 1) == 1):
        return part if part.type == whole.type else None
    made: Value | None = None
    if name == "slice":
        made = build.aten.slice_scatter(whole, part, **attributes)
    elif name == "narrow":
        start, length = attributes["start"], attributes["length"]
        made = build.aten.slice_scatter(whole, part, dim=dim, start=start, end=start + length)
    elif name == "select":
        made = build.aten.select_scatter(whole, part, dim=dim, index=attributes["index"])
    elif name == "unbind":
        made = build.aten.select_scatter(whole, part, dim=dim, index=index)
    elif name in ("split", "split_with_sizes", "chunk"):
        sizes = [p.tensor_type.shape[dim] for p in parts]
        start = sum(sizes[:index])
        made = build.aten.slice_scatter(whole, part, dim=dim, start=start, end=start + sizes[index])
    elif name in _SHAPES:
        made = build.aten.reshape(part, shape=whole.tensor_type.shape)
    elif name == "permute":
        order = [d % len(attributes["dims"]) for d in attributes["dims"]]
        made = build.aten.permute(part, dims=[order.index(d) for d in range(len(order))])
    elif name in _SWAPS:
        rank = part.tensor_type.rank
        first, second = attributes.get("dim0", -2), attributes.get("dim1", -1)
        made = part if rank < 2 else build.aten.transpose.int(part, dim0=first, dim1=second)
    return made
