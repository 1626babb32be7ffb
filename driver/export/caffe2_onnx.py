"""The ONNX form of a Caffe2 net that detectron2's `Caffe2Tracer.export_onnx` gave.

Layers are operators of ai.onnx, opset 9; what Caffe2 alone knows (proposals, RoIAlign, NMS, ...) stands under its own
name in the domain `org.pytorch._caffe2`, with the arguments of the net as attributes. Only Caffe2's ONNX backend and
converters written for that form run it; everyone else wants the stock form. Source: files that detectron2 v0.6 with
torch 1.9.1 wrote.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import onnx
from onnx import helper, numpy_helper

from detc.backends.caffe2 import Caffe2Nets, emit, load_nets
from detc.backends.caffe2.arguments import operator_arguments
from detc.backends.caffe2.proto import OperatorDef
from detc.backends.metadata import detc_version
from detc.backends.onnx.emit import PRODUCER, dimension_name
from detc.backends.onnx.schemas import ELEMENT_TYPES
from detc.ir import Graph, TensorType

DOMAIN = "org.pytorch._caffe2"
OPSET, IR_VERSION = 9, 6
"""Those of torch 1.9.1: the last that Caffe2's ONNX backend reads."""

_Attributes = dict[str, Any]
_Rule = Callable[[_Attributes], "tuple[str, _Attributes] | None"]
"""The operator and its attributes in ai.onnx, or None where that cannot say what the arguments do."""


def caffe2_onnx(nets: Caffe2Nets) -> onnx.ModelProto:
    """The nets as one ONNX model; inputs and outputs have the blobs' names and order, the weights are inputs too.

    Errors:
        InputError: the nets cannot be loaded, see `load_nets`.
    """
    # A name stands for one value in ONNX.
    nets = emit(load_nets(nets.predict_net, nets.init_net), in_place=False)
    graph = load_nets(nets.predict_net, nets.init_net)
    types = {result.name: result.tensor_type for node in graph for result in node.results if result.name}
    types |= {weight.name: weight.tensor_type for weight in graph.weights.values()}
    types |= {value.name: value.tensor_type for value in graph.inputs}
    net = nets.predict_net
    nodes = [node for op in net.op for node in _nodes(op, types)]
    made = [name for node in nodes for name in node.output if name not in net.external_output]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            graph.name,
            [_info(name, types) for name in net.external_input],
            [_info(name, types) for name in net.external_output],
            _initializers(graph),
            value_info=[_info(name, types) for name in made if name in types],
        ),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)],
        ir_version=IR_VERSION,
        producer_name=PRODUCER,
        producer_version=detc_version(),
    )
    for key, item in graph.metadata.items():
        model.metadata_props.add(key=key, value=json.dumps(item))
    onnx.checker.check_model(model)
    return model


def _info(name: str, types: dict[str, TensorType]) -> onnx.ValueInfoProto:
    type = types[name]
    return helper.make_tensor_value_info(
        name, ELEMENT_TYPES[type.dtype], [dimension_name(dim) for dim in type.shape]
    )


def _initializers(graph: Graph) -> list[onnx.TensorProto]:
    return [
        numpy_helper.from_array(weight.data.detach().contiguous().numpy(), weight.name)
        for weight in graph.weights.values()
    ]


def _nodes(op: OperatorDef, types: dict[str, TensorType]) -> Iterator[onnx.NodeProto]:
    """One operator of the net. Nodes are called as the first blob that they make."""
    inputs, outputs = list(op.input), list(op.output)
    arguments = operator_arguments(op)
    arguments.pop("output_count", None)
    found = _RULES[op.type](arguments) if op.type in _RULES else None
    if found is None:
        given = {argument.name: _value(argument) for argument in op.arg}
        yield helper.make_node(op.type, inputs, outputs, name=outputs[0], domain=DOMAIN, **given)
        return
    kind, attributes = found
    if kind == "Gemm" and types[inputs[0]].rank != 2:
        flat = f"{outputs[0]}/Flatten"
        yield helper.make_node("Flatten", inputs[:1], [flat], name=flat, axis=1)
        inputs[0] = flat
    if kind == "Concat":
        # Caffe2 names the sizes of the parts too.
        outputs = outputs[:1]
    yield helper.make_node(kind, inputs, outputs, name=outputs[0], **attributes)


def _value(argument: Any) -> Any:
    for field in ("i", "f", "s"):
        if argument.HasField(field):
            return getattr(argument, field)
    return list(argument.floats) or list(argument.strings) or list(argument.ints)


def _same(kind: str) -> _Rule:
    """The same in ai.onnx, without attributes; what an old net says of axes to broadcast along cannot be said."""
    return lambda arguments: None if arguments else (kind, {})


def _renamed(kind: str, **names: str) -> _Rule:
    """Attributes under other names; None if there is one more. `order` may be NCHW, which is all that ONNX has."""

    def rule(arguments: _Attributes) -> tuple[str, _Attributes] | None:
        given = {name: value for name, value in arguments.items() if (name, value) != ("order", "NCHW")}
        if not given.keys() <= names.keys():
            return None
        return kind, {names[name]: _plain(value) for name, value in given.items()}

    return rule


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


_WINDOW = {"kernels": "kernel_shape", "strides": "strides", "pads": "pads"}


def _conv_transpose(arguments: _Attributes) -> tuple[str, _Attributes] | None:
    kept = {name: value for name, value in arguments.items() if name != "dilations"}
    return _renamed("ConvTranspose", **_WINDOW, adjs="output_padding", group="group")(kept)


def _pool(kind: str, **more: str) -> _Rule:
    def rule(arguments: _Attributes) -> tuple[str, _Attributes] | None:
        if arguments.get("global_pooling"):
            return f"Global{kind}", {}
        kept = {name: value for name, value in arguments.items() if name != "global_pooling"}
        if set(kept.pop("dilations", ())) - {1}:
            return None  # not in this opset
        return _renamed(kind, **_WINDOW, **more)(kept)

    return rule


def _matrix_product(arguments: _Attributes) -> tuple[str, _Attributes] | None:
    if arguments.get("axis", 1) != 1 or arguments.get("axis_w", 1) != 1:
        return None
    return "Gemm", {"transB": 1}


_CAST = {1: 1, 2: 6, 5: 9, 10: 7, 13: 11}
"""Caffe2's numbers of float, int32, bool, int64 and double -> ONNX's."""


def _cast(arguments: _Attributes) -> tuple[str, _Attributes] | None:
    to = _CAST.get(arguments["to"])
    return None if to is None else ("Cast", {"to": to})


_RULES: dict[str, _Rule] = {
    **{
        kind: _same(kind)
        for kind in (
            *("Relu", "Sigmoid", "Tanh", "Exp", "Log", "Sqrt", "Abs", "Reciprocal", "Floor", "Ceil"),
            *("Add", "Sub", "Mul", "Div", "Sum", "Max", "Min", "MatMul"),
        )
    },
    "Negative": _same("Neg"),
    "Copy": _same("Identity"),
    "Conv": _renamed("Conv", **_WINDOW, dilations="dilations", group="group"),
    "ConvTranspose": _conv_transpose,
    "MaxPool": _pool("MaxPool"),
    "AveragePool": _pool("AveragePool", count_include_pad="count_include_pad"),
    "FC": _matrix_product,
    "Softmax": _renamed("Softmax", axis="axis"),
    "Concat": _renamed("Concat", axis="axis"),
    "Transpose": _renamed("Transpose", axes="perm"),
    "Flatten": _renamed("Flatten", axis="axis"),
    "LeakyRelu": _renamed("LeakyRelu", alpha="alpha"),
    "Elu": _renamed("Elu", alpha="alpha"),
    "Clip": _renamed("Clip", min="min", max="max"),
    "Cast": _cast,
}
"""Caffe2 operator -> what it is in ai.onnx. Those that are not here keep their name in Caffe2's domain."""
