"""det ops as Caffe2's detection operators, with the arguments that detectron2's exporter (v0.6) gives them.

Caffe2 keeps boxes and the number of their image in one blob, `rois` f32[n,5] (image, x0, y0, x1, y1). A rule that
makes such a blob notes it for the pair of values that the IR has instead, so that the rules of later ops find it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from detc.ir import Dim, Node, Value
from detc.ir.dialects.box_forms import ROTATED
from detc.ir.dialects.pooling import level_range
from detc.passes.core.base import NoMatch, integer, integers, number, numbers
from detc.passes.rewrite.conversion import LoweringRule

from ..ops.boxes import LOG_SIZE_LIMIT
from .builder import FLOAT, INT32, INT64, Caffe2Builder

ROIS, SPLITS = "rois", "splits"
"""What is noted: boxes and batch index -> rois; decoded boxes -> the number of rois of each image."""
ANGLES = {"angle_bound_on": True, "angle_bound_lo": -180, "angle_bound_hi": 180, "clip_angle_thresh": 1.0}


def normalize(b: Caffe2Builder, node: Node) -> Value:
    """(data - mean) / std inside of each image, zero outside.

    Caffe2 has no operator that pads to another tensor's size but the gradient of ResizeNearest: with scales of 1 it
    puts the mean of one image, as large as `im_info` says, into zeros as large as `data`, which is zero out there.
    A batch is masked by rows and by columns instead.
    """
    data, im_info = node.operand(0), node.operand(1)
    mean, std = (torch.tensor(numbers(node, name)) for name in ("mean", "std"))
    channels = len(mean)
    if im_info.shape[0] == 1:
        pick = b.constant(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
        size = b.caffe2.FC(im_info, pick, b.constant(torch.zeros(2)), axis=0)
        inside = b.caffe2.ResizeNearest(b.constant(mean.view(1, -1, 1, 1)), size, order="NCHW")
        padded = b.caffe2.ResizeNearestGradient(inside, data, order="NCHW", width_scale=1.0, height_scale=1.0)
        result = b.caffe2.Sub(data, padded)
    else:
        result = b.caffe2.Sub(data, b.constant(mean.view(-1, 1, 1)))
        sizes = b.caffe2.Cast(im_info, to=INT32)
        for axis in (0, 1):
            lengths = b.caffe2.Gather(sizes, b.constant([axis] * channels, torch.int32), axis=1)
            masked = b.caffe2.SequenceMask(
                result, lengths, mode="sequence", axis=2, repeat_from_axis=3, fill_val=0.0
            )
            # Rows first; then the columns as rows, and back.
            result = b.caffe2.Transpose(masked, axes=(0, 1, 3, 2))
    if bool((std != 1).any()):
        result = b.caffe2.Div(result, b.constant(std.view(-1, 1, 1)))
    return result


def check_decoding(node: Node, weights: Sequence[float] | None = None) -> None:
    """Refuse a decoding of deltas with other constants than Caffe2's, and with other weights than these."""
    if weights is not None and numbers(node, "weights") != tuple(weights):
        raise NoMatch(f"weights {node.attributes['weights']} of the deltas: Caffe2 takes {tuple(weights)}")
    if not math.isclose(number(node, "scale_clamp"), LOG_SIZE_LIMIT, rel_tol=1e-6):
        raise NoMatch(f"a scale_clamp of {node.attributes['scale_clamp']}: Caffe2 has {LOG_SIZE_LIMIT}")


# Pooling


def roi_pool(b: Caffe2Builder, node: Node) -> Value:
    """RoIAlign; with several levels DistributeFpnProposals before, and the rois' order restored after."""
    features, boxes, index = node.operand_list(0), node.operand(1), node.operand(2)
    kind = node.attributes["pooler_type"]
    if kind not in ("ROIAlign", "ROIAlignV2"):
        raise NoMatch(f"pooling by {kind}")
    scales = numbers(node, "scales")
    height, width = integers(node, "output_size")
    rois = rois_of(b, boxes, index, features[0].shape[0])
    pooling = {
        "pooled_h": height,
        "pooled_w": width,
        "sampling_ratio": integer(node, "sampling_ratio"),
        "aligned": kind == "ROIAlignV2",
    }
    if len(features) == 1:
        return b.caffe2.RoIAlign(features[0], rois, order="NCHW", spatial_scale=scales[0], **pooling)
    least, most = level_range(scales)
    *dealt, order = b.caffe2.DistributeFpnProposals(
        rois,
        roi_canonical_scale=integer(node, "canonical_box_size"),
        roi_canonical_level=integer(node, "canonical_level"),
        roi_max_level=most,
        roi_min_level=least,
        legacy_plus_one=False,
    )
    if len(dealt) != len(features):
        raise NoMatch(f"{len(features)} levels of features between level {least} and level {most}")
    pooled = [
        b.caffe2.RoIAlign(feature, part, order="NCHW", spatial_scale=scale, **pooling)
        for feature, part, scale in zip(features, dealt, scales, strict=True)
    ]
    return b.caffe2.BatchPermutation(b.concat(pooled, 0), order)


def rois_of(b: Caffe2Builder, boxes: Value, index: Value, images: Dim) -> Value:
    """f32[n,5] from boxes f32[n,4] and batch_index i64[n]; of one image the boxes are enough.

    Rotated boxes have a column more.
    """
    noted = b.noted(ROIS, boxes, index)
    if noted is not None:
        return noted
    if images == 1:
        return boxes
    column = b.caffe2.ExpandDims(b.cast(index, torch.float32), dims=(1,))
    return b.concat([column, boxes], 1)


# Boxes


CLIPPERS = {"det.box_inference": (2, 3), "det.clip_boxes": (1, 2)}
"""The ops that clip decoded boxes to their images, and which operands are their image numbers and `im_info`."""


def apply_deltas(b: Caffe2Builder, node: Node) -> Value:
    """BBoxTransform, which also clips the boxes to their images: what the op that takes them would do."""
    deltas, boxes = node.operand(0), node.operand(1)
    (decoded,) = node.results
    user = decoded.only_user
    if user is None or user.op.name not in CLIPPERS:
        raise NoMatch(f"decoded boxes that go elsewhere than into {' or '.join(CLIPPERS)}: Caffe2 clips them")
    check_decoding(node)
    rotated, weights = boxes.shape[1] == ROTATED.columns, numbers(node, "weights")
    if weights[4:] != (1.0,) * rotated:
        raise NoMatch(f"weights {weights} of the deltas: Caffe2 has none for angles")
    index, im_info = (user.operand(position) for position in CLIPPERS[user.op.name])
    transformed, splits = b.caffe2.BBoxTransform(
        rois_of(b, boxes, index, im_info.shape[0]),
        deltas,
        im_info,
        weights=weights[:4],
        apply_scale=True,
        rotated=rotated,
        **ANGLES,
        legacy_plus_one=False,
    )
    b.note(SPLITS, transformed, means=splits)
    return transformed


def clip_boxes(b: Caffe2Builder, node: Node) -> Value:
    """Nothing: BBoxTransform has clipped them."""
    boxes = node.operand(0)
    if b.noted(SPLITS, boxes) is None:
        raise NoMatch("boxes that det.apply_deltas did not decode")
    return boxes


def box_inference(b: Caffe2Builder, node: Node) -> list[Value]:
    """BoxWithNMSLimit. Its detections come by image and by class, not by falling score."""
    boxes, scores, im_info = node.operand(0), node.operand(1), node.operand(3)
    splits = b.noted(SPLITS, boxes)
    if splits is None:
        raise NoMatch("boxes that det.apply_deltas did not decode")
    limit = integer(node, "topk_per_image")
    rotated = node.results[0].shape[1] == ROTATED.columns
    results = b.caffe2.BoxWithNMSLimit(
        scores,
        boxes,
        splits,
        score_thresh=number(node, "score_thresh"),
        nms=number(node, "nms_thresh"),
        detections_per_im=max(limit, 0),
        soft_nms_enabled=False,
        soft_nms_method="linear",
        soft_nms_sigma=0.5,
        soft_nms_min_score_thres=0.001,
        rotated=rotated,
        cls_agnostic_bbox_reg=boxes.shape[1] == 4 + rotated and scores.shape[1] != 2,
        input_boxes_include_bg_cls=False,
        output_classes_include_bg_cls=False,
        legacy_plus_one=False,
    )
    names = ("score_nms", "bbox_nms", "class_nms", "roi_batch_splits_nms", "roi_keeps_nms")
    for result, name in zip(results, (*names, "roi_keeps_size_nms"), strict=True):
        result.name = name
    kept, found, classes, counts = results[:4]
    if im_info.shape[0] == 1:
        index = b.caffe2.ConstantFill(classes, value=0, dtype=INT64)
        rois = found
    else:
        segments = b.caffe2.LengthsToSegmentIds(b.caffe2.Cast(counts, to=INT32))
        # As many as there are detections.
        segments.type = segments.tensor_type.with_shape(*classes.shape)
        index = b.caffe2.Cast(segments, to=INT64)
        column = b.caffe2.ExpandDims(b.caffe2.Cast(segments, to=FLOAT), dims=(1,))
        rois = b.concat([column, found], 1)
    b.note(ROIS, found, index, means=rois)
    return [found, kept, b.caffe2.Cast(classes, to=INT64), index]


TABLE: dict[str, LoweringRule] = {
    "det.normalize": normalize,
    "det.apply_deltas": apply_deltas,
    "det.clip_boxes": clip_boxes,
    "det.box_inference": box_inference,
}
