"""Bodies of `onnx.Scan`: graphs inside a node, written in the IR as the text of a graph of the level `onnx`.

A body uses nothing from outside of it, and its constants are literals: it means the same wherever it stands, and
passes need not know what is in it.

    graph running_sum (level=onnx) {
      input %total: f32[C]
      input %row: f32[C]
      %0: f32[C] = onnx.Add(%total, %row)
      return total=%0, sums=%0
    }
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from detc.ir import Attribute, Dim, Graph, IRError, TensorType, parse_graph, print_graph
from detc.ir.ops import Fresh
from detc.ir.sizes import matched_sizes
from detc.ir.types import substitute_type


def body_text(graph: Graph) -> str:
    """What the attribute holds for a body. Raises IRError if it has weights, which a text does not hold."""
    if graph.weights:
        raise IRError(f"the body {graph.name} has weights: {', '.join(graph.weights)}")
    return print_graph(graph)


@lru_cache(maxsize=256)
def parsed(text: str) -> Graph:
    return parse_graph(text)


def infer_scan(types: Sequence[TensorType], attributes: Mapping[str, Attribute]) -> tuple[TensorType, ...]:
    """The types of a Scan's results: the last states, then what each step gave, stacked.

    Errors:
        IRError: the operands are not what the body takes, or it scans along another axis than the first.
    """
    for name in ("scan_input_axes", "scan_output_axes"):
        axes = attributes.get(name)
        if isinstance(axes, tuple) and any(axes):
            raise IRError("onnx.Scan along another axis than the first has no place in the IR")
    scan_inputs = attributes.get("num_scan_inputs")
    if not isinstance(scan_inputs, int):
        raise IRError("onnx.Scan: num_scan_inputs must be a number")
    graph, states = parsed(str(attributes["body"])), len(types) - scan_inputs
    if len(graph.inputs) != len(types) or states < 0:
        raise IRError(f"the body {graph.name} takes {len(graph.inputs)} values, {len(types)} are given")
    sizes: dict[str, Dim] = {}
    for position, (value, given) in enumerate(zip(graph.inputs, types, strict=True)):
        step = given if position < states else given.with_shape(*given.shape[1:])
        wanted = value.tensor_type
        if (wanted.dtype, wanted.rank) != (step.dtype, step.rank):
            raise IRError(f"the body {graph.name} takes {wanted} as %{value.name}, not {step}")
        sizes = {**matched_sizes(wanted, step), **sizes}
    results: list[TensorType] = []
    for position, value in enumerate(graph.outputs.values()):
        fresh = {name: Fresh(name) for name in value.type.size_names if name not in sizes}
        type = substitute_type(value.tensor_type, {**sizes, **fresh})
        assert isinstance(type, TensorType)
        steps = () if position < states else (types[-1].shape[0],)
        results.append(type.with_shape(*steps, *type.shape))
    return tuple(results)
