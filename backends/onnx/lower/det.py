"""The lowering rules of the `det` dialect, by family."""

from __future__ import annotations

from detc.passes.rewrite.conversion import LoweringRule

from . import (
    det_boxes,
    det_dense,
    det_keypoints,
    det_masks,
    det_points,
    det_pooling,
    det_rotated,
    det_rotated_pooling,
    det_rpn,
    det_segmentation,
)

TABLE: dict[str, LoweringRule] = {
    **det_boxes.TABLE,
    **det_rpn.TABLE,
    **det_dense.TABLE,
    **det_pooling.TABLE,
    **det_masks.TABLE,
    **det_keypoints.TABLE,
    **det_points.TABLE,
    **det_rotated.TABLE,
    **det_rotated_pooling.TABLE,
    **det_segmentation.TABLE,
}
