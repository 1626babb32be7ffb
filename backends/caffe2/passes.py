"""The passes of the Caffe2 pipeline around the lowering itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from typing_extensions import override

from detc.ir import Attribute, Builder, Dim, Graph, InputError, IRError, SymExpr, Value
from detc.ir.types import substitute_type
from detc.passes import Context, Match, NoMatch, Pass, RewriteRule, apply_rules

OUTPUT_NAMES = {
    "boxes": "bbox_nms",
    "scores": "score_nms",
    "classes": "class_nms",
    "batch_index": "batch_index",
    "masks": "mask_fcn_probs",
}
"""What flattened instances are called -> what detectron2's exporter calls it, in its order."""


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
        sizes: dict[str, Dim] = {known.name: self.images}
        for value in graph.values():
            value.type = substitute_type(value.type, sizes)
        for node in graph:
            for name, attribute in node.attributes.items():
                node.attributes[name] = _substitute(attribute, sizes)
        return True


def _substitute(attribute: Attribute, sizes: dict[str, Dim]) -> Attribute:
    if isinstance(attribute, SymExpr):
        return attribute.substitute(sizes)
    if isinstance(attribute, tuple):
        return tuple(_substitute(item, sizes) for item in attribute)
    return attribute


@dataclass(frozen=True)
class Caffe2Outputs(Pass):
    """Give the outputs names and form that clients of detectron2's Caffe2 nets expect.

    Before:
        %m: f32[detections,1,28,28] = det.mask_inference(%logits, %classes)
        return boxes=%b, scores=%s, classes=%classes, batch_index=%i, masks=%m
    After:
        %c: f32[detections] = aten.to.dtype(%classes, dtype=dtype.f32)
        %m: f32[detections,80,28,28] = aten.sigmoid(%logits)
        return bbox_nms=%b, score_nms=%s, class_nms=%c, mask_fcn_probs=%m

    Masks are given for all classes, the class to be picked by the client. `batch_index` is an output only where there
    are several images.
    """

    changes_meaning: ClassVar[bool] = True

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        outputs = dict(graph.outputs)
        if "classes" not in outputs or set(outputs) <= set(OUTPUT_NAMES.values()):
            return False
        single = next((v.shape[0] == 1 for v in graph.inputs if v.name == "im_info"), False)
        named: dict[str, Value] = {}
        for old, new in OUTPUT_NAMES.items():
            if old not in outputs or (old == "batch_index" and single):
                outputs.pop(old, None)
                continue
            value = outputs.pop(old)
            if old == "classes":
                value = self._after(graph, value, context).aten.to.dtype(value, dtype=torch.float32)
            elif old == "masks":
                value = self._all_classes(graph, value, context)
            named[new] = value
        graph.set_outputs({**named, **outputs})
        return True

    def _after(self, graph: Graph, value: Value, context: Context) -> Builder:
        if value.producer is None:
            raise IRError(f"{value!r} is made by no op")
        return Builder(
            graph, before=value.producer.next, source=value.producer.source, created_by=context.pass_name
        )

    def _all_classes(self, graph: Graph, masks: Value, context: Context) -> Value:
        node = masks.producer
        if node is None or node.op.name != "det.mask_inference":
            raise IRError("the masks are not made by det.mask_inference")
        made: Value = context.builder(graph, node).aten.sigmoid(node.operand(0))
        return made


@dataclass(frozen=True)
class SplitNormalize(Pass):
    """Take the division by the standard deviation out of det.normalize, so that a convolution can take it in.

    Before:
        %i: f32[N,3,H,W] = det.normalize(%data, %im_info, mean=(103.5, 116.3, 123.7), std=(57.4, 57.1, 58.4))
    After:
        %0: f32[N,3,H,W] = det.normalize(%data, %im_info, mean=(103.5, 116.3, 123.7), std=(1.0, 1.0, 1.0))
        %i: f32[N,3,H,W] = aten.mul.Tensor(%0, f32[3,1,1]{0.0174, 0.0175, 0.0171})
    """

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        changed = False
        for node in graph:
            std = node.attributes.get("std")
            if node.op.name != "det.normalize" or not isinstance(std, tuple) or set(std) == {1.0}:
                continue
            b = context.builder(graph, node)
            ones = {**node.attributes, "std": (1.0,) * len(std)}
            shifted = b.call(node.op, *node.operands, **ones)
            inverse = torch.tensor(std, dtype=torch.float64).reciprocal().float().view(-1, 1, 1)
            scaled = b.aten.mul.Tensor(shifted, b.constant(inverse))
            graph.replace_uses(node.result, scaled)
            graph.erase(node)
            changed = True
        return changed


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

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        return apply_rules(graph, [DropCastOfClasses()], context)
