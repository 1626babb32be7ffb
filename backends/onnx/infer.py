"""Types of `onnx.*` results, by onnx's own shape inference of one node, cached.

onnx carries a size along but cannot compute with one; what it cannot tell becomes a fresh size. It needs the
values of some operands (a shape, axes): constants give them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import onnx
import torch
from onnx import NodeProto, TensorProto, TypeProto, helper, shape_inference
from onnx.defs import OpSchema

from detc.ir import (
    Attribute,
    Constant,
    Dim,
    Fresh,
    IRError,
    Operand,
    SymExpr,
    TensorType,
    Type,
    Value,
)
from detc.ir.builder import operand_types
from detc.ir.dims import floor_div
from detc.ir.ops import OperandRule, OperandType

from .body import infer_scan
from .protos import attribute_protos
from .schemas import DTYPE_OF_ELEMENT, ELEMENT_TYPES, IR_VERSION, OPSET, Frozen, flatten, output_count

_VALUE_LIMIT = 64
"""Constants with at most this many elements are shown to shape inference: sizes, axes, paddings."""

_USES_VALUES = {
    "AffineGrid", "CenterCropPad", "Col2Im", "ConstantOfShape", "Expand", "MaxUnpool", "OneHot", "Pad",
    "Range", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Reshape", "Resize", "Slice", "Split", "Squeeze",
    "Tile", "TopK", "Unsqueeze",
}  # fmt: skip

Known = tuple[object, ...] | None
"""The elements of a constant operand, None for any other operand."""


def make_rules(schema: OpSchema) -> tuple[Callable[..., Sequence[Type]], OperandRule | None]:
    """The op's rule over types alone, and the one over operands if their values matter."""

    def infer(*operands: OperandType, **attributes: Attribute) -> Sequence[Type]:
        types = tuple(flatten(schema, operands))
        return _infer(schema.name, types, (None,) * len(types), tuple(attributes.items()))

    def infer_from(operands: Sequence[Operand], attributes: Mapping[str, Attribute]) -> Sequence[Type]:
        types = tuple(flatten(schema, operand_types(operands)))
        known = tuple(_elements(value) for value in flatten(schema, operands))
        return _infer(schema.name, types, known, tuple(attributes.items()))

    return infer, infer_from if schema.name in _USES_VALUES else None


def _elements(value: Value | None) -> Known:
    if not isinstance(value, Constant) or value.data.numel() > _VALUE_LIMIT or value.data.is_meta:
        return None
    return tuple(value.data.reshape(-1).tolist())


# Most nodes of a network share a few signatures, and every pass is verified: the cache makes that cheap.
@lru_cache(maxsize=16384)
def _infer(
    name: str, types: tuple[Type | None, ...], known: tuple[Known, ...], attributes: Frozen
) -> tuple[TensorType, ...]:
    schema = onnx.defs.get_schema(name, OPSET, "")
    tensors = [_tensor(name, t) for t in types]
    if name == "Scan":
        return infer_scan([t for t in tensors if t is not None], dict(attributes))
    names = ["" if t is None else f"i{i}" for i, t in enumerate(tensors)]
    sizes: dict[str, Dim] = {}
    inputs = {n: _type_proto(t, sizes) for n, t in zip(names, tensors, strict=True) if t is not None}
    values = {
        n: onnx.numpy_helper.from_array(torch.tensor(k, dtype=t.dtype).reshape(_static(t)).numpy(), n)
        for n, t, k in zip(names, tensors, known, strict=True)
        if t is not None and k is not None
    }
    outputs = [f"o{i}" for i in range(output_count(schema, dict(attributes), _split_length(tensors)))]
    node = NodeProto(op_type=name, input=names, output=outputs)
    node.attribute.extend(attribute_protos(schema, dict(attributes)))
    try:
        found = _output_types(schema, node, inputs, values)
    except (shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError) as error:
        raise IRError(f"onnx.{name} refuses its operands: {_reason(error)}") from None
    refine = _REFINEMENTS.get(name)
    results = []
    count = 0
    for i, output in enumerate(outputs):
        proto = found.get(output)
        if proto is None or proto.tensor_type.elem_type not in DTYPE_OF_ELEMENT:
            raise IRError(f"onnx.{name}: the type of output {i} is not known")
        if not proto.tensor_type.HasField("shape"):
            raise IRError(f"onnx.{name}: the rank of output {i} is not known")
        shape: list[Dim] = []
        for dim in proto.tensor_type.shape.dim:
            if dim.HasField("dim_value"):
                shape.append(dim.dim_value)
            elif dim.dim_param in sizes:
                shape.append(sizes[dim.dim_param])
            else:
                shape.append(Fresh(f"d{count}"))
                count += 1
        results.append(TensorType(DTYPE_OF_ELEMENT[proto.tensor_type.elem_type], tuple(shape)))
    use = _Inferred(tuple(results), tensors, known, dict(attributes))
    return refine(use) if refine else use.results


def _output_types(
    schema: OpSchema, node: NodeProto, inputs: dict[str, TypeProto], values: dict[str, TensorProto]
) -> dict[str, TypeProto]:
    """Output's name -> its type."""
    opsets = [helper.make_opsetid("", OPSET)]
    if schema.has_type_and_shape_inference_function or not schema.has_function:  # type: ignore[attr-defined]  # onnx's stub lacks it
        return shape_inference.infer_node_outputs(
            schema, node, inputs, values, opset_imports=opsets, ir_version=IR_VERSION
        )
    # What is defined by its body alone (MeanVarianceNormalization; before onnx 1.20 GreaterOrEqual too) has a type
    # in a model only.
    given = [helper.make_value_info(name, proto) for name, proto in inputs.items()]
    wanted = [helper.make_value_info(name, TypeProto()) for name in node.output]
    graph = helper.make_graph([node], schema.name, given, wanted, list(values.values()))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    return {output.name: output.type for output in inferred.graph.output}


def _tensor(name: str, type: Type | None) -> TensorType | None:
    if type is not None and not isinstance(type, TensorType):
        raise IRError(f"onnx.{name} takes tensors, not {type}")
    return type


def _static(type: TensorType) -> list[int]:
    return [d for d in type.shape if isinstance(d, int)]


def _split_length(tensors: Sequence[TensorType | None]) -> int | None:
    second = tensors[1] if len(tensors) > 1 else None
    return (
        second.shape[0]
        if second is not None and second.rank == 1 and isinstance(second.shape[0], int)
        else None
    )


def _type_proto(type: TensorType, sizes: dict[str, Dim]) -> TypeProto:
    shape: list[int | str] = []
    for dim in type.shape:
        if isinstance(dim, SymExpr):
            sizes[str(dim)] = dim
            shape.append(str(dim))
        else:
            shape.append(dim)
    return helper.make_tensor_type_proto(ELEMENT_TYPES[type.dtype], shape)


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


# onnx forgets every size of a result when it cannot tell one of them. These rules keep those that stay.


@dataclass(frozen=True)
class _Inferred:
    """A use of an operator and what onnx makes of it."""

    results: tuple[TensorType, ...]
    tensors: Sequence[TensorType | None]
    known: tuple[Known, ...]
    attributes: Mapping[str, Attribute]

    @property
    def source(self) -> TensorType:
        """The first operand, which each of these operators needs."""
        (source, *_) = self.tensors
        assert source is not None
        return source

    def elements(self, index: int) -> Known:
        """An operand's elements, None where there are none, or they are not constant."""
        return self.known[index] if index < len(self.known) else None


Refinement = Callable[[_Inferred], tuple[TensorType, ...]]


def _keep(result: TensorType, source: TensorType, changed: set[int]) -> TensorType:
    """The result with the source's sizes, where it does not know them, on all axes but the changed ones."""
    if result.rank != source.rank:
        return result
    shape = [
        r if axis in changed or isinstance(r, int) else s
        for axis, (r, s) in enumerate(zip(result.shape, source.shape, strict=True))
    ]
    return result.with_shape(*shape)


def _refine_slice(use: _Inferred) -> tuple[TensorType, ...]:
    source, starts = use.source, use.tensors[1]
    assert starts is not None
    axes: Any = use.elements(3)
    if len(use.tensors) <= 3 or use.tensors[3] is None:
        count = starts.shape[0]
        axes = range(count if isinstance(count, int) else source.rank)
    if axes is None:
        return use.results
    return (_keep(use.results[0], source, {axis % source.rank for axis in axes}),)


def _refine_topk(use: _Inferred) -> tuple[TensorType, ...]:
    axis = use.attributes.get("axis", -1)
    assert isinstance(axis, int)
    shape = list(use.source.shape)
    count = use.elements(1)
    shape[axis % len(shape)] = count[0] if count is not None and isinstance(count[0], int) else Fresh("k")
    return tuple(r.with_shape(*shape) for r in use.results)


def _refine_pad(use: _Inferred) -> tuple[TensorType, ...]:
    source, pads = use.source, use.elements(1)
    known: Any = use.elements(3)
    axes = range(source.rank) if known is None else known
    if pads is None:
        return (_keep(use.results[0], source, {axis % source.rank for axis in axes}),)
    half = len(pads) // 2
    return (
        _keep(
            use.results[0], source, {a % source.rank for i, a in enumerate(axes) if pads[i] or pads[half + i]}
        ),
    )


def _refine_tile(use: _Inferred) -> tuple[TensorType, ...]:
    source, repeats = use.source, use.elements(1)
    if repeats is None:
        return use.results
    return (_keep(use.results[0], source, {axis for axis, times in enumerate(repeats) if times != 1}),)


def _refine_reshape(use: _Inferred) -> tuple[TensorType, ...]:
    """The size that -1 stands for, where it is one that the source has, or a number."""
    source, entries = use.source, use.elements(1)
    if entries is None or -1 not in entries or use.attributes.get("allowzero"):
        return use.results
    shape: list[Dim] = list(use.results[0].shape)
    elements: Dim = 1
    for dim in source.shape:
        elements = elements * dim
    others: Dim = 1
    for axis, dim in enumerate(shape):
        if entries[axis] != -1:
            others = others * dim
    open_size = floor_div(elements, others) if others != 0 else None
    # No products: what stands for the size elsewhere may be named, or be written, in another way.
    simple = isinstance(open_size, int) or open_size in source.shape
    if open_size is not None and simple and open_size * others == elements:
        shape[entries.index(-1)] = open_size
    return (use.results[0].with_shape(*shape),)


_REFINEMENTS: dict[str, Refinement] = {
    "Pad": _refine_pad,
    "Reshape": _refine_reshape,
    "Slice": _refine_slice,
    "Tile": _refine_tile,
    "TopK": _refine_topk,
}
