"""Weights and feature maps in half precision; boxes stay in float32."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override

from detc.ir import Builder, Constant, Graph, Node, TensorType, Value, infer_types, map_operands
from detc.ir.lazy import torch
from detc.passes.core.base import Context, Pass

DTYPES = ("float32", "float16", "bfloat16")
"""What weights can be stored as."""
PRODUCTS = frozenset(
    f"aten.{name}"
    for name in (
        *("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose2d.input", "linear"),
        *("matmul", "mm", "bmm", "addmm", "baddbmm", "scaled_dot_product_attention"),
    )
)
"""The ops that half precision is for: they begin it."""
PRECISE = frozenset(
    {"softmax", "_softmax", "log_softmax", "exp", "log", "pow", "sum", "norm", "linalg_vector_norm", "var"}
)
"""Ops of aten that are computed in float32 all the same, as torch's autocast has it; so are all that are not aten's."""


@dataclass(frozen=True)
class HalfPrecision(Pass):
    """Compute convolutions and matrix products, and what lies between them, in half precision.

    What det ops take is cast to float32 before, so that boxes, scores and thresholds keep their precision; so are
    regions' features, which torch pools in one type with the boxes. The outputs keep their types.

    Before:
        %1: f32[N,8,H,W] = aten.conv2d(%x, @w:f32[8,3,3,3])
    After:
        %1: f16[N,3,H,W] = aten._to_copy(%x, dtype=dtype.f16)
        %2: f16[N,8,H,W] = aten.conv2d(%1, @w:f16[8,3,3,3])
    """

    changes_meaning = True
    dtype: str = "float16"

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        return _Halver(graph, context, getattr(torch, self.dtype)).run()


class _Halver:
    def __init__(self, graph: Graph, context: Context, half: torch.dtype) -> None:
        self._graph, self._context, self._half = graph, context, half
        self._casts: dict[tuple[Value, torch.dtype], Value] = {}
        self._halved: set[Value] = set()

    def run(self) -> bool:
        changed = False
        for node in self._graph:
            wanted = self._wanted(node)
            if self._context.is_spent:
                # Where a limit stops the pass, the rest goes on in float32.
                if not self._halved.isdisjoint(node.operand_values):
                    self._cast_operands(node, torch.float32)
            elif wanted is not None:
                with self._context.rewrite(node.op.name):
                    self._retype(node, wanted)
                changed = True
        self._cast_outputs()
        self._keep_names()
        return self._context.prune_weights(self._graph) or changed

    def _cast_outputs(self) -> None:
        if not self._halved:
            return
        source = self._graph.nodes[-1].source
        builder = Builder(self._graph, source=source, created_by=self._context.pass_name)
        outputs = dict(self._graph.outputs)
        for name, value in outputs.items():
            if value in self._halved:
                outputs[name] = builder.aten._to_copy(value, dtype=torch.float32)
        self._graph.set_outputs(outputs)

    def _keep_names(self) -> None:
        """Give weights in half precision the names of those that they have replaced everywhere."""
        weights = self._graph.weights
        for name in self._graph.unused_weights:
            half = self._casts.get((weights[name], self._half))
            if isinstance(half, Constant):
                del weights[half.name]
                half.name = name
                weights[name] = half

    def _wanted(self, node: Node) -> torch.dtype | None:
        """The type in which a node computes, None where nothing about it changes."""
        name = node.op.name
        if name in PRODUCTS:
            return self._half
        given = [v for v in node.operand_values if not isinstance(v, Constant)]
        if not any(v.dtype == self._half for v in given):
            return None
        precise = node.op.dialect != "aten" or name.split(".")[1] in PRECISE
        if precise or any(v.dtype == torch.float32 for v in given):
            return torch.float32
        return self._half

    def _retype(self, node: Node, dtype: torch.dtype) -> None:
        self._cast_operands(node, dtype)
        if node.op.dialect == "aten":
            inferred = infer_types(node.op, node.operands, node.attributes)
            for result, type in zip(node.results, inferred, strict=True):
                if isinstance(type, TensorType):
                    result.type = TensorType(type.dtype, result.shape)
                    if type.dtype == self._half:
                        self._halved.add(result)

    def _cast_operands(self, node: Node, dtype: torch.dtype) -> None:
        node.set_operands(map_operands(node.operands, lambda value: self._cast(value, dtype, node)))

    def _cast(self, value: Value, dtype: torch.dtype, node: Node) -> Value:
        if value.dtype not in (torch.float32, self._half) or value.dtype == dtype:
            return value
        key = (value, dtype)
        if key not in self._casts:
            self._casts[key] = self._converted(value, dtype, node)
        return self._casts[key]

    def _converted(self, value: Value, dtype: torch.dtype, node: Node) -> Value:
        if not isinstance(value, Constant):
            return self._context.builder(self._graph, node).aten._to_copy(value, dtype=dtype)
        data = value.data.to(dtype)
        if not value.name:
            return Constant(data)
        return self._graph.add_weight(self._graph.fresh_weight_name(value.name), data)
