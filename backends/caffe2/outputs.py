"""The passes that give a net the outputs that clients of detectron2's Caffe2 nets expect."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from detc.ir import Builder, Constant, Graph, IRError, Node, UnsupportedError, Value
from detc.ir.lazy import torch
from detc.passes import Context, Pass
from detc.passes.core.base import integer, number

OUTPUT_NAMES = {
    "boxes": "bbox_nms",
    "scores": "score_nms",
    "classes": "class_nms",
    "batch_index": "batch_index",
    "masks": "mask_fcn_probs",
    "keypoints": "kps_score",
}
"""What flattened instances are called -> what detectron2's exporter calls it, in its order."""


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

    Masks are given for all classes, the class to be picked by the client, and keypoints as heatmaps (`kps_score`).
    `batch_index` is an output only where there are several images.

    Errors:
        UnsupportedError: the graph takes more than images, such as proposals: clients feed `data` and `im_info`.
    """

    changes_meaning = True

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        outputs = dict(graph.outputs)
        if "classes" not in outputs or set(outputs) <= set(OUTPUT_NAMES.values()):
            return False
        more = [value.name for value in graph.inputs if value.name not in ("data", "im_info")]
        if more:
            raise UnsupportedError(
                f"Caffe2's clients feed data and im_info, and the model takes {', '.join(more)} too"
            )
        single = next((v.shape[0] == 1 for v in graph.inputs if v.name == "im_info"), False)
        named: dict[str, Value] = {}
        for old, new in OUTPUT_NAMES.items():
            if old not in outputs:
                continue
            with context.rewrite(f"the output {old}"):
                value = outputs.pop(old)
                if old == "classes":
                    value = self._after(graph, value, context).aten.to.dtype(value, dtype=torch.float32)
                elif old == "masks":
                    value = self._all_classes(graph, value, context)
                elif old == "keypoints":
                    value = _producer(value, "det.keypoint_inference", "keypoints").operand(0)
                if old != "batch_index" or not single:
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
        if masks.producer is not None and masks.producer.op.name == "aten.sigmoid" and masks.shape[1] == 1:
            # Of one class already, as PointRend's.
            return masks
        node = _producer(masks, "det.mask_inference", "masks")
        return context.builder(graph, node).aten.sigmoid(node.operand(0))


@dataclass(frozen=True)
class FindKeypoints(Pass):
    """Let the net find the keypoints, by Caffe2's own approximation, where detectron2's config asks for that.

    Before:
        return bbox_nms=%b, score_nms=%s, class_nms=%c, kps_score=%h
    After:
        %k: f32[detections,4,17] = caffe2.HeatmapMaxKeypoint(%h, %b, should_output_softmax=True)
        return bbox_nms=%b, score_nms=%s, class_nms=%c, keypoints_out=%k
    """

    changes_meaning = True

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        outputs = dict(graph.outputs)
        if graph.level != "caffe2" or not {"kps_score", "bbox_nms"} <= set(outputs):
            return False
        b = Builder(graph, source="roi_heads.keypoint_head", created_by=context.pass_name)
        with context.rewrite("the output kps_score"):
            found = b.caffe2.HeatmapMaxKeypoint(
                outputs["kps_score"], outputs["bbox_nms"], should_output_softmax=True
            )
            named = {"kps_score": ("keypoints_out", found)}
            graph.set_outputs(dict(named.get(name, (name, value)) for name, value in outputs.items()))
        return True


@dataclass(frozen=True)
class DenseOutputs(Pass):
    """Give a RetinaNet's predictions instead of its detections, which Caffe2's clients make of them.

    What they need besides, anchors and thresholds, becomes arguments of the net, as plain numbers.

    Before:
        %a: f32[H*W/16,4] = det.anchors(%p3, @cells:f32[9,4], stride=8, offset=0.0)
        %s: f32[1,720,H/8,W/8] = aten.sigmoid(%logits)
        %b, %c, %k, %i = det.dense_inference([%s], [%deltas], [%a], score_thresh=0.05, ...)
        return boxes=%b, scores=%c, classes=%k, batch_index=%i
    After:
        return im_info=%im_info, feature_0=%p3, box_cls_0=%logits, box_delta_0=%deltas

    Errors:
        UnsupportedError: the boxes are not predicted as a RetinaNet does it.
    """

    changes_meaning = True

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        node = next((node for node in graph if node.op.name == "det.dense_inference"), None)
        if node is None:
            return False
        scores, deltas, grids = (node.operand_list(i) for i in range(3))
        anchors = [_producer(grid, "det.anchors", "anchors") for grid in grids]
        logits = [_producer(score, "aten.sigmoid", "scores").operand(0) for score in scores]
        arguments = _dense_arguments(node, anchors)
        outputs = {
            "im_info": graph.input("im_info"),
            **{f"feature_{i}": anchor.operand(0) for i, anchor in enumerate(anchors)},
            **{
                f"box_{kind}_{i}": value
                for i, pair in enumerate(zip(logits, deltas, strict=True))
                for kind, value in zip(("cls", "delta"), pair, strict=True)
            },
        }
        with context.rewrite("the outputs"):
            graph.set_outputs(outputs)
            graph.metadata["net_arguments"] = {**graph.metadata.get("net_arguments", {}), **arguments}
        return True


def _producer(value: Value, op: str, what: str) -> Node:
    node = value.producer
    if node is None or node.op.name != op:
        raise UnsupportedError(
            f"the {what} are not made by {op}: Caffe2's clients know the outputs of R-CNNs and RetinaNets only"
        )
    return node


def _dense_arguments(node: Node, anchors: list[Node]) -> dict[str, Any]:
    """What detectron2's exporter writes into a RetinaNet; the anchors as numbers instead of a pickle."""
    from .ops.boxes import LOG_SIZE_LIMIT  # noqa: PLC0415  (takes seconds, which whoever lists passes need not wait for)

    given: Any = node.attributes
    if given["regression"] != "deltas" or not math.isclose(
        given["scale_clamp"], LOG_SIZE_LIMIT, rel_tol=1e-6
    ):
        raise UnsupportedError(
            f"a dense detector with regression={given['regression']!r} and scale_clamp={given['scale_clamp']}: "
            "Caffe2's clients decode boxes as RetinaNet's"
        )
    arguments: dict[str, Any] = {
        "score_threshold": float(given["score_thresh"]),
        "topk_candidates": int(given["topk_candidates"]),
        "nms_threshold": float(given["nms_thresh"]),
        "max_detections_per_image": int(given["topk_per_image"]),
        "bbox_reg_weights": [float(weight) for weight in given["weights"]],
        "anchor_strides": [integer(anchor, "stride") for anchor in anchors],
        "anchor_offset": number(anchors[0], "offset"),
    }
    for i, anchor in enumerate(anchors):
        cells = anchor.operand(1)
        if not isinstance(cells, Constant):
            raise UnsupportedError("a dense detector whose anchors are not constant")
        arguments[f"anchors_{i}"] = cells.data.flatten().tolist()
    return arguments
