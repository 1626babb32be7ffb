"""Clean-up of graphs of the level `onnx`: what lowering op by op leaves behind and no general pass can know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from typing_extensions import override

from detc.ir import Builder, Constant, Graph, Node, Value
from detc.passes.base import Context, NoMatch, Pass, erase_if_unused

Rewrite = Callable[[Builder, Node], Value]
"""A value that may stand for the node's result. Raises NoMatch(why) to leave the node alone."""

_EXACT_INTO: dict[torch.dtype, set[torch.dtype]] = {
    torch.bool: {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float32, torch.float64},
    torch.uint8: {torch.int16, torch.int32, torch.int64, torch.float32, torch.float64},
    torch.int8: {torch.int16, torch.int32, torch.int64, torch.float32, torch.float64},
    torch.int16: {torch.int32, torch.int64, torch.float32, torch.float64},
    torch.int32: {torch.int64, torch.float64},
    torch.float16: {torch.float32, torch.float64},
    torch.float32: {torch.float64},
}
"""Element type -> those that hold each of its numbers exactly."""


@dataclass(frozen=True)
class CleanUpOnnx(Pass):
    """Take out ONNX nodes that do nothing, and join those that undo or continue each other.

    Before:
        %1: f32[N,H,W,8] = onnx.Transpose(%x, perm=(0, 2, 3, 1))
        %2: f32[N,8,H,W] = onnx.Transpose(%1, perm=(0, 3, 1, 2))
        %3: f32[N,8*H*W] = onnx.Reshape(%2, i64[2]{0, -1})
        %4: i64[1] = onnx.Shape(%w, start=0, end=1)
    After:
        %3: f32[N,8*H*W] = onnx.Reshape(%x, i64[2]{0, -1})
        and i64[1]{8} where %4 was used
    """

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        changed = False
        for node in graph:
            for name, rewrite in RULES.get(node.op.name, ()):
                count = context.count(name)
                count.tried += 1
                try:
                    new = rewrite(context.builder(graph, node), node)
                except NoMatch as refusal:
                    count.refused[refusal.reason] += 1
                    continue
                count.matched += 1
                changed = True
                if new.producer is not None and not new.name:
                    new.name = node.result.name
                graph.replace_uses(node.result, new)
                _erase_chain(graph, node)
                break
        if changed:
            graph.prune_weights()
        return changed


def _erase_chain(graph: Graph, node: Node) -> None:
    """Erase a node that is not used any more, and what only it used."""
    producers = [value.producer for value in node.operand_values if value.producer is not None]
    if erase_if_unused(graph, node):
        for producer in producers:
            if producer.graph is graph:
                _erase_chain(graph, producer)


def _producer(node: Node, op_name: str) -> Node:
    producer = node.operand(0).producer
    if producer is None or producer.op.name != op_name:
        raise NoMatch(f"its operand comes from no {op_name}")
    return producer


def _vector(value: Value | None) -> list[Any]:
    if not isinstance(value, Constant) or not value.is_literal:
        raise NoMatch("a vector that is not known")
    return list(value.data.reshape(-1).tolist())


def _perm(node: Node) -> Sequence[int]:
    perm = node.attributes.get("perm")
    return perm if isinstance(perm, tuple) else tuple(reversed(range(node.operand(0).rank)))  # type: ignore[return-value]


def drop_identity(b: Builder, node: Node) -> Value:
    """Identity(x) -> x"""
    if b.graph.is_output(node.result) and node.operand(0).producer is None:
        raise NoMatch("an output that is an input or a constant")
    return node.operand(0)


def drop_cast(b: Builder, node: Node) -> Value:
    """Cast(x) -> x where x is of that element type already"""
    if node.operand(0).dtype != node.result.dtype:
        raise NoMatch("it changes the element type")
    return node.operand(0)


def join_casts(b: Builder, node: Node) -> Value:
    """Cast(Cast(x)) -> Cast(x) where the first loses nothing"""
    first = _producer(node, "onnx.Cast")
    source, between, target = first.operand(0), first.result.dtype, node.result.dtype
    if between not in _EXACT_INTO.get(source.dtype, set()):
        raise NoMatch("the first cast may lose something")
    if source.dtype == target:
        return source
    made: Value = b.onnx.Cast(source, to=target)
    made.type = node.result.type
    return made


def drop_transpose(b: Builder, node: Node) -> Value:
    """Transpose(x) -> x where every axis stays"""
    if list(_perm(node)) != list(range(node.operand(0).rank)):
        raise NoMatch("it moves an axis")
    return node.operand(0)


def join_transposes(b: Builder, node: Node) -> Value:
    """Transpose(Transpose(x)) -> Transpose(x), or x"""
    first = _producer(node, "onnx.Transpose")
    inner, outer = _perm(first), _perm(node)
    joined = [inner[axis] for axis in outer]
    if joined == list(range(len(joined))):
        return first.operand(0)
    made: Value = b.onnx.Transpose(first.operand(0), perm=joined)
    made.type = node.result.type
    return made


def drop_reshape(b: Builder, node: Node) -> Value:
    """Reshape(x) -> x where the shape stays"""
    if node.operand(0).type != node.result.type:
        raise NoMatch("it changes the shape")
    return node.operand(0)


def join_reshapes(b: Builder, node: Node) -> Value:
    """Reshape(Reshape(x, a), b) -> Reshape(x, b), for Flatten, Squeeze and Unsqueeze as the first too"""
    first = node.operand(0).producer
    if first is None or first.op.name not in _RESHAPING:
        raise NoMatch("its operand comes from no reshape")
    source, between = first.operand(0), first.result
    if node.attributes.get("allowzero"):
        raise NoMatch("a shape with a size of zero")
    shape = node.operand(1)
    if isinstance(shape, Constant):
        for axis, entry in enumerate(_vector(shape)):
            # A 0 copies the size of the tensor in between.
            if entry == 0 and source.shape[axis : axis + 1] != between.shape[axis : axis + 1]:
                raise NoMatch("it copies a size that the first reshape made")
    elif not _makes_no_zero(shape):
        raise NoMatch("a computed shape that may copy sizes")
    made: Value = b.onnx.Reshape(source, shape)
    made.type = node.result.type
    return made


_RESHAPING = {"onnx.Reshape", "onnx.Flatten", "onnx.Squeeze", "onnx.Unsqueeze"}


def _makes_no_zero(shape: Value) -> bool:
    """Whether a computed shape surely holds no 0 that stands for copying."""
    producer = shape.producer
    if producer is None or producer.op.name != "onnx.Concat":
        return False
    parts = [v for v in producer.operand_list(0) if isinstance(v, Constant)]
    return all(part.is_literal and 0 not in part.data.tolist() for part in parts)


def undo_unsqueeze(b: Builder, node: Node) -> Value:
    """Squeeze(Unsqueeze(x, axes), axes) -> x"""
    first = _producer(node, "onnx.Unsqueeze")
    if sorted(_vector(node.operand_or_none(1))) != sorted(_vector(first.operand(1))):
        raise NoMatch("it takes other axes away")
    return first.operand(0)


def undo_squeeze(b: Builder, node: Node) -> Value:
    """Unsqueeze(Squeeze(x, axes), axes) -> x"""
    first = _producer(node, "onnx.Squeeze")
    if sorted(_vector(node.operand(1))) != sorted(_vector(first.operand_or_none(1))):
        raise NoMatch("it adds other axes")
    return first.operand(0)


def fold_shape(b: Builder, node: Node) -> Value:
    """Shape(x) -> a literal, where the sizes are numbers"""
    rank = node.operand(0).rank
    start, end = node.attributes.get("start") or 0, node.attributes.get("end")
    sizes = node.operand(0).shape[slice(start, rank if end is None else end)]  # type: ignore[misc]
    if not all(isinstance(size, int) for size in sizes):
        raise NoMatch("a size that is not known")
    return b.constant(torch.tensor(sizes, dtype=torch.int64))


def read_size_directly(b: Builder, node: Node) -> Value:
    """Gather(Shape(x), [i]) -> Shape(x, start=i, end=i+1)"""
    shape = _producer(node, "onnx.Shape")
    if shape.attributes.get("start") or shape.attributes.get("end") is not None or node.operand(1).rank != 1:
        raise NoMatch("no single size of a whole shape")
    (axis,) = entries if len(entries := _vector(node.operand(1))) == 1 else [None]
    if axis is None:
        raise NoMatch("several sizes")
    axis %= shape.operand(0).rank
    made: Value = b.onnx.Shape(shape.operand(0), start=axis, end=axis + 1)
    return made


def drop_expand(b: Builder, node: Node) -> Value:
    """Expand(x) -> x where the shape stays"""
    if node.operand(0).type != node.result.type:
        raise NoMatch("it changes the shape")
    return node.operand(0)


def single_concat(b: Builder, node: Node) -> Value:
    """Concat([x]) -> x"""
    values = node.operand_list(0)
    if len(values) != 1:
        raise NoMatch("several operands")
    return values[0]


RULES: dict[str, tuple[tuple[str, Rewrite], ...]] = {
    "onnx.Identity": (("drop-identity", drop_identity),),
    "onnx.Cast": (("drop-cast", drop_cast), ("join-casts", join_casts)),
    "onnx.Transpose": (("drop-transpose", drop_transpose), ("join-transposes", join_transposes)),
    "onnx.Reshape": (("drop-reshape", drop_reshape), ("join-reshapes", join_reshapes)),
    "onnx.Squeeze": (("undo-unsqueeze", undo_unsqueeze),),
    "onnx.Unsqueeze": (("undo-squeeze", undo_squeeze),),
    "onnx.Shape": (("fold-shape", fold_shape),),
    "onnx.Gather": (("read-size-directly", read_size_directly),),
    "onnx.Expand": (("drop-expand", drop_expand),),
    "onnx.Concat": (("single-concat", single_concat),),
}
"""Op -> the rewrites that are tried on it, in order."""
