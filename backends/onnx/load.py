"""From an ONNX file back to a graph of the level `onnx`, for files of detc's and ordinary ones."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import helper, inliner, numpy_helper, version_converter
from onnx.defs import OpSchema

from detc.ir import (
    Attribute,
    Builder,
    Constant,
    DetcError,
    Dim,
    Graph,
    InputError,
    IRError,
    Op,
    Operand,
    SymExpr,
    TensorType,
    Type,
    UnsupportedError,
    Value,
    get_op,
    infer_types,
    parse_dim,
    symbol,
)
from detc.ir.node import LITERAL_LIMIT
from detc.ir.ops import FRESH_PREFIX

from .body import body_text
from .schemas import DTYPE_OF_ELEMENT, OPSET, OUTPUTS, has_open_count, read_attribute, schema_of

_WRITTEN_BY_EMIT = {"schema", "detc_version"}
_NO_IDENTIFIER = re.compile(r"\W+")


def load(path: str | os.PathLike[str]) -> Graph:
    """The graph of an ONNX file, weights included. Another opset is converted, local functions are inlined.

    Errors:
        InputError: there is no such file, it is no ONNX model, or its opset cannot be converted.
        UnsupportedError: it uses operators that the dialect `onnx` does not have; all of them are listed.
    """
    if not Path(path).is_file():
        raise InputError(f"there is no file {os.fspath(path)}")
    try:
        model = onnx.load(path)
    except (DecodeError, OSError, ValueError) as error:
        raise InputError(f"{os.fspath(path)} is no ONNX model: {error}") from None
    if not model.HasField("graph") or not model.graph.output:
        raise InputError(f"{os.fspath(path)} is no ONNX model: it has no outputs")
    return import_model(model)


def import_model(model: onnx.ModelProto) -> Graph:
    """The graph of a model in memory. The message may lose its weights' bytes on the way. Errors as `load`."""
    if model.functions:
        model = inliner.inline_local_functions(model)
    _check_operators(model.graph)
    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    if versions and versions[0] != OPSET:
        try:
            model = version_converter.convert_version(model, OPSET)
        except Exception as error:  # the converter's errors share no base class
            raise InputError(f"the model's opset {versions[0]} cannot become {OPSET}: {error}") from None
    said = {p.key: _decode(p.value) for p in model.metadata_props}
    return _Importer(model.graph, said).graph()


def _check_operators(graph: onnx.GraphProto) -> None:
    unknown: dict[str, int] = {}
    for node in graph.node:
        known = node.op_type == "Constant" or _op_of(node) is not None
        if not known or node.domain not in ("", "ai.onnx"):
            name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            unknown[name] = unknown.get(name, 0) + 1
        for attribute in node.attribute:
            _check_operators(attribute.g)
    if unknown:
        listed = ", ".join(f"{name} ({count})" for name, count in sorted(unknown.items()))
        raise UnsupportedError(f"the model uses operators that have no place in the IR: {listed}")


def _op_of(node: onnx.NodeProto) -> Op | None:
    try:
        return get_op(f"onnx.{node.op_type}")
    except IRError:
        return None


class _Importer:
    """Reads one graph; `said` is the file's metadata. Small constants of a body are literals, whatever their names."""

    def __init__(self, proto: onnx.GraphProto, said: Mapping[str, Any], *, is_body: bool = False) -> None:
        self._proto = proto
        self._is_body = is_body
        self._graph = Graph(proto.name or "graph", "onnx")
        self._builder = Builder(self._graph, created_by="load")
        self._values: dict[str, Value] = {}
        schema: Any = said.get("schema")
        schema = schema if isinstance(schema, dict) else {}
        self._multiples: Mapping[str, int] = schema.get("multiples", {})
        entries = [*schema.get("inputs", []), *schema.get("outputs", [])]
        meanings = {e["name"]: e["meaning"] for e in entries if "meaning" in e}
        self._graph.metadata = {k: v for k, v in said.items() if k not in _WRITTEN_BY_EMIT}
        if meanings:
            self._graph.metadata["meanings"] = meanings
        self._declared = {
            info.name: info
            for info in [*self._proto.value_info, *self._proto.output]
            if info.type.HasField("tensor_type")
        }

    def graph(self) -> Graph:
        for tensor in self._proto.initializer:
            self._values[tensor.name] = self._constant(tensor.name, tensor)
            tensor.ClearField("raw_data")
        for info in self._proto.input:
            if info.name not in self._values:
                self._values[info.name] = self._graph.add_input(info.name, self._type(info))
        for node in self._proto.node:
            if node.op_type == "Constant":
                self._values[node.output[0]] = self._constant_node(node)
            else:
                self._node(node)
        self._graph.set_outputs({o.name: self._value(o.name) for o in self._proto.output})
        self._graph.prune_weights()
        return self._graph

    def _node(self, proto: onnx.NodeProto) -> None:
        op, schema = get_op(f"onnx.{proto.op_type}"), schema_of(f"onnx.{proto.op_type}")
        assert schema is not None
        source, _, tail = proto.name.rpartition("/")
        self._builder.source = (
            source.strip("/").replace("/", ".") if tail.startswith(proto.op_type) else source
        )
        attributes = {a.name: self._attribute(schema, a) for a in proto.attribute}
        if has_open_count(schema) and len(proto.output) > schema.min_output:
            attributes[OUTPUTS] = len(proto.output)
        operands = self._operands(schema, proto)
        try:
            types = infer_types(op, operands, attributes)
            made = self._builder.node(op, operands, attributes, self._named(types, proto.output))
        except DetcError as error:
            raise InputError(f"the node {proto.name or proto.output[0]!r}: {error}") from None
        for name, result in zip(proto.output, made.results, strict=False):
            result.name = _NO_IDENTIFIER.sub("_", name) if not name.startswith(proto.name) else ""
            self._values[name] = result

    def _attribute(self, schema: OpSchema, proto: onnx.AttributeProto) -> Attribute:
        if proto.type != onnx.AttributeProto.GRAPH:
            return read_attribute(schema, proto)
        body = _Importer(proto.g, {}, is_body=True).graph()
        # Only the order of a body's outputs counts; a text wants identifiers for names.
        body.name = _NO_IDENTIFIER.sub("_", body.name)
        body.set_outputs({f"y{i}": value for i, value in enumerate(body.outputs.values())})
        try:
            return body_text(body)
        except IRError as error:
            raise UnsupportedError(str(error)) from None

    def _operands(self, schema: OpSchema, proto: onnx.NodeProto) -> list[Operand]:
        values = [self._value(name) if name else None for name in proto.input]
        variadic = len(schema.inputs) and schema.inputs[-1].option == OpSchema.FormalParameterOption.Variadic
        if not variadic:
            return list(values)
        alone = len(schema.inputs) - 1
        return [*values[:alone], tuple(values[alone:])]

    def _value(self, name: str) -> Value:
        if name not in self._values:
            raise InputError(f"the value {name!r} is used before it is defined")
        return self._values[name]

    def _constant(self, name: str, tensor: onnx.TensorProto) -> Constant:
        if tensor.data_type not in DTYPE_OF_ELEMENT:
            kind = onnx.TensorProto.DataType.Name(tensor.data_type)
            raise UnsupportedError(f"the constant {name!r} is of {kind}, which has no place in the IR")
        if tensor.data_type == onnx.TensorProto.BFLOAT16:
            data = torch.frombuffer(bytearray(tensor.raw_data), dtype=torch.bfloat16).reshape(
                list(tensor.dims)
            )
        else:
            data = torch.from_numpy(numpy_helper.to_array(tensor).copy())
        # Sizes, axes and the constants that the emitter had to name are shown in the text in full.
        plain = self._is_body or name.startswith("constant") or not data.is_floating_point()
        if plain and data.numel() <= LITERAL_LIMIT:
            return self._graph.constant(data)
        return self._graph.add_weight(self._graph.fresh_weight_name(name), data)

    def _constant_node(self, node: onnx.NodeProto) -> Constant:
        (attribute,) = node.attribute
        value = helper.get_attribute_value(attribute)
        if isinstance(value, onnx.TensorProto):
            return self._constant(node.output[0], value)
        floating = attribute.type in (onnx.AttributeProto.FLOAT, onnx.AttributeProto.FLOATS)
        try:
            return self._builder.constant(
                torch.tensor(value, dtype=torch.float32 if floating else torch.int64)
            )
        except (TypeError, ValueError):
            raise UnsupportedError(f"the constant {node.output[0]!r} is no tensor of numbers") from None

    # Types

    def _type(self, info: onnx.ValueInfoProto) -> TensorType:
        proto = info.type.tensor_type
        if (
            not info.type.HasField("tensor_type")
            or proto.elem_type not in DTYPE_OF_ELEMENT
            or not proto.HasField("shape")
        ):
            raise UnsupportedError(f"the input {info.name!r} is no tensor of numbers with a known rank")
        dims = [self._dim(d) for d in proto.shape.dim]
        stem = _NO_IDENTIFIER.sub("_", info.name)
        named = [self._fresh(f"{stem}_{axis}") if d is None else d for axis, d in enumerate(dims)]
        return TensorType(DTYPE_OF_ELEMENT[proto.elem_type], tuple(named))

    def _dim(self, proto: onnx.TensorShapeProto.Dimension) -> Dim | None:
        if proto.HasField("dim_value"):
            return int(proto.dim_value)
        if not proto.dim_param:
            return None
        try:
            return parse_dim(proto.dim_param, self._multiples)
        except IRError:
            name = _NO_IDENTIFIER.sub("_", proto.dim_param)
            return symbol(name if name.isidentifier() else f"d_{name}")

    def _named(self, types: tuple[Type, ...], outputs: Any) -> list[Type]:
        """The inferred types, with what inference could not tell as the file declares it, or with new names."""
        named: list[Type] = []
        for i, type in enumerate(types):
            assert isinstance(type, TensorType)
            info = self._declared.get(outputs[i]) if i < len(outputs) else None
            given = info.type.tensor_type.shape.dim if info is not None else []
            dims: list[Dim] = []
            for axis, dim in enumerate(type.shape):
                known = dim.as_symbol if isinstance(dim, SymExpr) else None
                if known is None or not known.name.startswith(FRESH_PREFIX):
                    dims.append(dim)
                    continue
                said = self._dim(given[axis]) if len(given) == type.rank else None
                dims.append(self._fresh(known.name.removeprefix(FRESH_PREFIX)) if said is None else said)
            named.append(TensorType(type.dtype, tuple(dims)))
        return named

    def _fresh(self, stem: str) -> Dim:
        return symbol(self._graph.fresh_symbol(stem if stem.isidentifier() else f"d_{stem}"))


def _decode(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
