"""Bisecting reaches every rewrite of every pass: a fault is planted in one rewrite of each, and is found there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from detc.ir import Builder, Graph, TensorType, Value, symbol, verify
from detc.passes import Context, Pass
from tests.detection import POOLING

MASKS = "roi_heads.mask_head.weight"
DENSE = {"weights": (1.0,) * 4, "scale_clamp": 4.135166556742356, "nms_thresh": 0.7}
DETECTIONS = ("pred_boxes", "scores", "pred_classes", "batch_index")


@cache
def graph_for_all_passes() -> Graph:
    """A small Mask R-CNN in which each pass of each target finds something to do."""
    generator = torch.Generator().manual_seed(0)
    n, h, w = symbol("N"), symbol("H", 32), symbol("W", 32)
    graph = Graph("rcnn")
    data = graph.add_input("data", TensorType(torch.float32, (n, 3, h, w)))
    im_info = graph.add_input("im_info", TensorType(torch.float32, (n, 3)))
    output_size = graph.add_input("output_size", TensorType(torch.int64, (n, 2)))
    b = Builder(graph, source="backbone", created_by="capture")

    def weight(name: str, *shape: int) -> Value:
        return graph.add_weight(f"{b.source}.{name}", torch.randn(shape, generator=generator) / 4)

    x = b.det.normalize(data, im_info, mean=(100.0, 110.0, 120.0), std=(57.0, 58.0, 59.0))
    x = b.aten.conv2d(x, weight("weight", 8, 3, 4, 4), stride=(4, 4))
    statistics = (b.constant(torch.rand(8, generator=generator) + 0.5) for _ in range(4))
    x = b.aten.batch_norm(x, *statistics, training=False, momentum=0.1, eps=1e-5, cudnn_enabled=False)
    features = b.aten.relu(b.aten.dropout(x, p=0.5, train=False))
    b.aten.sigmoid(features)
    b.source = "proposal_generator"
    hidden = [b.aten.relu(features), b.aten.relu(features)]
    logits = b.aten.conv2d(hidden[0], weight("logits.weight", 3, 8, 1, 1), weight("logits.bias", 3))
    deltas = b.aten.conv2d(hidden[1], weight("deltas.weight", 12, 8, 1, 1), weight("deltas.bias", 12))
    cells = b.constant([[-8.0, -8.0, 8.0, 8.0], [-12.0, -6.0, 12.0, 6.0], [-6.0, -12.0, 6.0, 12.0]])
    anchors = b.det.anchors(features, cells, stride=4, offset=0.0)
    topk = {"pre_nms_topk": 40, "post_nms_topk": 10, "min_box_size": 0.0}
    found = b.det.rpn_proposals([logits], [deltas], [anchors], im_info, **DENSE, **topk)
    names = ("proposal_boxes", "objectness_logits", "batch_index")
    proposals = b.instances.make(list(found), names=names)
    boxes, index = (b.instances.get(proposals, field=names[i]) for i in (0, 2))
    b.source = "roi_heads.box_head"
    pooled = b.det.roi_pool([features], boxes, index, output_size=(3, 3), **POOLING)
    table = b.aten.permute(b.aten.add.Tensor(weight("weight", 72, 4), other=0.0), dims=(1, 0))
    scores = b.aten.softmax.int(b.aten.linear(b.aten.flatten.using_ints(pooled, start_dim=1), table), dim=-1)
    found = b.det.box_inference(
        boxes, scores, index, im_info, score_thresh=0.2, nms_thresh=0.5, topk_per_image=10
    )
    instances = b.instances.make(list(found), names=DETECTIONS)
    b.source = "roi_heads.mask_head"
    boxes, classes, index = (b.instances.get(instances, field=DETECTIONS[i]) for i in (0, 2, 3))
    pooled = b.det.roi_pool([features], boxes, index, output_size=(6, 6), **POOLING)
    masks = b.det.mask_inference(b.aten.conv2d(pooled, weight("weight", 3, 8, 1, 1)), classes)
    instances = b.instances.set(instances, masks, field="pred_masks")
    b.source = ""
    graph.set_outputs({"instances": b.det.postprocess(instances, im_info, output_size, mask_threshold=0.5)})
    verify(graph)
    return graph


def spoil(graph: Graph, pass_: Pass) -> None:
    """Plant a fault: other masks, or where outputs cannot be compared, a type that the verifier refuses."""
    if pass_.changes_meaning:
        result = next(iter(graph)).results[0]
        result.type = TensorType(torch.float64, result.shape)
    else:
        graph.weights[MASKS].data = -3 * graph.weights[MASKS].data


@dataclass
class _Spoiling(Context):
    """Spoils the graph right after one rewrite."""

    graph: Any = None
    planted: Any = None

    @contextmanager
    def rewrite(self, rule: str) -> Iterator[None]:
        with super().rewrite(rule):
            yield
            if len(self.rewrites) == self.planted.at:
                spoil(self.graph, self.planted.inner)


@dataclass(frozen=True)
class _Planted(Pass):
    """A pass that goes wrong in its rewrite number `at`."""

    inner: Pass
    at: int

    @property
    def changes_meaning(self) -> bool:  # type: ignore[override]
        return self.inner.changes_meaning

    def apply(self, graph: Graph, context: Context) -> bool:
        return self.inner.apply(graph, _Spoiling(**vars(context), graph=graph, planted=self))
