"""Lowering to ONNX: aten, torchvision and det ops become ai.onnx operators of one opset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from detc.backends.onnx import dialect as _dialect  # noqa: F401  (registers onnx.*)
from detc.ir import Graph, Node
from detc.passes.core.base import Context
from detc.passes.rewrite.conversion import Conversion, LoweringRule, Sizes

from . import aten, det
from .aten import DIRECT, LOWERED, UNSUPPORTED
from .builder import OnnxBuilder
from .rules import RuleTable, arguments

__all__ = [
    "DIRECT",
    "LOWERED",
    "TABLE",
    "UNSUPPORTED",
    "LowerToOnnx",
    "OnnxBuilder",
    "RuleTable",
    "arguments",
]

TABLE: dict[str, LoweringRule] = {**aten.TABLE, **det.TABLE}


@dataclass(frozen=True)
class LowerToOnnx(Conversion):
    """Replace every op by ai.onnx operators.

    Before:
        %1: f32[N,8,H,W] = aten.conv2d(%x, @w:f32[8,3,3,3], padding=(1, 1))
        %2: f32[N,8*H*W] = aten.flatten.using_ints(%1, start_dim=1)
    After:
        %1: f32[N,8,H,W] = onnx.Conv(%x, @w:f32[8,3,3,3], pads=(1, 1, 1, 1))
        %2: f32[N,8*H*W] = onnx.Reshape(%1, i64[2]{0, -1})
    """

    target: ClassVar[str] = "onnx"
    level: ClassVar[str] = "onnx"

    @property
    @override
    def table(self) -> Mapping[str, LoweringRule]:
        return TABLE

    @override
    def make_builder(self, graph: Graph, node: Node, sizes: Sizes, context: Context) -> OnnxBuilder:
        return OnnxBuilder(graph, node, sizes, created_by=context.pass_name, table=TABLE)
