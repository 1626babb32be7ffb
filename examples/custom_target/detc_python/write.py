"""From a graph of the level `torchscript` to a Python module: the skeleton, its marked lines filled in."""

from __future__ import annotations

import ast
import inspect
import io
import re
from base64 import encodebytes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pprint import pformat
from textwrap import indent
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor

from detc import Graph
from detc.backends.metadata import metadata
from detc.backends.torchscript import functions
from detc.backends.torchscript.dialect import DIALECT
from detc.backends.torchscript.source import write_source
from detc.ir import IRError

from . import skeleton

MEANINGS = {
    "data": "images, channels ordered as METADATA says, 0 to 255, padded with zeros at the right and below",
    "im_info": "each image's height and width before the padding, and 1",
    "output_size": "the height and width that each image's results are for",
    "boxes": "x0 y0 x1 y1; rotated ones centre x, centre y, width, height, degrees counter-clockwise",
    "scores": "by image, then by falling score",
    "batch_index": "which image a detection is of",
    "keypoints": "x, y, score",
    "panoptic": "the id of each pixel's segment, 0 for none",
    "segments": "image, id, whether it is a thing, class",
}
"""What inputs and outputs are, beyond what their names say."""


@dataclass(frozen=True)
class Program:
    """A written module.

    Attributes:
        text: the file up to the weights.
        weights: the detector's, by their paths in it.
    """

    text: str
    weights: Mapping[str, Tensor] = field(repr=False)

    def packed_weights(self) -> bytes:
        """The end of the file: what torch.save writes, in comments.

        In Base64: base85 is 6 % shorter, but takes Python twenty times as long. Compressing takes 8 % off, and as long.
        """
        buffer = io.BytesIO()
        torch.save(dict(self.weights), buffer)
        return b"# " + encodebytes(buffer.getvalue()).rstrip().replace(b"\n", b"\n# ") + b"\n"


def write_program(graph: Graph) -> Program:
    """The module that computes what the graph does.

    Errors:
        IRError: the graph is not of the level `torchscript`, an op cannot be written, or two functions have one name.
    """
    source, said = write_source(graph, "Detections"), metadata(graph)
    inputs, outputs = said["schema"]["inputs"], said["schema"]["outputs"]
    called = sorted({node.op.name.split(".")[1] for node in graph if node.op.dialect == DIALECT})
    marked = {
        "call": f"found = load()({', '.join(entry['name'] for entry in inputs)})",
        "inputs": "\n".join(f"{entry['name']}: {_meaning(entry)}" for entry in inputs),
        "functions": _functions(called),
        "outputs": "\n".join(f"{entry['name']}: Tensor  # {_meaning(entry)}" for entry in outputs),
        "forward": source.text.rstrip(),
        "metadata": f"METADATA: dict[str, Any] = {pformat(said, width=110, sort_dicts=False)}",
    }
    text = re.sub(
        r"^( *).*# <(\w+)>$",
        lambda line: indent(marked[line[2]], line[1]),
        inspect.getsource(skeleton),
        flags=re.MULTILINE,
    )
    return Program(text, {".".join(path): tensor for path, tensor in source.weights.items()})


def _meaning(entry: Mapping[str, str]) -> str:
    return ", ".join(filter(None, (entry["type"], MEANINGS.get(entry["name"]))))


def _functions(called: Sequence[str]) -> str:
    """The functions that `forward` calls, and the namespace that keeps them apart from variables of their names."""
    if not called:
        return ""
    copies = _Copies()
    for name in called:
        copies.add(name, getattr(functions, name))
    namespace = f"functions = SimpleNamespace({', '.join(f'{name}={name}' for name in called)})"
    return "\n\n\n".join(["\n".join(copies.imports), *copies.texts, namespace])


class _Copies:
    """The text of functions of detc's, and before it all that they need: imports, constants, other functions."""

    def __init__(self) -> None:
        self.imports: list[str] = []
        self.texts: list[str] = []
        self._known = dict(vars(skeleton))

    def add(self, name: str, value: Any) -> None:
        """What `name` stands for in one of the functions."""
        if name in self._known:
            if self._known[name] is not value:
                raise IRError(f"two things are called {name}, and cannot stand in one file")
            return
        self._known[name] = value
        if isinstance(value, ModuleType):
            self.imports.append(f"import {value.__name__}" + f" as {name}" * (value.__name__ != name))
        elif isinstance(value, FunctionType) and value.__module__.startswith("detc."):
            self._add_function(value)
        elif hasattr(value, "__module__"):
            self.imports.append(f"from {value.__module__} import {name}")
        else:
            self.texts.append(f"{name} = {value!r}")

    def _add_function(self, function: FunctionType) -> None:
        text = inspect.getsource(function)
        tree = ast.parse(text).body[0]
        assert isinstance(tree, ast.FunctionDef)
        tree.decorator_list.clear()  # they declare ops of the IR
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        for name in sorted(names.difference(function.__code__.co_varnames) & function.__globals__.keys()):
            self.add(name, function.__globals__[name])
        self.texts.append(ast.get_source_segment(text, tree) or "")
