"""A small detector as a captured graph: boxes scored, NMS, masks, postprocessing. And inputs for it."""

from __future__ import annotations

from typing import Any

import torch

from detc.ir import Builder, Graph, TensorType, Value, symbol, verify

N, H, W, R = symbol("N"), symbol("H", 4), symbol("W", 4), symbol("R")
F32, I64 = torch.float32, torch.int64
POOLING = {
    "sampling_ratio": 2,
    "pooler_type": "ROIAlignV2",
    "canonical_box_size": 224,
    "canonical_level": 4,
    "scales": (0.25,),
}


def detector(*, postprocess: bool = True, masks: bool = True) -> Graph:
    """Given boxes are scored by what is pooled from the image; nothing is trained, but all is there."""
    generator = torch.Generator().manual_seed(0)
    graph = Graph("detector")
    data = graph.add_input("data", TensorType(F32, (N, 3, H, W)))
    im_info = graph.add_input("im_info", TensorType(F32, (N, 3)))
    given = graph.add_input("given", TensorType(F32, (R, 4)))
    index = graph.add_input("index", TensorType(I64, (R,)))
    b = Builder(graph, source="backbone", created_by="capture")

    def weight(name: str, *shape: int) -> Value:
        return graph.add_weight(name, torch.randn(shape, generator=generator) / 4)

    features = b.aten.relu(b.aten.conv2d(data, weight("backbone.weight", 8, 3, 4, 4), stride=(4, 4)))
    b.source = "roi_heads.box_head"
    pooled = b.det.roi_pool([features], given, index, output_size=(3, 3), **POOLING)
    flat = b.aten.flatten.using_ints(pooled, start_dim=1)
    scores = b.aten.softmax.int(b.aten.linear(flat, weight("roi_heads.box_head.weight", 4, 72)), dim=-1)
    found = b.det.box_inference(
        given, scores, index, im_info, score_thresh=0.2, nms_thresh=0.5, topk_per_image=100
    )
    names = ("pred_boxes", "scores", "pred_classes", "batch_index")
    instances = b.instances.make(list(found), names=names)
    if masks:
        b.source = "roi_heads.mask_head"
        boxes, rows, classes = (
            b.instances.get(instances, field=name) for name in ("pred_boxes", "batch_index", "pred_classes")
        )
        pooled = b.det.roi_pool([features], boxes, rows, output_size=(6, 6), **POOLING)
        logits = b.aten.conv2d(pooled, weight("roi_heads.mask_head.weight", 3, 8, 1, 1))
        probabilities = b.det.mask_inference(logits, classes)
        instances = b.instances.set(instances, probabilities, field="pred_masks")
    b.source = ""
    if postprocess:
        output_size = graph.add_input("output_size", TensorType(I64, (N, 2)))
        instances = b.det.postprocess(instances, im_info, output_size, mask_threshold=0.5)
    graph.set_outputs({"instances": instances})
    verify(graph)
    return graph


def detector_inputs(*, images: int = 2, rows: int = 12, seed: int = 0) -> dict[str, Any]:
    """A batch of images of different sizes, the boxes spread over them in order."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(rows, 2, generator=generator) * 30
    sizes = torch.tensor([[64, 64], [60, 48], [40, 64]])[:images]
    return {
        "data": torch.randn(images, 3, 64, 64, generator=generator),
        "im_info": torch.cat([sizes.float(), torch.ones(images, 1)], dim=1),
        "output_size": torch.stack([sizes[:, 0] * 2, sizes[:, 1]], dim=1),
        "given": torch.cat([corners, corners + torch.rand(rows, 2, generator=generator) * 20 + 4], dim=1),
        "index": torch.arange(rows) * images // max(rows, 1),
    }


def fitting(graph: Graph, inputs: dict[str, Any]) -> dict[str, Any]:
    """Those of the inputs that the graph has."""
    return {value.name: inputs[value.name] for value in graph.inputs}
