"""Tensors made of sizes, of which torch's core asks the numbers: `torch.tensor([height, width])`, `linspace`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_Number = int | float | torch.SymInt | torch.SymFloat


class Constructors(TorchFunctionMode):
    """While active, these constructors take symbolic sizes: they call operators that do."""

    def __torch_function__(
        self,
        function: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if function in (torch.tensor, torch.as_tensor) and _holds_sizes(args[:1]):
            return _tensor(args[0], kwargs.get("dtype"))
        if function is Tensor.new_tensor and _holds_sizes(args[1:]):
            return _tensor(args[1], kwargs.get("dtype") or args[0].dtype)
        if function is torch.linspace:
            given = dict(zip(("start", "end", "steps"), args, strict=False)) | dict(kwargs)
            if _holds_sizes([given["start"], given["end"], given["steps"]]):
                return _linspace(given["start"], given["end"], given["steps"], given.get("dtype"))
        return function(*args, **kwargs)


def _holds_sizes(data: Any) -> bool:
    if isinstance(data, list | tuple):
        return any(map(_holds_sizes, data))
    return isinstance(data, torch.SymInt | torch.SymFloat)


def _tensor(data: Any, dtype: torch.dtype | None) -> Tensor:
    if dtype is None:
        dtype = torch.get_default_dtype() if _holds_reals(data) else torch.int64
    if isinstance(data, list | tuple):
        return torch.stack([_tensor(item, dtype) for item in data])
    if isinstance(data, Tensor):
        return data.to(dtype)
    if isinstance(data, torch.SymFloat):
        number: Tensor = torch.ones(()) * data  # type: ignore[assignment]  # torch says that it is a number
        return number.to(dtype)
    return torch.full((), data, dtype=dtype)


def _holds_reals(data: Any) -> bool:
    if isinstance(data, list | tuple):
        return any(map(_holds_reals, data))
    if isinstance(data, Tensor):
        return data.is_floating_point()
    return isinstance(data, float | torch.SymFloat)


def _linspace(start: _Number, end: _Number, steps: Any, dtype: torch.dtype | None) -> Tensor:
    """As torch computes it: from the start up to the middle, and from the end down to it."""
    place = torch.arange(steps, dtype=dtype or torch.get_default_dtype())
    last = steps - 1
    step = (end - start) / torch.sym_max(last, 1)
    return torch.where(
        place < torch.sym_max(steps // 2, 1), place * step + start, (place - last) * step + end
    )
