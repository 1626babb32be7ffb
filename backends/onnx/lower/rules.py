"""Writing lowering rules as typed functions of an operator's arguments."""

from __future__ import annotations

from typing import Any

from detc.ir import Builder, Node
from detc.passes.core.base import NoMatch
from detc.passes.rewrite.conversion import LoweringRule
from detc.passes.rewrite.lowering_rules import RuleTable, arguments, refuse

from .builder import OnnxBuilder

__all__ = ["RuleTable", "arguments", "axis_of", "direct", "refuse", "require_unused"]


def direct(op_type: str) -> LoweringRule:
    """The rule of an op that ONNX has with the same operands."""

    def lower(builder: Builder, node: Node) -> Any:
        return builder.call(f"onnx.{op_type}", *node.operands)

    return lower


def axis_of(dim: int, rank: int) -> int:
    """The axis that torch's `dim`, which may be negative, means."""
    return dim % rank if rank else 0


def require_unused(b: OnnxBuilder, index: int, what: str) -> None:
    """Refuse when the lowered node's result at `index` is used."""
    if b.lowered.results[index].is_used:
        raise NoMatch(f"{what} have no counterpart in ONNX")
