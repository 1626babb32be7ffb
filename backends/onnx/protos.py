"""Attributes, and the bodies of `onnx.Scan` among them, as ONNX spells them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
import torch
from onnx import helper, numpy_helper
from onnx.defs import OpSchema

from detc.ir import Attribute, Constant, IRError, Node, SymExpr, TensorType, Value

from .body import parsed
from .schemas import ELEMENT_TYPES, KIND, flatten, schema_of


def attribute_protos(
    schema: OpSchema, attributes: Mapping[str, Attribute], prefix: str = "body/"
) -> list[onnx.AttributeProto]:
    """The attributes as ONNX spells them. One that is None is left out. Names in a body begin with `prefix`.

    Errors:
        IRError: a value does not suit its attribute.
    """
    protos = []
    for name, value in attributes.items():
        if value is None or name not in schema.attributes:
            continue
        kind = schema.attributes[name].type
        try:
            spelled = body_proto(str(value), prefix) if kind == KIND.GRAPH else _spell(kind, value)
            protos.append(helper.make_attribute(name, spelled, attr_type=_attribute_type(kind)))
        except (TypeError, ValueError) as error:
            raise IRError(f"onnx.{schema.name}: the attribute {name}={value!r}: {error}") from None
    return protos


def _attribute_type(kind: OpSchema.AttrType) -> int:
    return int(getattr(onnx.AttributeProto, _kind_name(kind)))


def _kind_name(kind: Any) -> str:
    return str(kind.name)  # an enumeration of the C++ side, which the stubs do not describe as one


def _spell(kind: OpSchema.AttrType, value: Any) -> Any:
    match kind:
        case KIND.INT:
            return ELEMENT_TYPES[value] if isinstance(value, torch.dtype) else int(value)
        case KIND.FLOAT:
            return float(value)
        case KIND.STRING:
            return str(value)
        case KIND.INTS:
            return [int(v) for v in value]
        case KIND.FLOATS:
            return [float(v) for v in value]
        case KIND.STRINGS:
            return [str(v) for v in value]
        case KIND.TENSOR:
            dtype, number = value
            return onnx.numpy_helper.from_array(torch.tensor([number], dtype=dtype).numpy(), "value")
    raise TypeError(f"attributes of kind {_kind_name(kind)} have no place in the IR")


def body_proto(text: str, prefix: str) -> onnx.GraphProto:
    """The body as ONNX has it. All names in it begin with `prefix`: it must not hide any name outside of it."""
    graph = parsed(text)
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
