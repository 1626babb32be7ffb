"""Bodies of `onnx.*` ops: the one node in onnxruntime, so that what will run a graph checks it too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper
from onnx.defs import OpSchema
from torch import Tensor

from .protos import attribute_protos
from .schemas import ELEMENT_TYPES, IR_VERSION, OPSET, Frozen, flatten, output_count

Signature: TypeAlias = tuple["tuple[torch.dtype, tuple[int | None, ...]] | None", ...]
"""Element type and shape of each input, None where one is left out and for sizes that may differ."""

_WANTS_LENGTHS = {"Resize"}
"""Ops for which onnxruntime must know how long their vectors of sizes and scales are."""

_HEAVY = {
    "Conv",
    "ConvTranspose",
    "DeformConv",
    "Einsum",
    "Gemm",
    "GridSample",
    "MatMul",
    "Resize",
    "RoiAlign",
}
"""Ops that are worth a thread pool; each session has one of its own."""


def make_body(schema: OpSchema) -> Callable[..., Any]:
    """The op's reference semantics: a function of torch tensors (CPU) and attributes."""

    def body(*operands: Any, **attributes: Any) -> Any:
        tensors: list[Tensor | None] = flatten(schema, operands)
        results = _run(schema, tensors, tuple(attributes.items()))
        return results[0] if len(results) == 1 else tuple(results)

    return body


def _run(schema: OpSchema, tensors: Sequence[Tensor | None], attributes: Frozen) -> list[Tensor]:
    signature = tuple(None if t is None else (t.dtype, _declared_shape(schema.name, t)) for t in tensors)
    second = tensors[1] if len(tensors) > 1 else None
    count = output_count(schema, dict(attributes), None if second is None else second.numel())
    session = _session(schema.name, attributes, signature, count)
    feed = {f"i{i}": t.detach().contiguous().numpy() for i, t in enumerate(tensors) if t is not None}
    arrays = session.run(None, feed)
    return [torch.from_numpy(np.asarray(array)) for array in arrays]


def _declared_shape(name: str, tensor: Tensor) -> tuple[int | None, ...]:
    return (len(tensor),) if name in _WANTS_LENGTHS and tensor.ndim == 1 else (None,) * tensor.ndim


@lru_cache(maxsize=2048)
def _session(name: str, attributes: Frozen, signature: Signature, count: int) -> onnxruntime.InferenceSession:
    schema = onnx.defs.get_schema(name, OPSET, "")
    inputs = ["" if s is None else f"i{i}" for i, s in enumerate(signature)]
    outputs = [f"o{i}" for i in range(count)]
    node = onnx.NodeProto(op_type=name, input=inputs, output=outputs)
    node.attribute.extend(attribute_protos(schema, dict(attributes)))
    graph = helper.make_graph(
        [node],
        name,
        [
            helper.make_tensor_value_info(f"i{i}", ELEMENT_TYPES[s[0]], s[1])
            for i, s in enumerate(signature)
            if s is not None
        ],
        [onnx.ValueInfoProto(name=output) for output in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = min(torch.get_num_threads(), 2) if name in _HEAVY else 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
