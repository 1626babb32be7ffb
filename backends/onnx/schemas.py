"""ai.onnx's operator schemas in one opset, and how the IR spells what they say."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import onnx
import torch
from onnx import TensorProto, helper
from onnx.defs import OpSchema

from detc.ir import Attribute, IRError

OPSET = 20
"""The ai.onnx opset of every graph at the level `onnx`: the first with Gelu and DeformConv both, taken by
onnxruntime >= 1.17 and OpenVINO >= 2024."""

IR_VERSION = 9
"""The ONNX file format version that belongs to the opset."""

ELEMENT_TYPES: dict[torch.dtype, int] = {
    torch.float32: TensorProto.FLOAT,
    torch.float64: TensorProto.DOUBLE,
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.int64: TensorProto.INT64,
    torch.int32: TensorProto.INT32,
    torch.int16: TensorProto.INT16,
    torch.int8: TensorProto.INT8,
    torch.uint8: TensorProto.UINT8,
    torch.bool: TensorProto.BOOL,
}
DTYPE_OF_ELEMENT: dict[int, torch.dtype] = {number: dtype for dtype, number in ELEMENT_TYPES.items()}

OUTPUTS = "outputs"
"""The attribute that counts the results of an op whose outputs may be left out."""

KIND = OpSchema.AttrType
OPTION = OpSchema.FormalParameterOption
REFUSED_KINDS = {
    KIND.GRAPH,
    KIND.GRAPHS,
    KIND.TENSORS,
    KIND.SPARSE_TENSOR,
    KIND.SPARSE_TENSORS,
    KIND.TYPE_PROTO,
    KIND.TYPE_PROTOS,
}

T = TypeVar("T")
Frozen: TypeAlias = tuple[tuple[str, Attribute], ...]
"""Attributes as a hashable key."""


def schema_of(name: str) -> OpSchema | None:
    """The schema of `onnx.<Type>` in our opset, None when there is none."""
    try:
        return onnx.defs.get_schema(name.partition(".")[2], OPSET, "")
    except onnx.defs.SchemaError:
        return None


def has_open_count(schema: OpSchema) -> bool:
    """Whether uses of the op differ in their number of outputs, and only the attribute `outputs` tells it."""
    return bool(schema.min_output != schema.max_output) and schema.name != "Split"


def output_count(
    schema: OpSchema, attributes: Mapping[str, Attribute], split_length: int | None = None
) -> int:
    """How many results a use of the op has. `split_length`: the length of Split's second operand, if any.

    Errors:
        IRError: a Split gives neither sizes nor a number of outputs.
    """
    count: Attribute = schema.min_output
    if schema.name == "Split":
        count = attributes.get("num_outputs") or split_length
    elif has_open_count(schema):
        count = attributes.get(OUTPUTS, schema.min_output)
    if not isinstance(count, int):
        raise IRError(f"onnx.{schema.name}: the number of outputs is not known")
    return count


def flatten(schema: OpSchema, operands: Sequence[T | tuple[T | None, ...] | None]) -> list[T | None]:
    """One entry per input of the ONNX node, None where one is left out, none at the end.

    Errors:
        IRError: a list stands where a single operand must, or the other way round.
    """
    flat: list[T | None] = []
    for i, operand in enumerate(operands):
        if operand is not None and (schema.inputs[i].option == OPTION.Variadic) != isinstance(operand, tuple):
            wanted = "a single operand" if isinstance(operand, tuple) else "a list of operands"
            raise IRError(f"onnx.{schema.name} takes {wanted} as {schema.inputs[i].name!r}")
        if isinstance(operand, tuple):
            flat.extend(operand)
        else:
            flat.append(operand)
    while flat and flat[-1] is None:
        flat.pop()
    return flat


def read_attribute(schema: OpSchema, proto: onnx.AttributeProto) -> Attribute:
    """The IR's spelling of an attribute in a file.

    Errors:
        IRError: it is of a kind that the IR cannot hold.
    """
    value = helper.get_attribute_value(proto)
    match proto.type:
        case onnx.AttributeProto.INT:
            # The schemas call every element type `to` or `dtype`.
            return DTYPE_OF_ELEMENT.get(value, int(value)) if proto.name in ("to", "dtype") else int(value)
        case onnx.AttributeProto.FLOAT:
            return float(value)
        case onnx.AttributeProto.STRING:
            return str(value.decode())
        case onnx.AttributeProto.INTS:
            return tuple(int(v) for v in value)
        case onnx.AttributeProto.FLOATS:
            return tuple(float(v) for v in value)
        case onnx.AttributeProto.STRINGS:
            return tuple(v.decode() for v in value)
        case onnx.AttributeProto.TENSOR if value.data_type in DTYPE_OF_ELEMENT:
            array = onnx.numpy_helper.to_array(value)
            if array.size == 1:
                return (DTYPE_OF_ELEMENT[value.data_type], array.reshape(()).item())
    raise IRError(f"onnx.{schema.name}: the IR cannot hold the attribute {proto.name!r}")


def default_of(attribute: OpSchema.Attribute) -> Any:
    """The attribute's default as the IR spells it, `inspect.Parameter.empty` where it must be given."""
    if attribute.required:
        return inspect.Parameter.empty
    proto = attribute.default_value
    if proto.type == onnx.AttributeProto.UNDEFINED:
        return None
    value = helper.get_attribute_value(proto)
    if isinstance(value, bytes):
        return value.decode()
    return tuple(value) if isinstance(value, list) else value
