"""Writing the IR between passes to files. `files` reads such a file back."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from typing_extensions import override

from detc.ir import Constant, Graph, InputError, print_graph

from ..core.base import Pass
from ..core.files import WEIGHTS_FILE, write_tensors
from ..core.observers import Observer

_MARK = {"written_by": "detc DumpIR"}
_OWN_FILE = re.compile(r"\d{3}_[\w-]+\.ir$")


class DumpIR(Observer):
    """Writes `000_captured.ir`, `001_first-pass.ir`, ... and, at the end, one `weights.safetensors` for all
    of them.

    The first file is named after the graph's level. A weight that has other data than an earlier stage's
    weight of its name gets a name of its own in the dump, so the file holds every stage's. Files of an
    earlier dump in the folder are replaced, others stay. `load_graph` reads a file back.

    Errors:
        InputError: the folder cannot be written to, or holds a `weights.safetensors` of another origin.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._weights: dict[str, torch.Tensor] = {}
        self._started = False

    @override
    def start(self, graph: Graph) -> None:
        self._weights, self._started = {}, False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._clear()
        except OSError as error:
            raise InputError(f"cannot write IR to {self.folder}: {error.strerror}") from None
        self._started = True
        self._write(graph, 0, graph.level)

    @override
    def after(self, graph: Graph, pass_: Pass, index: int, changed: bool) -> None:
        self._write(graph, index, pass_.name)

    @override
    def finish(self) -> None:
        if not self._started:
            return  # The folder is not this dump's.
        write_tensors(self._weights, self.folder / WEIGHTS_FILE, _MARK)

    def _clear(self) -> None:
        weights = self.folder / WEIGHTS_FILE
        if weights.exists() and not _is_own(weights):
            raise InputError(f"{weights} is not of an IR dump: choose another folder")
        for path in self.folder.iterdir():
            if _OWN_FILE.match(path.name):
                path.unlink()

    def _write(self, graph: Graph, index: int, name: str) -> None:
        renamed = self._keep_weights(graph, index)
        text = print_graph(_with_names(graph, renamed) if renamed else graph)
        path = self.folder / f"{index:03d}_{name}.ir"
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from None

    def _keep_weights(self, graph: Graph, index: int) -> dict[str, str]:
        renamed: dict[str, str] = {}
        for name, weight in graph.weights.items():
            if weight.data.is_meta:
                continue
            kept = name
            while not _is_same(self._weights.setdefault(kept, weight.data), weight.data):
                kept = f"{kept}__{index:03d}"
            if kept != name:
                renamed[name] = kept
        return renamed


def _is_own(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as stored:
            return (stored.metadata() or {}).get("written_by") == _MARK["written_by"]
    except SafetensorError:
        return False


def _is_same(kept: torch.Tensor, data: torch.Tensor) -> bool:
    if kept is data:
        return True
    if kept.shape != data.shape or kept.dtype != data.dtype:
        return False
    return kept.data_ptr() == data.data_ptr() or torch.equal(kept, data)


def _with_names(graph: Graph, renamed: dict[str, str]) -> Graph:
    twin = graph.clone()
    for old, new in renamed.items():
        weight = twin.weights.pop(old)
        replacement = Constant(weight.data, new)
        twin.weights[new] = replacement
        twin.replace_uses(weight, replacement)
    return twin
