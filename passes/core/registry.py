"""Passes by name: what is known, and reading a list of passes from text.

    flatten-instances,fold-batch-norm,fuse{merge_parallel=True},dead-code

detc's own passes are known. Another one is known once its class is defined: `import` its module, name its file
(`--pass-file`), or install a package that declares the module as an entry point of the group `detc.passes`.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, get_type_hints

from detc.ir import InputError
from detc.ir.parser import split

from .base import Pass
from .pipeline import Pipeline

ENTRY_POINTS = "detc.passes"
"""The group of entry points: each names a module that defines passes."""
_BUILT_IN = ("detc.passes.presets", "detc.passes.detection.decompose")
"""The modules that define or import the passes which belong to no target."""


def known_passes() -> dict[str, type[Pass]]:
    """Every pass class that is defined by now, by name, in alphabetical order.

    Where two have one name, the one that was defined last stands, and detc's own yields to any other.
    """
    for module in _BUILT_IN:
        import_module(module)
    found: dict[str, type[Pass]] = {}
    for cls in sorted(_subclasses(Pass), key=lambda cls: not cls.__module__.startswith("detc.")):
        if not inspect.isabstract(cls) and not cls.__name__.startswith("_"):
            found[cls.pass_name()] = cls
    return dict(sorted(found.items()))


def _subclasses(cls: type[Any]) -> Iterator[type[Pass]]:
    for derived in cls.__subclasses__():
        yield derived
        yield from _subclasses(derived)


def load_entry_points() -> list[str]:
    """Import the modules that installed packages declare; returns their names.

    Errors:
        InputError: one cannot be imported; the message names the package.
    """
    loaded: list[str] = []
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except Exception as error:
            owner = entry.dist.name if entry.dist is not None else "?"
            raise InputError(
                f"the package {owner} declares passes in {entry.value}, which cannot be imported: {error}"
            ) from error
        loaded.append(entry.value)
    return loaded


def load_pass_file(path: str | os.PathLike[str]) -> list[type[Pass]]:
    """Run a Python file that defines passes; returns their classes.

    Errors:
        InputError: there is no such file, it fails, or it defines no pass.
    """
    name = run_python_file(path)
    defined = [cls for cls in known_passes().values() if cls.__module__ == name]
    if not defined:
        raise InputError(
            f"{os.fspath(path)} defines no pass: write a frozen dataclass that derives from detc.Pass"
        )
    return defined


def run_python_file(path: str | os.PathLike[str]) -> str:
    """Run a Python file as a module, for what it defines or registers; returns the module's name.

    Errors:
        InputError: there is no such file, or it fails.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"there is no file {file}")
    name = f"detc_file_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise InputError(f"{file} is no Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        where = _line_in(error, file)
        raise InputError(f"{file}{where} fails: {type(error).__name__}: {error}") from error
    return name


def _line_in(error: BaseException, file: Path) -> str:
    trace, line = error.__traceback__, ""
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).resolve() == file.resolve():
            line = f":{trace.tb_lineno}"
        trace = trace.tb_next
    return line


def parse_pass(text: str) -> Pass:
    """The pass that a spec describes: a name and, in braces, options that differ from their defaults.

    `parse_pass(item.spec) == item`.

    Errors:
        InputError: there is no such pass or option, or an option's value is of another type.
    """
    name, brace, rest = text.strip().partition("{")
    name = name.strip()
    if brace and not rest.endswith("}"):
        raise InputError(f"{text!r}: the brace of the options is not closed")
    cls = find_pass(name)
    known: dict[str, Field[Any]] = {f.name: f for f in fields(cls) if f.init}
    hints = get_type_hints(cls)
    options: dict[str, Any] = {}
    for part in split(rest.removesuffix("}")) if brace else []:
        key, equals, value = (item.strip() for item in part.partition("="))
        if key not in known:
            raise InputError(f"{name} has no option {key!r}; it has {', '.join(known) or 'none'}")
        if not equals or key in options:
            raise InputError(f"{name}: give each option once, as {key}=VALUE")
        options[key] = _value(name, key, value, hints[key])
    missing = [
        key
        for key, f in known.items()
        if key not in options and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise InputError(f"{name} needs the option {', '.join(missing)}: {name}{{{missing[0]}=VALUE}}")
    return cls(**options)


def parse_passes(text: str) -> Pipeline:
    """A pipeline from the specs of passes, separated by commas.

    Errors:
        InputError: see `parse_pass`.
    """
    return Pipeline(parse_pass(part) for part in split(text))


def find_pass(name: str) -> type[Pass]:
    """The class of that name.

    Errors:
        InputError: there is none; the message has the nearest names.
    """
    known = known_passes()
    if name not in known:
        load_entry_points()
        known = known_passes()
    if name not in known:
        near = get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see `detc passes`"
        raise InputError(f"there is no pass {name!r}; {hint}")
    return known[name]


def _value(owner: str, key: str, text: str, hint: Any) -> Any:
    try:
        value: Any = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    if hint is float and type(value) is int:
        value = float(value)
    if getattr(hint, "__origin__", None) is tuple and isinstance(value, list | tuple):
        value = tuple(value)
    plain = getattr(hint, "__origin__", hint)
    if isinstance(plain, type) and (not isinstance(value, plain) or (plain is int and type(value) is bool)):
        raise InputError(f"{owner}: {key} must be {plain.__name__}, not {text}")
    return value
