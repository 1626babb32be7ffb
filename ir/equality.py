"""Structural equality of graphs: the same nodes on the same wires, whatever the values are called."""

from __future__ import annotations

from collections.abc import Hashable

from .graph import Graph
from .lazy import torch
from .node import Attribute, Constant, Node, Operand, Value


def difference(left: Graph, right: Graph, *, origins: bool = True) -> str | None:
    """The first thing in which two graphs differ, None if they are structurally equal.

    `origins` also compares each node's source and creator. Weights of a parsed text without data compare by
    type.
    """
    for attribute in ("name", "level", "metadata"):
        if getattr(left, attribute) != getattr(right, attribute):
            return f"{attribute}: {getattr(left, attribute)!r} and {getattr(right, attribute)!r}"
    if [(v.name, v.type) for v in left.inputs] != [(v.name, v.type) for v in right.inputs]:
        return "the inputs differ"
    if len(left) != len(right):
        return f"{len(left)} nodes and {len(right)} nodes"
    twins: dict[Value, Value] = dict(zip(left.inputs, right.inputs, strict=True))
    for mine, theirs in zip(left, right, strict=True):
        problem = _node_difference(mine, theirs, twins, origins)
        if problem:
            return f"{mine.op.name} (from {mine.source or '?'}): {problem}"
        twins.update(zip(mine.results, theirs.results, strict=True))
    if list(left.outputs) != list(right.outputs):
        return f"outputs {list(left.outputs)} and {list(right.outputs)}"
    for name in left.outputs:
        if not _same_value(left.outputs[name], right.outputs[name], twins):
            return f"the output {name!r} comes from another value"
    return None


def attribute_key(attribute: Attribute) -> Hashable:
    """A key that tells attributes apart: 1, 1.0 and True differ, so do 0.0 and -0.0, and nan equals nan."""
    if isinstance(attribute, tuple):
        return tuple(map(attribute_key, attribute))
    if isinstance(attribute, float):
        return float, attribute.hex()
    return type(attribute), attribute


def attribute_keys(node: Node) -> dict[str, Hashable]:
    """The key of each of a node's attributes."""
    return {name: attribute_key(value) for name, value in node.attributes.items()}


def _node_difference(mine: Node, theirs: Node, twins: dict[Value, Value], origins: bool) -> str | None:
    if mine.op is not theirs.op:
        return f"the op is {theirs.op.name}"
    if attribute_keys(mine) != attribute_keys(theirs):
        return f"attributes {mine.attributes} and {theirs.attributes}"
    if [r.type for r in mine.results] != [r.type for r in theirs.results]:
        return "the results' types differ"
    if len(mine.operands) != len(theirs.operands):
        return f"{len(mine.operands)} operands and {len(theirs.operands)}"
    for i, (a, b) in enumerate(zip(mine.operands, theirs.operands, strict=True)):
        if not _same_operand(a, b, twins):
            return f"operand {i} differs"
    if origins and (mine.source, mine.created_by or "capture") != (
        theirs.source,
        theirs.created_by or "capture",
    ):
        return f"it comes from {theirs.source!r} by {theirs.created_by!r}"
    return None


def _same_operand(a: Operand, b: Operand, twins: dict[Value, Value]) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(_same_operand(x, y, twins) for x, y in zip(a, b, strict=True))
    if isinstance(a, Value) and isinstance(b, Value):
        return _same_value(a, b, twins)
    return a is None and b is None


def _same_value(a: Value, b: Value, twins: dict[Value, Value]) -> bool:
    if isinstance(a, Constant) and isinstance(b, Constant):
        if a.name != b.name or a.type != b.type:
            return False
        if a.data is b.data or a.data.is_meta or b.data.is_meta:
            return True
        return (
            torch.equal(torch.nan_to_num(a.data, nan=1234.5), torch.nan_to_num(b.data, nan=1234.5))
            if (a.data.is_floating_point())
            else torch.equal(a.data, b.data)
        )
    return twins.get(a) is b
