"""The passes of the Caffe2 pipeline around the lowering itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from detc.ir import Builder, Graph, InputError, SymExpr, Value
from detc.ir.lazy import torch
from detc.passes import Context, Match, NoMatch, Pass, RewriteRule, apply_rules, summaries


@dataclass(frozen=True)
class FixBatch(Pass):
    """Fix the number of images. Caffe2's operators merge proposals of one image, so that a net is for so many.

    Before:
        input %data: f32[N,3,H,W]
        input %im_info: f32[N,3]
    After:
        input %data: f32[1,3,H,W]
        input %im_info: f32[1,3]
    """

    images: int = 1

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        if self.images < 1:
            raise InputError(f"a batch of {self.images} images")
        first = next((v.shape[0] for v in graph.inputs if v.name == "im_info"), None)
        known = first.as_symbol if isinstance(first, SymExpr) else None
        if known is None:
            return False
        with context.rewrite("the batch"):
            graph.substitute_sizes({known.name: self.images})
        return True


class NormalizeAsProduct(RewriteRule):
    """normalize(x, std=s)  ->  normalize(x, std=(1.0, ...)) * (1 / s)"""

    def pattern(self, p: Any, data: Any, im_info: Any) -> Any:
        return p.det.normalize(data, im_info, std=p.attribute("std", lambda std: set(std) != {1.0}))

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        ones = {**m.root.attributes, "std": (1.0,) * len(m.std)}
        shifted = b.det.normalize(m.data, m.im_info, **ones)
        inverse = torch.tensor(m.std, dtype=torch.float64).reciprocal().float().view(-1, 1, 1)
        return b.aten.mul.Tensor(shifted, b.constant(inverse))


@dataclass(frozen=True)
class SplitNormalize(Pass):
    """Take the division by the standard deviation out of det.normalize, so that a convolution can take it in.

    Before:
        %i: f32[N,3,H,W] = det.normalize(%data, %im_info, mean=(103.5, 116.3, 123.7), std=(57.4, 57.1, 58.4))
    After:
        %0: f32[N,3,H,W] = det.normalize(%data, %im_info, mean=(103.5, 116.3, 123.7), std=(1.0, 1.0, 1.0))
        %i: f32[N,3,H,W] = aten.mul.Tensor(%0, f32[3,1,1]{0.0174, 0.0175, 0.0171})
    """

    @property
    @override
    def rules(self) -> Mapping[str, str]:
        return summaries([NormalizeAsProduct()])

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        return apply_rules(graph, [NormalizeAsProduct()], context)


class DropCastOfClasses(RewriteRule):
    """%1 = caffe2.Cast(%classes: f32, to=INT64); %2 = caffe2.Cast(%1, to=FLOAT)  ->  %2 = %classes"""

    def pattern(self, p: Any, x: Any) -> Any:
        return p.caffe2.Cast(p.caffe2.Cast(x))

    @override
    def rewrite(self, b: Builder, m: Match) -> Value:
        source: Value = m.x
        if source.producer is None or source.producer.op.name != "caffe2.BoxWithNMSLimit":
            raise NoMatch("numbers that need not be whole")
        if m.root.result.dtype != source.dtype:
            raise NoMatch("the result is of another type than the source")
        return source


@dataclass(frozen=True)
class CleanUpCaffe2(Pass):
    """Drop casts to and fro that lowering each op by itself leaves behind.

    Before:
        %1: i64[detections] = caffe2.Cast(%class_nms, to=10)
        %2: f32[detections] = caffe2.Cast(%1, to=1)
        return class_nms=%2
    After:
        return class_nms=%class_nms
    """

    @property
    @override
    def rules(self) -> Mapping[str, str]:
        return summaries([DropCastOfClasses()])

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        return apply_rules(graph, [DropCastOfClasses()], context)
