"""What every graph and every pass must keep, as functions that tests call."""

from __future__ import annotations

from typing import Any

import torch

from detc.ir import (
    Graph,
    Node,
    TensorType,
    Value,
    attribute_symbols,
    difference,
    evaluate,
    parse_graph,
    print_graph,
    run,
    verify,
)
from detc.ir.dialects.instances import InstancesBatch
from detc.ir.types import type_symbols
from detc.passes import Context, Pass
from detc.passes.core.pipeline import apply_pass
from detc.passes.debug.honesty import changed_outside_rewrites


def check_use_lists(graph: Graph) -> None:
    """Each value knows exactly the nodes and outputs that use it, and how often; the graph knows its sizes."""
    uses: dict[Value, dict[object, int]] = {}
    for node in graph:
        for value in node.operand_values:
            counts = uses.setdefault(value, {})
            counts[node] = counts.get(node, 0) + 1
    for value in [*graph.values(), *uses]:
        assert value._users == uses.get(value, {}), value
        assert value._outputs == sum(output is value for output in graph.outputs.values()), value
    check_sizes(graph)
    nodes = graph.nodes
    assert len(graph) == len(nodes)
    assert list(reversed(graph)) == nodes[::-1]


def check_sizes(graph: Graph) -> None:
    """The graph's index of sizes is what one walk over the nodes finds, and each size comes from the first maker."""
    users: dict[str, list[Node]] = {}
    carriers: dict[str, list[Node]] = {}
    origins: dict[str, Value | None] = {}
    for value in graph.inputs:
        for name in {symbol.name for symbol in type_symbols(value.type)}:
            origins[name] = value if name not in origins else None
    for node in graph:
        asked = {s.name for attribute in node.attributes.values() for s in attribute_symbols(attribute)}
        given = {s.name for value in node.operand_values for s in type_symbols(value.type)}
        for name in asked:
            users.setdefault(name, []).append(node)
        for name in asked.union(*({s.name for s in type_symbols(r.type)} for r in node.results)):
            carriers.setdefault(name, []).append(node)
        for result in node.results:
            for symbol in type_symbols(result.type):
                if symbol.name not in asked | given:
                    origins.setdefault(symbol.name, result)
    sizes = graph.sizes
    assert {name: set(nodes) for name, nodes in sizes.users.items() if nodes} == {
        n: set(u) for n, u in users.items()
    }
    assert {name: set(nodes) for name, nodes in sizes.carriers.items() if nodes} == {
        name: set(nodes) for name, nodes in carriers.items()
    }
    assert {name: sizes.origin(name) for name in {*sizes.known, *origins}} == {
        name: origins.get(name) for name in {*sizes.known, *origins}
    }
    for name, origin in origins.items():
        if origin is not None:
            assert set(users.get(name, ())) <= set(origin.size_users)


def check_round_trip(graph: Graph) -> None:
    """The text parses back to an equal graph, and prints the same again."""
    text = print_graph(graph)
    again = parse_graph(text, {name: weight.data for name, weight in graph.weights.items()})
    assert difference(graph, again) is None
    assert print_graph(again) == text


def check_same_results(expected: dict[str, Any], actual: dict[str, Any]) -> None:
    """Equal up to the order of the arithmetic."""
    assert list(expected) == list(actual)
    for name, value in expected.items():
        if isinstance(value, InstancesBatch):
            check_same_results(value.fields, actual[name].fields)
        else:
            # What is computed in float32 is compared at float32's precision.
            tolerance = 1e-9 if value.dtype is torch.float64 else 2e-5
            torch.testing.assert_close(actual[name], value, rtol=tolerance, atol=tolerance, equal_nan=True)


def graph_of(body: str, *, level: str = "captured") -> Graph:
    """A graph from the lines between the braces of its text, with random data in its weights."""
    text = f"graph test (level={level}) {{\n{body}\n}}\n"
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: _random(weight.tensor_type, {}, generator) for name, weight in parse_graph(text).weights.items()
    }
    graph = parse_graph(text, weights)
    verify(graph)
    return graph


def joined(text: str) -> str:
    """IR text in which a line that is indented deeper than the first continues the one before it."""
    lines: list[str] = []
    depth = 0
    for line in filter(str.strip, text.splitlines()):
        indent = len(line) - len(line.lstrip())
        if lines and indent > depth:
            lines[-1] += " " + line.strip()
        else:
            depth = indent
            lines.append(line.strip())
    return "\n".join(lines)


def body_of(graph: Graph) -> str:
    """The lines between the braces of a graph's text, without the comments and the `where`."""
    lines = [line.split("  # ")[0].strip() for line in print_graph(graph).splitlines()[1:-1]]
    return "\n".join(line for line in lines if not line.startswith("where"))


def random_inputs(graph: Graph, sizes: dict[str, int], seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors for the graph's inputs, given each symbolic size."""
    generator = torch.Generator().manual_seed(seed)
    return {v.name: _random(v.tensor_type, sizes, generator) for v in graph.inputs}


def _random(type: TensorType, sizes: dict[str, int], generator: torch.Generator) -> torch.Tensor:
    shape = [int(evaluate(dim, sizes)) for dim in type.shape]
    if type.dtype.is_floating_point:
        # Positive, so that it will do as a variance too.
        return (torch.rand(shape, generator=generator, dtype=torch.float64) + 0.25).to(type.dtype)
    return torch.randint(0, 2, shape, generator=generator).to(type.dtype)


def check_rewrite(item: Pass, before: str, after: str, **sizes: int) -> Graph:
    """The pass turns the one text into the other, and all else that `check_pass` asks. Returns the result."""
    graph = graph_of(before)
    result = check_pass(item, graph, random_inputs(graph, sizes))
    assert body_of(result) == "\n".join(filter(None, map(str.strip, after.splitlines())))
    return result


def check_pass(item: Pass, graph: Graph, inputs: dict[str, Any], context: Context | None = None) -> Graph:
    """Apply a pass to a copy, and check all that a meaning-preserving pass must keep. Returns the copy."""
    before, weights = print_graph(graph), {name: w.data.clone() for name, w in graph.weights.items()}
    after = graph.clone()
    context = context or Context()
    changed = apply_pass(item, after, context)
    assert changed == bool(context.rewrites)
    verify(after, after=item.name)
    check_use_lists(after)
    check_round_trip(after)
    problem = difference(graph, after)
    pruned = list(graph.weights) != list(after.weights)
    assert changed == (problem is not None or pruned), f"said changed={changed}, but: {problem}"
    check_same_results(run(graph, inputs), run(after, inputs))
    assert print_graph(graph) == before
    for name, weight in graph.weights.items():
        assert torch.equal(weight.data, weights[name]), f"the weight {name} was changed"
    _check_rewrites(item, graph, inputs, len(context.rewrites))
    twin = graph.clone()
    item.apply(twin, Context(item.name))
    assert print_graph(twin) == print_graph(after), "a second run gives another text"
    assert not item.apply(twin, Context(item.name)), "it finds more to do when run again"
    return after


def _check_rewrites(item: Pass, graph: Graph, inputs: dict[str, Any], done: int) -> None:
    """A pass that is stopped between two rewrites leaves a valid graph that computes the same; at 0 the graph itself."""
    assert changed_outside_rewrites(graph, item) is None
    part = graph.clone()
    apply_pass(item, part, Context(limit=done // 2))
    verify(part, after=item.name)
    check_use_lists(part)
    check_same_results(run(graph, inputs), run(part, inputs))
