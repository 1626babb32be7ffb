"""From a graph of the level `onnx` to an ONNX model.

Names are made to be read: a node carries the module path that it comes from (`backbone.stem.conv1/Conv`),
weights keep their names, inputs and outputs are the graph's. What the graph's metadata says goes into the
model's metadata_props, each value as JSON.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any

import onnx
import onnx_graphsurgeon as gs
import torch

from detc.backends.metadata import detc_version, metadata
from detc.ir import Constant, Dim, Graph, InputError, IRError, Node, SymExpr, TensorType, Value
from detc.ir.files import atomic_write

from .protos import attribute_protos
from .schemas import ELEMENT_TYPES, IR_VERSION, OPSET, flatten, schema_of
from .wire import SIZE_LIMIT, model_chunks, model_size, tensor_bytes

PRODUCER = "detc"
_INLINE_BYTES = 1024
"""Constants up to this size are part of the skeleton: shape inference needs the sizes and axes among them."""

_ALL_OUTPUTS = {"Split", "Scan"}
"""Operators whose outputs are counted: none may be left out."""


@dataclass(frozen=True)
class OnnxModel:
    """An ONNX model: all of it but the large weights, and these, which still share storage with the detector.

    Attributes:
        skeleton: the model without the large weights' initializers.
        weights: the large weights by their names in the model.
    """

    skeleton: onnx.ModelProto
    weights: dict[str, torch.Tensor] = field(repr=False)

    @property
    def size(self) -> int:
        """The file's length in bytes, a few bytes at most too much."""
        return model_size(self.skeleton, self.weights)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file. The weights are not copied; an old file stays until the new one is complete.

        Errors:
            InputError: the model is larger than an ONNX file can be, or the file cannot be written.
        """
        self._check_size()
        with atomic_write(path) as file:
            for chunk in model_chunks(self.skeleton, self.weights):
                file.write(chunk)

    def to_bytes(self) -> bytes:
        """The file's content.

        Errors:
            InputError: the model is larger than an ONNX file can be.
        """
        self._check_size()
        return b"".join(model_chunks(self.skeleton, self.weights))

    def to_proto(self) -> onnx.ModelProto:
        """The whole model as one message; this copies the weights."""
        model = onnx.ModelProto()
        model.CopyFrom(self.skeleton)
        for name, tensor in self.weights.items():
            model.graph.initializer.add(
                name=name,
                data_type=ELEMENT_TYPES[tensor.dtype],
                dims=list(tensor.shape),
                raw_data=bytes(tensor_bytes(tensor)),
            )
        return model

    def _check_size(self) -> None:
        if self.size > SIZE_LIMIT:
            raise InputError(f"the model takes {self.size / 2**30:.1f} GiB; an ONNX file holds at most 2 GiB")


def emit(graph: Graph) -> OnnxModel:
    """The ONNX model of a graph. It passes `onnx.checker` with full type checking.

    Errors:
        IRError: the graph is not of the level `onnx`, or onnx.checker refuses the model.
    """
    if graph.level != "onnx":
        raise IRError(f"only graphs of the level 'onnx' become ONNX models, not {graph.level!r}")
    return _Emitter(graph).emit()


class _Emitter:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._taken: dict[str, int] = {}
        self._tensors: dict[Value, gs.Tensor] = {}
        self._constants: dict[object, gs.Tensor] = {}
        self._weights: dict[str, torch.Tensor] = {}
        self._stand_ins: list[gs.Variable] = []

    def emit(self) -> OnnxModel:
        graph = self._graph
        inputs = []
        for value in graph.inputs:
            inputs.append(self._variable(value, self._unique(value.name)))
        named: dict[Value, str] = {}
        for name, value in graph.outputs.items():
            if self._unique(name) != name:
                raise IRError(f"two inputs or outputs are called {name!r}")
            if value.producer is not None:
                named.setdefault(value, name)
        nodes = [self._node(node, named) for node in graph]
        outputs = []
        for name, value in graph.outputs.items():
            if named.get(value) == name:
                outputs.append(self._tensors[value])
            else:
                # An input, a constant or another output once more: ONNX wants a node that makes it.
                source = self._tensor(value)
                copy = _typed(name, value.tensor_type)
                nodes.append(
                    gs.Node("Identity", self._unique(f"{name}/Identity"), inputs=[source], outputs=[copy])
                )
                outputs.append(copy)
        # The large weights stand as inputs while the model is finished, so that nothing copies them.
        surgeon = gs.Graph(
            nodes,
            [*inputs, *self._stand_ins],
            outputs,
            name=graph.name,
            opset=OPSET,
            producer_name=PRODUCER,
            producer_version=detc_version(),
        )
        # No toposort: the graph's order is a topological one, and the order in which the model is read.
        surgeon.cleanup()
        model = gs.export_onnx(surgeon, ir_version=IR_VERSION)
        for key, item in metadata(graph).items():
            model.metadata_props.add(key=key, value=json.dumps(item))
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise IRError(f"onnx.checker refuses the model: {error}") from None
        del model.graph.input[len(inputs) :]
        used = {name for node in model.graph.node for name in node.input}
        return OnnxModel(model, {name: tensor for name, tensor in self._weights.items() if name in used})

    def _node(self, node: Node, outputs: dict[Value, str]) -> gs.Node:
        schema = schema_of(node.op.name)
        if schema is None:
            raise IRError(f"{node.op.name} at {node.source or '?'} is no operator of ai.onnx {OPSET}")
        name = self._unique(f"{node.source}/{schema.name}" if node.source else schema.name)
        results: list[gs.Variable] = []
        for value in node.results:
            stem = name if len(node.results) == 1 else f"{name}:{value.index}"
            if value in outputs:
                results.append(self._variable(value, outputs[value]))
            elif value.index >= schema.min_output and not value.is_used and schema.name not in _ALL_OUTPUTS:
                results.append(gs.Variable.empty())
            else:
                results.append(self._variable(value, self._unique(stem) if len(node.results) > 1 else stem))
        while results and results[-1].is_empty():
            results.pop()
        inputs = [
            gs.Variable.empty() if v is None else self._tensor(v) for v in flatten(schema, node.operands)
        ]
        attributes = {
            proto.name: _attribute(proto) for proto in attribute_protos(schema, node.attributes, f"{name}/")
        }
        return gs.Node(schema.name, name, attributes, inputs, results)

    def _variable(self, value: Value, name: str) -> gs.Variable:
        made = self._tensors[value] = _typed(name, value.tensor_type)
        return made

    def _tensor(self, value: Value) -> gs.Tensor:
        known = self._tensors.get(value)
        if known is None:
            if not isinstance(value, Constant):
                raise IRError(f"{value!r} is used before it is made")
            known = self._tensors[value] = self._constant(value)
        return known

    def _constant(self, value: Constant) -> gs.Tensor:
        data = value.data
        if data.is_meta:
            raise IRError(f"the weight {value.name!r} has no data")
        small = data.numel() * data.element_size() <= _INLINE_BYTES
        # Equal small constants, and weights that are one tensor under two names, are stored once.
        content = bytes(tensor_bytes(data)) if small else (data.data_ptr(), data.stride())
        key = (data.dtype, tuple(data.shape), content)
        if key not in self._constants:
            name = self._unique(value.name or "constant")
            if small:
                self._constants[key] = gs.Constant(name, data.detach().cpu().contiguous().numpy())
            else:
                self._constants[key] = _typed(name, value.tensor_type)
                self._stand_ins.append(self._constants[key])
                self._weights[name] = data
        return self._constants[key]

    def _unique(self, stem: str) -> str:
        name = stem
        while name in self._taken:
            name = f"{stem}_{self._taken[stem]}"
            self._taken[stem] += 1
        self._taken[name] = 1
        return name


def _typed(name: str, type: TensorType) -> gs.Variable:
    return gs.Variable(name, ELEMENT_TYPES[type.dtype], [dimension_name(d) for d in type.shape])


def dimension_name(dim: Dim) -> int | str:
    """A size as ONNX writes it: a number, or a name such as `N` or `H/4`."""
    return str(dim) if isinstance(dim, SymExpr) else dim


def _attribute(proto: onnx.AttributeProto) -> Any:
    if proto.type == onnx.AttributeProto.TENSOR:
        return gs.Constant(proto.t.name, onnx.numpy_helper.to_array(proto.t))
    return onnx.helper.get_attribute_value(proto)
