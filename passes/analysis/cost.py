"""What a graph's parts cost: floating-point operations and parameters, by module."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from detc.ir import Graph, Node, TensorType, Value, evaluate
from detc.ir.types import tensors_of

from .memory import example_sizes, tensor_bytes

Count = Callable[[Node, Mapping[str, int]], int]


def flops(node: Node, sizes: Mapping[str, int]) -> int:
    """The multiplications and additions of a node's products: two for each multiply-add.

    Convolutions, transposed and deformable ones, linear layers and products of matrices are counted, of aten and of
    the dialects that register theirs; all other ops count as nothing, as is usual for detectors (they are bound by
    memory).
    """
    count = _counts.get(node.op.name)
    return count(node, sizes) if count is not None else 0


def shape(value: Value, sizes: Mapping[str, int]) -> list[int]:
    """The value's shape in numbers."""
    return [int(evaluate(dim, sizes)) for dim in value.shape]


def convolution(weight: int) -> Count:
    """For convolutions with that operand as the weight [O, I/groups, ...].

    Each element of the result is a product of all that one filter covers.
    """

    def count(node: Node, sizes: Mapping[str, int]) -> int:
        filters = shape(node.operand(weight), sizes)
        return 2 * math.prod(shape(node.results[0], sizes)) * math.prod(filters[1:])

    return count


def transposed(node: Node, sizes: Mapping[str, int]) -> int:
    """For transposed convolutions: each element of the operand is multiplied with one filter [I, O/groups, ...]."""
    filters = shape(node.operand(1), sizes)
    return 2 * math.prod(shape(node.operand(0), sizes)) * math.prod(filters[1:])


def _linear(node: Node, sizes: Mapping[str, int]) -> int:
    return 2 * math.prod(shape(node.results[0], sizes)) * shape(node.operand(1), sizes)[-1]


def product(left: int) -> Count:
    """For products of matrices, of which the operand `left` is the first."""

    def count(node: Node, sizes: Mapping[str, int]) -> int:
        return 2 * math.prod(shape(node.results[0], sizes)) * shape(node.operand(left), sizes)[-1]

    return count


_counts: dict[str, Count] = {
    "aten.conv1d": convolution(1),
    "aten.conv2d": convolution(1),
    "aten.conv_transpose2d.input": transposed,
    "torchvision.deform_conv2d": convolution(1),
    "aten.linear": _linear,
    "aten.mm": product(0),
    "aten.bmm": product(0),
    "aten.matmul": product(0),
    "aten.addmm": product(1),
    "aten.baddbmm": product(1),
}
"""Op -> its count. The dialects of targets add theirs."""


def register_flops(counts: Mapping[str, Count]) -> None:
    """Let ops, by name, be counted."""
    _counts.update(counts)


@dataclass
class ModuleCost:
    """What the nodes of one module, and of the modules inside it, cost.

    Attributes:
        path: the module's path; empty for the whole model.
        activations: bytes of all results.
        parameters: bytes of the weights used; one that two modules share counts for the first.
    """

    path: str
    nodes: int = 0
    flops: int = 0
    parameters: int = 0
    activations: int = 0


def module_costs(
    graph: Graph, sizes: Mapping[str, int] | None = None, *, depth: int | None = None
) -> list[ModuleCost]:
    """The cost of each module, the whole model first, then in the order in which they run. O(n * depth of the modules).

    `depth` leaves out modules further inside than that many steps.
    """
    sizes = example_sizes(graph) if sizes is None else sizes
    costs: dict[str, ModuleCost] = {"": ModuleCost("")}
    counted: set[Value] = set()
    for node in graph:
        weights = [v for v in node.operand_values if v.name in graph.weights and v not in counted]
        counted.update(weights)
        added = (
            flops(node, sizes),
            sum(tensor_bytes(weight.type, sizes) for weight in set(weights)),
            sum(tensor_bytes(result.type, sizes) for result in node.results if any(_tensors(result))),
        )
        parts = node.source.split(".") if node.source else []
        for length in range(len(parts[:depth]) + 1):
            path = ".".join(parts[:length])
            cost = costs.setdefault(path, ModuleCost(path))
            cost.nodes += 1
            cost.flops += added[0]
            cost.parameters += added[1]
            cost.activations += added[2]
    return list(costs.values())


def _tensors(value: Value) -> list[TensorType]:
    return list(tensors_of(value.type))
