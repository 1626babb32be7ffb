"""What a compiled file says about itself."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from detc.ir import Graph, Value
from detc.ir.types import type_symbols


def metadata(graph: Graph) -> dict[str, Any]:
    """What the model says about itself: the graph's metadata, the schema, detc's version."""
    meanings = graph.metadata.get("meanings", {})

    def entry(name: str, value: Value) -> dict[str, str]:
        said = {"name": name, "type": str(value.type)}
        return {**said, "meaning": meanings[name]} if name in meanings else said

    multiples = {s.name: s.multiple for v in graph.inputs for s in type_symbols(v.type) if s.multiple != 1}
    schema: dict[str, Any] = {
        "inputs": [entry(v.name, v) for v in graph.inputs],
        "outputs": [entry(name, v) for name, v in graph.outputs.items()],
        "multiples": multiples,
    }
    return {
        **{key: item for key, item in graph.metadata.items() if key != "meanings"},
        "schema": schema,
        "detc_version": detc_version(),
    }


def detc_version() -> str:
    """The installed version of detc, `0` where it runs from a source tree that is not installed."""
    try:
        return version("detc")
    except PackageNotFoundError:
        return "0"
