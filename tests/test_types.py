"""What the type checker takes on trust: errors that it is told to ignore, and which ops are said to give several values."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import get_origin, get_type_hints

import pytest
from onnx.defs import OpSchema

from detc.backends.caffe2.lower.builder import Caffe2Builder
from detc.backends.caffe2.ops import BODIES
from detc.backends.onnx.lower.builder import OnnxBuilder
from detc.backends.onnx.schemas import schema_of
from detc.ir import Builder, torch_parts
from detc.ir.aten import overload_of
from detc.ir.builder import Several
from detc.ir.ops import load_dialect, registered_ops

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [
    path
    for root in ("driver", "frontend", "ir", "passes", "backends")
    for path in (ROOT / root).rglob("*.py")
]


def test_each_ignored_error_has_its_code_and_a_reason() -> None:
    for path in SOURCES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if "type: ignore" in line:
                assert re.search(r"# type: ignore\[[\w, -]+\]  # \w", line), f"{path}:{number}"


def declared(builder: type[Builder], dialect: str) -> set[str]:
    """The ops of a dialect that are declared to give several values, such as `sort.stable`."""

    def names(cls: type) -> Iterator[str]:
        for name, kind in get_type_hints(cls).items():
            yield from [name] if kind is Several else (f"{name}.{overload}" for overload in names(kind))

    return set(names(get_type_hints(builder)[dialect]))


def built(dialect: str) -> set[str]:
    """The ops of a dialect that the sources build by name, as in `b.aten.sort.stable(...)`."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            callee = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            # A pattern, `p`, only names what it matches; `torch.ops.aten` are torch's own.
            match = re.fullmatch(rf"(?!p\.|torch\.)[\w.]+\.{dialect}\.([\w.]+)", callee)
            if match is not None:
                found.add(match[1])
    return found


def torch_gives_several(name: str) -> bool:
    overload = overload_of(name)
    assert overload is not None, name
    results = torch_parts.schema(overload).returns
    return len(results) > 1 or any(str(result.type) == "List[Tensor]" for result in results)


def onnx_gives_several(name: str) -> bool:
    schema = schema_of(f"onnx.{name}")
    assert schema is not None, name
    return schema.min_output > 1 or schema.outputs[-1].option == OpSchema.FormalParameterOption.Variadic


def test_det_ops_that_give_several() -> None:
    load_dialect("det")
    # Not those that other tests declare.
    ours = [op for op in registered_ops() if op.dialect == "det" and op.body.__module__.startswith("detc.")]
    several = {
        op.name.removeprefix("det.") for op in ours if get_origin(get_type_hints(op.body)["return"]) is tuple
    }
    assert declared(Builder, "det") == several


def test_caffe2_operators_that_give_several() -> None:
    several = {
        name for name, body in BODIES.items() if str(signature(body).return_annotation).startswith("tuple")
    }
    assert declared(Caffe2Builder, "caffe2") == several


@pytest.mark.parametrize("dialect", ["aten", "torchvision"])
def test_torch_ops_that_give_several(dialect: str) -> None:
    several = {name for name in built(dialect) if torch_gives_several(f"{dialect}.{name}")}
    assert declared(Builder, dialect) == several


def test_onnx_operators_that_give_several() -> None:
    assert declared(OnnxBuilder, "onnx") == {name for name in built("onnx") if onnx_gives_several(name)}
