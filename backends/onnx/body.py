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

import onnx
from onnx import helper, numpy_helper

from detc.ir import (
    Attribute,
    Constant,
    Dim,
    Graph,
    IRError,
    Node,
    SymExpr,
    TensorType,
    Value,
    parse_graph,
    print_graph,
)
from detc.ir.ops import Fresh
from detc.ir.sizes import matched_sizes
from detc.ir.types import substitute_type

from .dialect import ELEMENT_TYPES, attribute_protos, flatten, schema_of


def body_text(graph: Graph) -> str:
    """What the attribute holds for a body. Raises IRError if it has weights, which a text does not hold."""
    if graph.weights:
        raise IRError(f"the body {graph.name} has weights: {', '.join(graph.weights)}")
    return print_graph(graph)


@lru_cache(maxsize=256)
def _parsed(text: str) -> Graph:
    return parse_graph(text)


def body_proto(text: str, prefix: str) -> onnx.GraphProto:
    """The body as ONNX has it. All names in it begin with `prefix`: it must not hide any name outside of it."""
    graph = _parsed(text)
    names: dict[Value, str] = {value: f"{prefix}{value.name}" for value in graph.inputs}
    for number, value in enumerate(result for node in graph for result in node.results):
        names[value] = f"{prefix}{number}"
    initializers: list[onnx.TensorProto] = []

    def name(value: Value | None) -> str:
        if isinstance(value, Constant) and value not in names:
            names[value] = f"{prefix}constant{len(initializers)}"
            initializers.append(numpy_helper.from_array(value.data.numpy(), names[value]))
        return "" if value is None else names[value]

    nodes = [_node(node, [name(v) for v in _flat(node)], names) for node in graph]
    outputs: list[onnx.ValueInfoProto] = []
    for i, value in enumerate(graph.outputs.values()):
        # A body gives values of its own, each once: an input, or an output that is named again, is copied.
        output = f"{prefix}out{i}"
        nodes.append(helper.make_node("Identity", [name(value)], [output]))
        outputs.append(_info(output, value.tensor_type))
    inputs = [_info(names[value], value.tensor_type) for value in graph.inputs]
    return helper.make_graph(nodes, f"{prefix}{graph.name}", inputs, outputs, initializers)


def _flat(node: Node) -> list[Value | None]:
    schema = schema_of(node.op.name)
    assert schema is not None
    return flatten(schema, node.operands)


def _node(node: Node, inputs: list[str], names: dict[Value, str]) -> onnx.NodeProto:
    schema = schema_of(node.op.name)
    assert schema is not None
    made = helper.make_node(schema.name, inputs, [names[result] for result in node.results])
    made.attribute.extend(attribute_protos(schema, node.attributes))
    return made


def _info(name: str, type: TensorType) -> onnx.ValueInfoProto:
    shape = [str(dim) if isinstance(dim, SymExpr) else dim for dim in type.shape]
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[type.dtype], shape)


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
    graph, states = _parsed(str(attributes["body"])), len(types) - scan_inputs
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
