"""Lowering of `det.roi_pool` to torchvision's operators."""

from __future__ import annotations

from detc.ir import Builder, Node, Value
from detc.ir.dialects.boxes import sides
from detc.ir.dialects.pooling import ALONG_BOXES, level_thresholds
from detc.passes.core.base import integer, integers, numbers
from detc.passes.detection.decompose import written_out
from detc.passes.rewrite.conversion import LoweringRule

from .common import F32, cast, where_true


def roi_pool(b: Builder, node: Node) -> Value:
    """The boxes of each level are pooled together, and put back into their order."""
    if node.attributes["pooler_type"] == ALONG_BOXES:
        return _pool_along_boxes(b, node)
    # What lies otherwise in memory torchvision copies for each pooler.
    features = [b.aten.contiguous(feature) for feature in node.operand_list(0)]
    scales = numbers(node, "scales")
    rois, levels = _rois_and_levels(b, node)
    if levels is None:
        return _pool(b, node, features[0], rois, scales[0])
    shape = (rois.shape[0], features[0].shape[1], *integers(node, "output_size"))
    pooled = b.aten.new_zeros(features[0], size=shape)
    for i, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        rows = where_true(b, b.aten.eq.Scalar(levels, other=i))
        part = _pool(b, node, feature, b.aten.index_select(rois, rows, dim=0), scale)
        pooled = b.aten.index_copy(pooled, rows, part, dim=0)
    return pooled


def _pool_along_boxes(b: Builder, node: Node) -> Value:
    """Samples along the boxes' own axes, on each level."""
    rois, levels = _rois_and_levels(b, node)
    if levels is None:
        levels = b.aten.zeros_like(node.operand(2))
    return b.torchscript.roi_align_rotated_by_level(
        node.operand_list(0),
        rois,
        levels,
        **{name: node.attributes[name] for name in ("output_size", "scales", "sampling_ratio")},
    )


def _rois_and_levels(b: Builder, node: Node) -> tuple[Value, Value | None]:
    """Rows (batch_index, box) for pooling, and the level i64[R] of each; None where there is but one."""
    boxes, batch_index = node.operand(1), node.operand(2)
    scales = numbers(node, "scales")
    index = b.aten.unsqueeze(cast(b, batch_index, boxes.dtype), dim=1)
    rois = b.aten.cat([index, boxes], dim=1)
    if len(scales) == 1:
        return rois, None
    size, level = integer(node, "canonical_box_size"), integer(node, "canonical_level")
    bounds = b.constant(level_thresholds(scales, size, level), F32)
    (each,) = written_out(b, sides, boxes)
    return rois, b.aten.bucketize.Tensor(b.aten.prod.dim_int(each, dim=1), bounds, right=True)


def _pool(b: Builder, node: Node, feature: Value, rois: Value, scale: float) -> Value:
    height, width = integers(node, "output_size")
    size = {"spatial_scale": scale, "pooled_height": height, "pooled_width": width}
    pooler = node.attributes["pooler_type"]
    rois = cast(b, rois, feature.dtype)
    if pooler == "ROIPool":
        return b.torchvision.roi_pool(feature, rois, **size)[0]
    return b.torchvision.roi_align(
        feature,
        rois,
        **size,
        sampling_ratio=integer(node, "sampling_ratio"),
        aligned=pooler == "ROIAlignV2",
    )


TABLE: dict[str, LoweringRule] = {"det.roi_pool": roi_pool}
