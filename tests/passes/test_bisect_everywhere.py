"""Bisecting reaches every rewrite of every pass: a fault is planted in one rewrite of each, and is found there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch

import detc
from detc.backends.caffe2.outputs import DenseOutputs, FindKeypoints
from detc.ir import Builder, Graph, TensorType, Value, symbol, verify
from detc.passes import Context, Pass, Pipeline, bisect
from detc.passes.core.pipeline import apply_pass
from detc.passes.debug.honesty import changed_outside_rewrites
from tests.checks import graph_of, joined
from tests.detection import POOLING

MASKS = "roi_heads.mask_head.weight"
CODER = {"weights": (1.0,) * 4, "scale_clamp": 4.135166556742356}
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
        # Boxes move by little.
        scale = 0.01 if name.startswith("deltas") else 0.25
        return graph.add_weight(f"{b.source}.{name}", scale * torch.randn(shape, generator=generator))

    x = b.det.normalize(data, im_info, mean=(100.0, 110.0, 120.0), std=(57.0, 58.0, 59.0))
    x = b.aten.conv2d(x, weight("weight", 8, 3, 4, 4), stride=(4, 4))
    statistics = (b.constant(torch.rand(8, generator=generator) + 0.5) for _ in range(4))
    x = b.aten.batch_norm(x, *statistics, training=False, momentum=0.1, eps=1e-5, cudnn_enabled=False)
    features = b.aten.relu(b.aten.dropout(x, p=0.5, train=False))
    b.aten.sigmoid(features)
    b.source = "proposal_generator"
    hidden = b.aten.relu(b.aten.mul.Tensor(b.aten.mul.Tensor(features, other=2.0), other=0.5))
    logits = b.aten.conv2d(hidden, weight("logits.weight", 3, 8, 1, 1), weight("logits.bias", 3))
    deltas = b.aten.conv2d(hidden, weight("deltas.weight", 12, 8, 1, 1), weight("deltas.bias", 12))
    cells = b.constant([[-8.0, -8.0, 8.0, 8.0], [-12.0, -6.0, 12.0, 6.0], [-6.0, -12.0, 6.0, 12.0]])
    anchors = b.det.anchors(features, cells, stride=4, offset=0.0)
    topk = {"nms_thresh": 0.7, "pre_nms_topk": 40, "post_nms_topk": 10, "min_box_size": 0.0}
    found = b.det.rpn_proposals([logits], [deltas], [anchors], im_info, **CODER, **topk)
    names = ("proposal_boxes", "objectness_logits", "batch_index")
    proposals = b.instances.make(list(found), names=names)
    boxes, index = (b.instances.get(proposals, field=names[i]) for i in (0, 2))
    b.source = "roi_heads.box_head"
    pooled = b.det.roi_pool([features], boxes, index, output_size=(3, 3), **POOLING)
    # Twice the same, and a weight that is computed.
    flat, again = (b.aten.flatten.using_ints(pooled, start_dim=1) for _ in range(2))
    table = b.aten.permute(b.aten.neg(weight("scores.weight", 72, 4)), dims=(1, 0))
    scores = b.aten.softmax.int(b.aten.linear(flat, table), dim=-1)
    moved = b.det.apply_deltas(b.aten.linear(again, weight("deltas.weight", 12, 72)), boxes, **CODER)
    found = b.det.box_inference(
        moved, scores, index, im_info, score_thresh=0.2, nms_thresh=0.5, topk_per_image=10
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


def inputs(images: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "data": torch.rand(images, 3, 64, 64, generator=generator) * 255,
        "im_info": torch.tensor([[64.0, 64.0, 1.0], [50.0, 60.0, 1.0]])[:images],
        "output_size": torch.tensor([[80, 80], [50, 90]])[:images],
    }


def check_every_pass(passes: Pipeline, graph: Graph, given: dict[str, torch.Tensor]) -> set[str]:
    """Plant a fault in one rewrite of each pass. Returns the names of the passes that have something to do here.

    Of the passes before it only the last one is run again each time.
    """
    stages, working = [graph], set[str]()
    for index, item in enumerate(passes):
        before = stages[-1]
        assert changed_outside_rewrites(before, item) is None
        after, context = before.clone(), Context()
        changed = apply_pass(item, after, context)
        stages.append(after)
        assert changed == bool(context.rewrites)
        if changed:
            working.add(item.name)
            # First ones, last ones, and some between.
            at = 1 + index * 5 % len(context.rewrites)
            planted = Pipeline([*passes[max(index - 1, 0) : index], _Planted(item, at)])
            culprit = bisect(planted, stages[max(index - 1, 0)], given)
            assert culprit is not None, item
            assert culprit.index == len(planted), culprit.error
            assert culprit.rewrite is not None, culprit.error
            assert (culprit.rewrite.number, culprit.rewrite.rule) == (at, context.rewrites[at - 1]), item
    return working


PIPELINES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("onnx", {}),
    ("onnx", {"postprocess": True}),
    ("onnx", {"postprocess": True, "masks": "pasted"}),
    ("torchscript", {"dtype": "float16"}),
    ("torchscript", {"postprocess": True, "masks": "pasted", "dtype": "bfloat16"}),
    ("torch-export", {"postprocess": True}),
    ("caffe2", {}),
    ("caffe2", {"batch": 2}),
)
ELSEWHERE = {"dense-outputs"}
"""What has nothing to do in an R-CNN."""


@pytest.mark.parametrize(("target", "options"), PIPELINES)
def test_a_fault_in_any_pass_of_a_target(target: str, options: dict[str, Any]) -> None:
    passes = detc.pipeline(target, **options)
    images = 1 if (target, options) == ("caffe2", {}) else 2
    working = check_every_pass(passes, graph_for_all_passes(), inputs(images))
    names = {item.name for item in passes}
    if not options.get("postprocess"):
        # Removed, it is not decomposed.
        names.discard("decompose-postprocess")
    if target == "caffe2":
        # Caffe2 has rules for all det ops of an R-CNN; another is below.
        names.discard("decompose")
    assert working == names - ELSEWHERE


def test_a_fault_in_the_outputs_of_a_dense_detector() -> None:
    text = """
        input %data: f32[1,8,H,W]
        input %im_info: f32[1,3]
        %l: f32[1,6,H,W] = aten.conv2d(%data, @l.weight:f32[6,8,1,1])
        %d: f32[1,8,H,W] = aten.conv2d(%data, @d.weight:f32[8,8,1,1])
        %a: f32[2*H*W,4] = det.anchors(%data, @cells:f32[2,4], stride=8, offset=0.0)
        %s: f32[1,6,H,W] = aten.sigmoid(%l)
        %b: f32[D,4], %c: f32[D], %k: i64[D], %i: i64[D] = det.dense_inference([%s], [%d], [%a],
            score_thresh=0.05, topk_candidates=10, nms_thresh=0.5, topk_per_image=10, regression="deltas",
            weights=(1.0, 1.0, 1.0, 1.0), scale_clamp=4.135166556742356)
        return boxes=%b, scores=%c, classes=%k, batch_index=%i"""
    given = {"data": torch.rand(1, 8, 4, 4), "im_info": torch.tensor([[32.0, 32.0, 1.0]])}
    graph = graph_of(joined(text), level="flat")
    assert check_every_pass(Pipeline([DenseOutputs()]), graph, given) == {"dense-outputs"}


def test_a_fault_in_decomposing_for_caffe2() -> None:
    text = """
        input %boxes: f32[D,4]
        input %index: i64[D]
        input %im_info: f32[N,3]
        input %size: i64[N,2]
        %r: f32[D,4] = det.rescale_boxes(%boxes, %index, %im_info, %size)
        return boxes=%r"""
    given = {
        "boxes": torch.rand(3, 4),
        "index": torch.tensor([0, 0, 1]),
        "im_info": torch.tensor([[32.0, 32.0, 1.0], [20.0, 30.0, 1.0]]),
        "size": torch.tensor([[64, 32], [10, 60]]),
    }
    passes = Pipeline(item for item in detc.pipeline("caffe2") if item.name == "decompose")
    graph = graph_of(joined(text), level="flat")
    assert check_every_pass(passes, graph, given) == {"decompose"}


def test_a_fault_in_finding_keypoints() -> None:
    text = """
        input %h: f32[D,3,8,8]
        input %b: f32[D,4]
        %k: f32[D,3,8,8] = caffe2.Relu(%h)
        return bbox_nms=%b, kps_score=%k"""
    given = {"h": torch.rand(2, 3, 8, 8), "b": torch.tensor([[0.0, 0.0, 8.0, 8.0], [1.0, 2.0, 9.0, 7.0]])}
    graph = graph_of(joined(text), level="caffe2")
    assert check_every_pass(Pipeline([FindKeypoints()]), graph, given) == {"find-keypoints"}
