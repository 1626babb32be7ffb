"""The command `analyze`: what a graph costs, where its memory goes, and what all data must go through."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich import filesize
from rich.console import RenderableType

from detc.ir import Graph, GraphPrinter, InputError, IRError, Node, Value
from detc.passes import load_graph
from detc.passes.analysis import (
    dominators,
    example_sizes,
    find_subgraphs,
    liveness,
    module_costs,
    slice_between,
)

from ..show.detections import write_json
from ..show.terminal import Stages, print_blocks, table
from .sources import read_graph

_LARGEST = 5


def analyze(options: argparse.Namespace, stages: Stages) -> int:
    """Print the tables, or write them as JSON.

    Errors:
        InputError: an option or the graph cannot be used.
    """
    with stages.stage("read the graph"):
        graph = read_graph(options)
    try:
        sizes = example_sizes(graph, dict(map(_size, options.size)))
    except IRError as error:
        raise InputError(str(error)) from None
    found = _analysis(graph, sizes, options)
    if options.json == "-":
        print(json.dumps(found, indent=2))
        return 0
    if options.json:
        write_json(found, options.json)
    print_blocks(*_tables(found, options.depth))
    return 0


def _size(text: str) -> tuple[str, int]:
    name, equals, number = text.partition("=")
    if not equals or not number.isdigit():
        raise InputError(f"--size wants NAME=NUMBER, such as H=800, not {text!r}")
    return name.strip(), int(number)


def _analysis(graph: Graph, sizes: dict[str, int], options: argparse.Namespace) -> dict[str, Any]:
    names = _Names(graph)
    memory = liveness(graph, sizes)
    costs = module_costs(graph, sizes)
    by_memory = sorted(memory.live_bytes.items(), key=lambda item: -item[1])
    found: dict[str, Any] = {
        "graph": graph.name,
        "level": graph.level,
        "sizes": sizes,
        "nodes": len(graph),
        "flops": costs[0].flops,
        "weights_bytes": memory.weights,
        "peak_activation_bytes": memory.peak,
        "peak_at": names.node(memory.at) if memory.at is not None else None,
        "live_bytes": [{"node": names.node(node), "bytes": size} for node, size in by_memory],
        "modules": [asdict(cost) for cost in costs],
        "dominators": _dominator_chains(graph, names),
    }
    if options.between:
        begin, end = (names.value(name) for name in options.between)
        found["between"] = [names.line(node) for node in slice_between(graph, begin, end)]
    if options.find is not None:
        pattern = load_graph(options.find)
        places = find_subgraphs(graph, pattern)
        order = {node: i for i, node in enumerate(graph)}
        found["found"] = [
            [names.line(node) for node in sorted(place.values(), key=order.__getitem__)] for place in places
        ]
    return found


class _Names:
    """Nodes and values as the IR prints them."""

    def __init__(self, graph: Graph) -> None:
        self._printer = GraphPrinter(graph)
        self._values: dict[str, Value] = {name: value for value, name in self._printer.names.items()}
        self._values |= {name: value for name, value in graph.outputs.items() if name not in self._values}

    def value(self, name: str) -> Value:
        found = self._values.get(name.removeprefix("%"))
        if found is None:
            raise InputError(
                f"there is no value {name!r}; see `detc opt ... --passes dead-code` for their names"
            )
        return found

    def node(self, node: Node) -> str:
        results = ", ".join(f"%{self._printer.names[result]}" for result in node.results)
        return f"{results} = {node.op.name}" + (f"  # {node.source}" if node.source else "")

    def line(self, node: Node) -> str:
        return self._printer.node(node)

    def vertex(self, vertex: Node | Value) -> str:
        return self.node(vertex) if isinstance(vertex, Node) else f"input %{vertex.name}"


def _dominator_chains(graph: Graph, names: _Names) -> dict[str, list[str]]:
    """For each output, from its end on, what all data on its way to it goes through."""
    above = dominators(graph)
    chains: dict[str, list[str]] = {}
    for output, value in graph.outputs.items():
        chain: list[str] = []
        vertex: Node | Value | None = value.producer
        while vertex is not None:
            chain.append(names.vertex(vertex))
            vertex = above.get(vertex) if isinstance(vertex, Node) else None
        chains[output] = chain
    return chains


def _tables(found: dict[str, Any], depth: int) -> Iterator[RenderableType]:
    sizes = ", ".join(f"{name} = {size}" for name, size in found["sizes"].items())
    yield f"{found['graph']} (level {found['level']}) at {sizes or 'fixed sizes'}"
    yield (
        f"{found['nodes']} nodes, {_giga(found['flops'])} GFLOP, weights {filesize.decimal(found['weights_bytes'])}, "
        f"activations at most {filesize.decimal(found['peak_activation_bytes'])}"
    )
    numbers = ("nodes", "GFLOP", "parameters", "activations")
    modules = table("module", *numbers, right=numbers)
    for cost in found["modules"]:
        level = cost["path"].count(".") + 1 if cost["path"] else 0
        if level <= depth:
            path = "  " * max(level - 1, 0) + cost["path"] if level else "(all)"
            modules.add_row(
                path, str(cost["nodes"]), _giga(cost["flops"]), filesize.decimal(cost["parameters"]),
                filesize.decimal(cost["activations"]),
            )  # fmt: skip
    yield modules
    memory = table("live", "while it runs", title="where most memory is live", right=("live",))
    for entry in found["live_bytes"][:_LARGEST]:
        memory.add_row(filesize.decimal(entry["bytes"]), entry["node"])
    yield memory
    chains = table("output", "all its data goes through, the last first", title="dominators")
    for output, chain in found["dominators"].items():
        chains.add_row(output, _shortened(chain))
    yield chains
    if "between" in found:
        yield "\n".join([f"{len(found['between'])} nodes in between:", *(f"  {x}" for x in found["between"])])
    if "found" in found:
        places = [f"found {len(found['found'])} times"]
        for number, place in enumerate(found["found"], 1):
            places += [f"{number}:", *(f"  {line}" for line in place)]
        yield "\n".join(places)


def _giga(count: int) -> str:
    return f"{count / 1e9:.3g}"


def _shortened(chain: Sequence[str]) -> str:
    lines = list(chain[:_LARGEST])
    if len(chain) > _LARGEST:
        lines.append(f"... and {len(chain) - _LARGEST} more")
    return "\n".join(lines) or "(no node)"
