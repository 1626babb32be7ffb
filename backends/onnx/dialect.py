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

import math
from collections.abc import Mapping

from detc.ir import Node, Op, register_dialect, register_level
from detc.ir.ops import Parameter
from detc.passes.analysis.cost import convolution, product, register_flops, shape, transposed
from detc.passes.core.base import attribute

from .infer import make_rules
from .kernels import make_body
from .schemas import OPTION, OUTPUTS, REFUSED_KINDS, default_of, has_open_count, schema_of


def _resolve(name: str) -> Op | None:
    schema = schema_of(name)
    if schema is None or schema.name == "Constant":
        return None
    if any(a.type in REFUSED_KINDS for a in schema.attributes.values()) and schema.name != "Scan":
        return None
    operands = tuple(
        Parameter(p.name, p.option == OPTION.Optional, p.option == OPTION.Variadic) for p in schema.inputs
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
