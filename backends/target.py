"""Targets: what a detector can be compiled to.

All that detc knows of a target stands in one package, which declares it as an entry point of the group `detc.targets`:

    [project.entry-points."detc.targets"]
    onnx = "detc.backends.onnx.target:ONNX"

Targets are looked through before anything is compiled or run, so a `Target` names its parts as entry points do,
"module:name", and imports a part when it is used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from detc.ir import InputError

if TYPE_CHECKING:
    from detc.ir import Graph
    from detc.passes import Pipeline

    from .detector import Artifact, Detector

ENTRY_POINTS = "detc.targets"


@dataclass(frozen=True)
class RuntimeChoice:
    """Something that runs a target's files.

    Attributes:
        name: what `--runtime` calls it.
        load: "module:name" of what makes a `Runtime`, or a whole `Detector`, of a path.
        title: what tables call it; the name where empty.
        requires: the module that must be installed, where that is not detc's own business.
    """

    name: str
    load: str
    title: str = ""
    requires: str = ""

    def __str__(self) -> str:
        return self.title or self.name

    @property
    def is_installed(self) -> bool:
        """Whether it can run here."""
        return not self.requires or find_spec(self.requires) is not None


@dataclass(frozen=True)
class Target:
    """A target, in full: how a graph is lowered to it, what is written, and what runs that.

    Attributes:
        name: what `--target` calls it.
        level: the level of the IR that it is emitted from.
        suffix: what its files' names end in; empty where it writes a folder.
        passes: "module:name" of the function that makes its pipeline, from options by keyword: `postprocess`, `masks`,
            and those of `options`.
        emit: "module:name" of what makes an `Artifact` of a lowered graph.
        runtimes: what runs its files, the default first.
        options: which of the options that not every target has it takes: "batch", "dtype".
        read: "module:name" of what makes a graph of a file, where the format allows it.
        contains: for a folder, the name of a file by which it is known.
        runs_code: whether loading such a file can run code that is in it: it must be trusted first.
        order: where it stands in lists; equal ones are sorted by name.
    """

    name: str
    level: str
    suffix: str
    passes: str
    emit: str
    runtimes: tuple[RuntimeChoice, ...]
    options: frozenset[str] = frozenset()
    read: str = ""
    contains: str = ""
    runs_code: bool = False
    order: int = 100

    @property
    def what_it_writes(self) -> str:
        """Its files, in words."""
        return f"files that end in {self.suffix}" if self.suffix else f"folders with a {self.contains}"

    def pipeline(self, **options: Any) -> Pipeline:
        """The passes that lower a captured graph to it."""
        made: Pipeline = resolve_name(self.passes)(**options)
        return made

    def artifact(self, graph: Graph) -> Artifact:
        """What is emitted from a lowered graph."""
        made: Artifact = resolve_name(self.emit)(graph)
        return made

    def graph(self, path: Path) -> Graph:
        """The graph in a file of this target.

        Errors:
            InputError: such files cannot be read back, or this one is damaged.
        """
        if not self.read:
            raise InputError(f"{path}: {self.what_it_writes} cannot be read back as graphs")
        made: Graph = resolve_name(self.read)(path)
        return made

    def recognizes(self, path: Path) -> bool:
        """Whether a file or folder is, by its name or by what it contains, one of this target's."""
        if self.suffix:
            return path.suffix.lower() == self.suffix and not path.is_dir()
        return path.is_dir() and (path / self.contains).exists()

    def runtime(self, name: str | None) -> RuntimeChoice:
        """The runtime of that name, the default one for None.

        Errors:
            InputError: it has none of that name.
        """
        for choice in self.runtimes:
            if name in (None, choice.name):
                return choice
        there = ", ".join(choice.name for choice in self.runtimes)
        raise InputError(f"{self.what_it_writes} do not run in {name}, but in {there}")


@cache
def known_targets() -> Mapping[str, Target]:
    """Every target that an installed package declares, by name, in order.

    Errors:
        InputError: one cannot be imported, or is not a `Target`; the message names the package.
    """
    found: list[Target] = []
    for entry in entry_points(group=ENTRY_POINTS):
        declared = (
            f"the package {entry.dist.name if entry.dist else '?'} declares the target {entry.value}, which"
        )
        try:
            target = entry.load()
        except Exception as error:
            raise InputError(f"{declared} cannot be imported: {error}") from error
        if not isinstance(target, Target):
            raise InputError(f"{declared} is not a detc.Target")
        found.append(target)
    return MappingProxyType({t.name: t for t in sorted(found, key=lambda t: (t.order, t.name))})


def find_target(name: str) -> Target:
    """The target of that name.

    Errors:
        InputError: there is none.
    """
    targets = known_targets()
    if name not in targets:
        raise InputError(f"there is no target {name!r}; there are {', '.join(targets)}")
    return targets[name]


def target_of_file(path: str | os.PathLike[str]) -> Target:
    """The target that a compiled file or folder is of.

    Errors:
        InputError: there is no such file, or it is of no target.
    """
    file = Path(path)
    if not file.exists():
        raise InputError(f"there is no file {file}")
    for target in known_targets().values():
        if target.recognizes(file):
            return target
    kinds = ", ".join(target.what_it_writes for target in known_targets().values())
    raise InputError(f"cannot tell what {file} is: compiled detectors are {kinds}")


def load_artifact(
    path: str | os.PathLike[str], *, runtime: str | None = None, trusted: bool = False
) -> Detector:
    """A compiled detector, ready to run: a file or folder that a target wrote.

    `runtime` is one of the target's runtimes: an .onnx file runs in "onnxruntime" or "openvino". A file whose loading
    can run code that is in it, such as a .pt2 file, is loaded only when it is `trusted`.

    Errors:
        InputError: there is no such file, it is nothing that detc wrote, the runtime does not run such files, or the
            file is to be trusted first.
    """
    from .detector import Detector  # noqa: PLC0415  (whoever looks targets up need not wait for what runs them)

    file, target = Path(path), target_of_file(path)
    choice = target.runtime(runtime)
    if target.runs_code and not trusted:
        raise InputError(
            f"loading {file} can run code that is in it; if you trust it, say so: --trust, or trusted=True"
        )
    loaded = resolve_name(choice.load)(file)
    return loaded if isinstance(loaded, Detector) else Detector(loaded, source=str(file))
