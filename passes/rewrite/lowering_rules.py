"""Writing lowering rules as typed functions of an operator's arguments."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

from detc.ir import Builder, IRError, Node, Value, torch_parts
from detc.ir.aten import call_arguments, overload_of
from detc.ir.dialects.box_forms import ROTATED

from ..core.base import NoMatch
from .conversion import LoweringRule

F = TypeVar("F", bound=Callable[..., Any])


class RuleTable(dict[str, LoweringRule]):
    """Op name -> lowering rule, filled by decorating functions.

        @TABLE.rule("aten.leaky_relu")
        def leaky_relu(b: OnnxBuilder, self: Value, negative_slope: float) -> Value:
            return b.onnx.LeakyRelu(self, alpha=negative_slope)

    The function gets the builder and the operator's arguments by the names of torch's schema: values, lists of
    values, numbers, sizes, None. Defaults are filled in.
    """

    def rule(self, *names: str) -> Callable[[F], F]:
        """The decorated function lowers these ops."""

        def declare(function: F) -> F:
            def lower(builder: Builder, node: Node) -> Any:
                return function(builder, **arguments(node))

            for name in names:
                if name in self:
                    raise IRError(f"{name} has a rule already")
                self[name] = lower
            return function

        return declare


@lru_cache(maxsize=1024)
def _argument_names(name: str) -> tuple[torch_parts.OpOverload, tuple[str, ...]]:
    overload = overload_of(name)
    if overload is None:
        raise IRError(f"{name} is no operator of torch")
    return overload, tuple(a.name for a in torch_parts.schema(overload).arguments if not a.kwarg_only)


def arguments(node: Node) -> dict[str, Any]:
    """The node's operands and attributes by the names of torch's schema, defaults included."""
    overload, names = _argument_names(node.op.name)
    positional, keywords = call_arguments(overload, node.operands, node.attributes)
    return {**dict(zip(names, positional, strict=True)), **keywords}


def refuse(reason: str) -> LoweringRule:
    """The rule of an op that cannot be lowered, and why."""

    def lower(builder: Builder, node: Node) -> Value:
        raise NoMatch(reason)

    return lower


def by_form(upright: LoweringRule, rotated: LoweringRule, boxes: int | None = None) -> LoweringRule:
    """The rule of a det op that is lowered differently for upright and for rotated boxes.

    `boxes` is the operand that has the form, None where the first result has it.
    """

    def lower(builder: Builder, node: Node) -> Any:
        first = node.results[0] if boxes is None else node.operand(boxes)
        return (rotated if first.shape[-1] == ROTATED.columns else upright)(builder, node)

    return lower
