"""The `onnx` dialect: the ai.onnx operators of one opset, taken from onnx.defs. Nothing is declared twice.

`onnx.Conv(%x, @w, @b, strides=(2, 2))`: operands are the schema's inputs (None for one left out, one list for
a variadic input), attributes the schema's. Three spellings differ from ONNX, to be readable:

- an element type (`Cast`'s `to`) is a dtype, not a number;
- a tensor attribute (`ConstantOfShape`'s `value`) is a pair (dtype, number);
- where outputs may be left out, `outputs=2` says how many there are; without it, only the required ones.

Constants are weights or literals of the graph, so there is no `onnx.Constant`. Of the ops that hold graphs there is
`Scan`, whose body uses nothing from outside and is written as the text of a graph (see `body`); `If` and `Loop`, whose
bodies do, have no place in this IR.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import onnx
import torch
from onnx import TensorProto, helper
from onnx.defs import OpSchema

from detc.ir import Attribute, IRError, Node, Op, register_dialect, register_level
from detc.ir.ops import Parameter
from detc.passes.analysis.cost import convolution, product, register_flops, shape, transposed
from detc.passes.core.base import attribute

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

_KIND = OpSchema.AttrType
_OPTION = OpSchema.FormalParameterOption
_REFUSED_KINDS = {
    _KIND.GRAPH,
    _KIND.GRAPHS,
    _KIND.TENSORS,
    _KIND.SPARSE_TENSOR,
    _KIND.SPARSE_TENSORS,
    _KIND.TYPE_PROTO,
    _KIND.TYPE_PROTOS,
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
        if operand is not None and (schema.inputs[i].option == _OPTION.Variadic) != isinstance(
            operand, tuple
        ):
            wanted = "a single operand" if isinstance(operand, tuple) else "a list of operands"
            raise IRError(f"onnx.{schema.name} takes {wanted} as {schema.inputs[i].name!r}")
        if isinstance(operand, tuple):
            flat.extend(operand)
        else:
            flat.append(operand)
    while flat and flat[-1] is None:
        flat.pop()
    return flat


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
            spelled = _body_proto(str(value), prefix) if kind == _KIND.GRAPH else _spell(kind, value)
            protos.append(helper.make_attribute(name, spelled, attr_type=_attribute_type(kind)))
        except (TypeError, ValueError) as error:
            raise IRError(f"onnx.{schema.name}: the attribute {name}={value!r}: {error}") from None
    return protos


def _body_proto(text: str, prefix: str) -> onnx.GraphProto:
    # A body consists of ops of this dialect.
    from .body import body_proto  # noqa: PLC0415

    return body_proto(text, prefix)


def _attribute_type(kind: OpSchema.AttrType) -> int:
    return int(getattr(onnx.AttributeProto, _kind_name(kind)))


def _kind_name(kind: Any) -> str:
    return str(kind.name)  # an enumeration of the C++ side, which the stubs do not describe as one


def _spell(kind: OpSchema.AttrType, value: Any) -> Any:
    match kind:
        case _KIND.INT:
            return ELEMENT_TYPES[value] if isinstance(value, torch.dtype) else int(value)
        case _KIND.FLOAT:
            return float(value)
        case _KIND.STRING:
            return str(value)
        case _KIND.INTS:
            return [int(v) for v in value]
        case _KIND.FLOATS:
            return [float(v) for v in value]
        case _KIND.STRINGS:
            return [str(v) for v in value]
        case _KIND.TENSOR:
            dtype, number = value
            return onnx.numpy_helper.from_array(torch.tensor([number], dtype=dtype).numpy(), "value")
    raise TypeError(f"attributes of kind {_kind_name(kind)} have no place in the IR")


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


def _resolve(name: str) -> Op | None:
    # Both modules need the names above; what uses the dialect needs it whole after importing this one module.
    from .infer import make_rules  # noqa: PLC0415
    from .kernels import make_body  # noqa: PLC0415

    schema = schema_of(name)
    if schema is None or schema.name == "Constant":
        return None
    if any(a.type in _REFUSED_KINDS for a in schema.attributes.values()) and schema.name != "Scan":
        return None
    operands = tuple(
        Parameter(p.name, p.option == _OPTION.Optional, p.option == _OPTION.Variadic) for p in schema.inputs
    )
    attributes = {attribute.name: default_of(attribute) for attribute in schema.attributes.values()}
    if has_open_count(schema):
        attributes[OUTPUTS] = schema.min_output
    infer, infer_from = make_rules(schema)
    doc = f"ai.onnx {schema.name}, since opset {schema.since_version}"
    return Op(name, operands, attributes, make_body(schema), infer, doc, infer_from=infer_from)


def _gemm(node: Node, sizes: Mapping[str, int]) -> int:
    inner = shape(node.operand(0), sizes)
    summed = inner[0] if attribute(node, "transA") else inner[-1]
    return 2 * math.prod(shape(node.results[0], sizes)) * summed


register_dialect("onnx", _resolve)
register_level("onnx", "onnx")
register_flops(
    {
        "onnx.Conv": convolution(1),
        "onnx.ConvTranspose": transposed,
        "onnx.DeformConv": convolution(1),
        "onnx.MatMul": product(0),
        "onnx.Gemm": _gemm,
    }
)
