"""Proposal generators and anchors (detectron2 modeling/proposal_generator, modeling/anchor_generator.py)."""

from __future__ import annotations

from typing import Any

from detc.ir import Value

from ..capture import Capture, Images, importer


@importer("DefaultAnchorGenerator", "RotatedAnchorGenerator", relies_on=("forward", "_grid_anchors"))
def anchor_generator(capture: Capture, generator: Any, features: list[Value]) -> list[Value]:
    """Anchors of each level: f32[h*w*A,4], or of rotated ones f32[h*w*A,5]."""
    anchors: list[Value] = []
    cells = [buffer for _, buffer in generator.cell_anchors.named_buffers()]
    for feature, cell, stride in zip(features, cells, generator.strides, strict=True):
        weight = capture.weight(cell, "cell_anchors")
        made = capture.build.det.anchors(feature, weight, stride=int(stride), offset=float(generator.offset))
        made.name = f"{feature.name}_anchors"
        anchors.append(made)
    return anchors


@importer("RPN", "RRPN", relies_on=("forward", "predict_proposals", "_decode_proposals"))
def rpn(capture: Capture, module: Any, images: Images, features: dict[str, Value]) -> Value:
    """Proposals as instances: proposal_boxes f32[P,4] or, rotated, f32[P,5]; objectness_logits, batch_index."""
    maps = [features[name] for name in module.in_features]
    anchors = capture.call(module.anchor_generator, maps)
    logits, deltas = capture.call(module.rpn_head, maps)
    transform = module.box2box_transform
    boxes, scores, batch_index = capture.build.det.rpn_proposals(
        logits,
        deltas,
        anchors,
        images.im_info,
        weights=[float(w) for w in transform.weights],
        scale_clamp=float(transform.scale_clamp),
        nms_thresh=float(module.nms_thresh),
        pre_nms_topk=int(module.pre_nms_topk[False]),
        post_nms_topk=int(module.post_nms_topk[False]),
        min_box_size=float(module.min_box_size),
    )
    proposals = capture.build.instances.make(
        [batch_index, boxes, scores], names=("batch_index", "proposal_boxes", "objectness_logits")
    )
    proposals.name = "proposals"
    return proposals
