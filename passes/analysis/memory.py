"""When values live, and how much memory that takes at a given size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from detc.ir import Constant, Graph, IRError, Node, TensorType, Value, evaluate
from detc.ir.types import Type, tensors_of, type_symbols

IMAGE_SIDE = 800
ROWS = 100


def example_sizes(graph: Graph, given: Mapping[str, int] | None = None) -> dict[str, int]:
    """A number for each symbolic size of the graph: those given; else one image of about 800 x 800, and 100 for a
    count that depends on the data.

    Errors:
        IRError: a given size is none of the graph's, or no multiple of what it must be a multiple of.
    """
    symbols = {s.name: s for value in graph.values() for s in type_symbols(value.type)}
    sizes: dict[str, int] = {}
    for name, size in (given or {}).items():
        if name not in symbols:
            raise IRError(f"the graph has no size {name!r}; it has {', '.join(symbols) or 'none'}")
        if size <= 0 or size % symbols[name].multiple:
            raise IRError(f"{name} must be a positive multiple of {symbols[name].multiple}, not {size}")
        sizes[name] = size
    for name, known in symbols.items():
        step = known.multiple
        default = {"N": 1, "H": IMAGE_SIDE, "W": IMAGE_SIDE}.get(name, ROWS)
        sizes.setdefault(name, -(-default // step) * step)
    return sizes


def tensor_bytes(type: Type, sizes: Mapping[str, int]) -> int:
    """How many bytes a value's tensors take.

    Errors:
        IRError: a size is missing.
    """
    total = 0
    for tensor in tensors_of(type):
        total += _elements(tensor, sizes) * tensor.dtype.itemsize
    return total


def _elements(tensor: TensorType, sizes: Mapping[str, int]) -> int:
    count = 1
    for dim in tensor.shape:
        count *= int(evaluate(dim, sizes))
    return count


@dataclass(frozen=True)
class Liveness:
    """Which values live when.

    Attributes:
        last_use: each value -> the last node that uses it; None for outputs, which live to the end.
        live_bytes: each node -> bytes of all values that live while it runs, its operands and results included,
            weights not.
        peak: the largest of them, in bytes; 0 for a graph without nodes.
        at: the node where it is reached.
        weights: bytes of the weights.
    """

    last_use: Mapping[Value, Node | None]
    live_bytes: Mapping[Node, int]
    peak: int
    at: Node | None
    weights: int


def liveness(graph: Graph, sizes: Mapping[str, int] | None = None) -> Liveness:
    """When each value dies, and the memory for activations at these sizes (`example_sizes` unless given). O(n).

    It is what an executor needs that runs the nodes in order, lets values go after their last use, and works on
    nothing in place.
    """
    sizes = example_sizes(graph) if sizes is None else sizes
    last_use: dict[Value, Node | None] = {}
    for node in graph:
        for value in node.operand_values:
            if not isinstance(value, Constant):
                last_use[value] = node
    last_use.update({value: None for value in graph.outputs.values() if not isinstance(value, Constant)})
    dying: dict[Node, list[Value]] = {}
    for value, user in last_use.items():
        if user is not None:
            dying.setdefault(user, []).append(value)
    size = {value: tensor_bytes(value.type, sizes) for value in graph.values()}
    live = sum(size[value] for value in graph.inputs if value in last_use)
    live_bytes: dict[Node, int] = {}
    for node in graph:
        live += sum(size[result] for result in node.results)
        live_bytes[node] = live
        live -= sum(size[value] for value in dying.get(node, ()))
        # What nothing uses is let go at once.
        live -= sum(size[result] for result in node.results if result not in last_use)
    at = max(live_bytes, key=live_bytes.__getitem__, default=None)
    weights = sum(size[weight] for weight in graph.weights.values())
    return Liveness(last_use, live_bytes, live_bytes[at] if at is not None else 0, at, weights)
