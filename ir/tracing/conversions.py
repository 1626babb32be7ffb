"""`int(size)` in a model's code while it is traced. Python insists on a number there, and the size would be lost."""

from __future__ import annotations

import builtins
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import nn

_LEFT_ALONE = {"torch", "numpy", "detc", "builtins", "typing"}


class _Number(type):
    """The type of a stand-in for `int` or `float`, which is that for every purpose but converting sizes."""

    plain: type
    convert: Callable[[Any], Any]

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, cls.plain)

    def __subclasscheck__(cls, other: type) -> bool:
        return issubclass(other, cls.plain)

    def __call__(cls, *args: Any, **keywords: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], torch.SymInt | torch.SymFloat):
            return cls.convert(args[0])
        return cls.plain(*args, **keywords)


class _Int(metaclass=_Number):
    plain = int
    convert = math.trunc


class _Float(metaclass=_Number):
    plain = float
    convert = torch.sym_float


@contextmanager
def sizes_stay_symbolic(function: Any, root: nn.Module) -> Iterator[None]:
    """While active, `int` and `float` in the code of the module, and of the functions that it uses, keep sizes."""
    stand_ins = {"int": _Int, "float": _Float}
    changed = [
        (space, name) for space in _namespaces(function, root) for name in stand_ins if name not in space
    ]
    for space, name in changed:
        space[name] = stand_ins[name]
    try:
        yield
    finally:
        for space, name in changed:
            del space[name]


def _namespaces(function: Any, root: nn.Module) -> list[dict[str, Any]]:
    """The globals of the modules' classes, and of every function that is named in them, theirs included."""
    modules = (function if isinstance(function, nn.Module) else root).modules()
    classes = {cls for module in modules for cls in type(module).__mro__}
    waiting = [vars(sys.modules[cls.__module__]) for cls in classes if cls.__module__ in sys.modules]
    waiting.append(getattr(function, "__globals__", vars(builtins)))
    found: dict[int, dict[str, Any]] = {}
    while waiting:
        space = waiting.pop()
        if id(space) not in found and space.get("__name__", "").partition(".")[0] not in _LEFT_ALONE:
            found[id(space)] = space
            waiting += [value.__globals__ for value in space.values() if isinstance(value, FunctionType)]
    return list(found.values())
