"""Proposals and pooling of rotated boxes as Caffe2's operators.

CollectRpnProposals and DistributeFpnProposals know upright rois only. What they select and sort is found by scores
and areas, though, and the first column of a roi, its image, goes along unread: with the number of its row there, and
any upright box of the same area, they say which rotated rois to take.

GenerateProposals drops a rotated proposal whose centre is beyond the right or lower edge of the image; detectron2 keeps
it. Where an image is padded much, as in a batch of unlike ones, the net therefore finds other objects than the model.
"""

from __future__ import annotations

import torch

from detc.ir import Node, Value
from detc.ir.dialects.pooling import level_range
from detc.passes.core.base import NoMatch, integer, integers, numbers

from .builder import FLOAT, INT32, INT64, Caffe2Builder, sized
from .det import ROIS, check_decoding, rois_of
from .proposals import by_level


def grid_proposals(b: Caffe2Builder, node: Node) -> list[Value]:
    """GenerateProposals of each level and image; the best of each image's."""
    check_decoding(node, (1.0,) * 5)
    b.unused(1, "the scores of rotated proposals are not kept")
    limit = integer(node, "post_nms_topk")
    found: list[Value] = []
    for image, (proposals, scores) in enumerate(by_level(b, node)):
        rows, values = b.concat(proposals, 0), b.concat(scores, 0)
        keyed = b.concat([_numbers(b, values), b.columns(rows, 1, 5)], 1)
        best = b.caffe2.CollectRpnProposals(
            [keyed, values], rpn_max_level=2, rpn_min_level=2, rpn_post_nms_topN=limit
        )
        merged = _picked(b, rows, best)
        if image:
            merged = b.caffe2.Add(merged, b.constant([[image, 0, 0, 0, 0, 0]], torch.float32))
        found.append(merged)
    rois = sized(b.concat(found, 0), b.result.shape[0])
    rois.name = "rpn_rois"
    boxes = b.columns(rois, 1, 6)
    column = b.column(rois)
    index = b.caffe2.Cast(column, to=INT64)
    b.note(ROIS, boxes, index, means=rois)
    return [boxes, column, index]


def roi_pool(b: Caffe2Builder, node: Node) -> Value:
    """RoIAlignRotated; with several levels DistributeFpnProposals before, and the rois' order restored after."""
    features, boxes, index = node.operand_list(0), node.operand(1), node.operand(2)
    scales = numbers(node, "scales")
    height, width = integers(node, "output_size")
    rois = rois_of(b, boxes, index, features[0].shape[0])
    pooling = {
        "order": "NCHW",
        "pooled_h": height,
        "pooled_w": width,
        "sampling_ratio": integer(node, "sampling_ratio"),
        "aligned": True,
    }
    if len(features) == 1:
        return b.caffe2.RoIAlignRotated(features[0], rois, spatial_scale=scales[0], **pooling)
    least, most = level_range(scales)
    sides = b.columns(boxes, 2, 4)
    corner = b.caffe2.ConstantFill(sides, value=0.0)
    *dealt, order = b.caffe2.DistributeFpnProposals(
        b.concat([_numbers(b, sides), corner, sides], 1),
        roi_canonical_scale=integer(node, "canonical_box_size"),
        roi_canonical_level=integer(node, "canonical_level"),
        roi_max_level=most,
        roi_min_level=least,
        legacy_plus_one=False,
    )
    if len(dealt) != len(features):
        raise NoMatch(f"{len(features)} levels of features between level {least} and level {most}")
    pooled = [
        b.caffe2.RoIAlignRotated(feature, _picked(b, rois, part), spatial_scale=scale, **pooling)
        for feature, part, scale in zip(features, dealt, scales, strict=True)
    ]
    return b.caffe2.BatchPermutation(b.concat(pooled, 0), order)


def _numbers(b: Caffe2Builder, like: Value) -> Value:
    """f32[n,1]: 0 to n - 1, for a value of n rows."""
    return b.caffe2.ExpandDims(b.caffe2.Cast(b.row_numbers(like), to=FLOAT), dims=(1,))


def _picked(b: Caffe2Builder, rows: Value, keyed: Value) -> Value:
    """The rows whose numbers are in the first column of `keyed`, in that order."""
    numbers = b.caffe2.Cast(b.column(keyed), to=INT32)
    return b.caffe2.Gather(rows, numbers)
