"""Modules that take long to import, torch first of all, for those that often need not go where they are used.

    from detc.ir.lazy import torch

Nothing is imported before an attribute of it is asked for. (`importlib.util.LazyLoader` gives threads half-made
modules before Python 3.12.)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["aten", "box_forms", "torch", "torchvision", "tracing"]

if TYPE_CHECKING:
    import torch
    import torchvision

    from . import aten, tracing
    from .dialects import box_forms
else:

    class _Module:
        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> Any:
            # Kept: from then on it is an attribute like any other.
            value = self.__dict__[name] = getattr(import_module(self._name), name)
            return value

    torch = _Module("torch")
    aten = _Module("detc.ir.aten")
    box_forms = _Module("detc.ir.dialects.box_forms")
    torchvision = _Module("torchvision")
    tracing = _Module("detc.ir.tracing")
