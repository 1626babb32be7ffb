"""Linear maps and attention in aten."""

from __future__ import annotations

import math
from typing import Any

import torch

from detc.ir import Value
from detc.passes.core.base import NoMatch

from .builder import OnnxBuilder
from .pointwise import select
from .rules import RuleTable, require_unused

TABLE = RuleTable()


def _untransposed(value: Value) -> Value | None:
    """The matrix of which the value is the transpose, if it is one."""
    node = value.producer
    if node is not None and node.op.name == "onnx.Transpose" and node.attributes.get("perm") == (1, 0):
        return node.operand(0)
    return None


def _gemm(b: OnnxBuilder, left: Value, right: Value, bias: Value | None, **attributes: Any) -> Value:
    plain = _untransposed(right)
    if plain is not None:
        right = plain
        attributes["transB"] = 1
    return b.onnx.Gemm(left, right, bias, **attributes)


@TABLE.rule("aten.linear")
def linear(b: OnnxBuilder, input: Value, weight: Value, bias: Value | None) -> Value:
    if input.rank == 2 and weight.rank == 2:
        return b.onnx.Gemm(input, weight, bias, transB=1)
    product = b.onnx.MatMul(input, b.transpose(weight, [1, 0]) if weight.rank == 2 else weight)
    return product if bias is None else b.onnx.Add(product, bias)


@TABLE.rule("aten.addmm")
def addmm(b: OnnxBuilder, self: Value, mat1: Value, mat2: Value, beta: Any, alpha: Any) -> Value:
    scales = {name: float(v) for name, v in (("alpha", alpha), ("beta", beta)) if v != 1}
    return _gemm(b, mat1, mat2, self, **scales)


@TABLE.rule("aten.mm")
def mm(b: OnnxBuilder, self: Value, mat2: Value) -> Value:
    if _untransposed(mat2) is not None:
        return _gemm(b, self, mat2, None)
    return b.onnx.MatMul(self, mat2)


@TABLE.rule("aten.baddbmm")
def baddbmm(b: OnnxBuilder, self: Value, batch1: Value, batch2: Value, beta: Any, alpha: Any) -> Value:
    product = b.onnx.MatMul(batch1, batch2)
    if alpha != 1:
        product = b.onnx.Mul(product, b.number(alpha, product.dtype))
    if beta != 1:
        self = b.onnx.Mul(self, b.number(beta, self.dtype))
    return b.onnx.Add(product, self)


def _attend(
    b: OnnxBuilder, query: Value, key: Value, value: Value, mask: Value | None, scale: float | None
) -> Value:
    if scale is None:
        if not isinstance(query.shape[-1], int):
            raise NoMatch("attention over a size that is not known")
        scale = query.shape[-1] ** -0.5
    swapped = [*range(key.rank - 2), key.rank - 1, key.rank - 2]
    scores = b.onnx.MatMul(b.onnx.Mul(query, b.scalar(scale, query.dtype)), b.transpose(key, swapped))
    if mask is not None and mask.dtype is torch.bool:
        scores = select(b, mask, scores, b.scalar(-math.inf, query.dtype))
    elif mask is not None:
        scores = b.onnx.Add(scores, mask)
    return b.onnx.MatMul(b.onnx.Softmax(scores, axis=-1), value)


@TABLE.rule("aten.scaled_dot_product_attention")
def attention(
    b: OnnxBuilder,
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value | None,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool = False,
) -> Value:
    if dropout_p or is_causal or enable_gqa:
        raise NoMatch("attention with dropout, a causal mask or grouped queries")
    return _attend(b, query, key, value, attn_mask, scale)


@TABLE.rule("aten._scaled_dot_product_flash_attention_for_cpu")
def flash_attention(
    b: OnnxBuilder,
    query: Value,
    key: Value,
    value: Value,
    dropout_p: float,
    is_causal: bool,
    attn_mask: Value | None,
    scale: float | None,
) -> list[Value]:
    require_unused(b, 1, "the statistics of an attention")
    if dropout_p or is_causal:
        raise NoMatch("attention with dropout or a causal mask")
    statistics = b.constant(torch.empty((0,) * b.lowered.results[1].rank, dtype=b.lowered.results[1].dtype))
    return [_attend(b, query, key, value, attn_mask, scale), statistics]
