"""The lowering rules of the `det` dialect."""

from __future__ import annotations

from detc.passes.rewrite.conversion import LoweringRule
from detc.passes.rewrite.lowering_rules import by_form, refuse

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

_no_grid = refuse("rotated anchors are not computed from the proposals' places")

TABLE: dict[str, LoweringRule] = {
    "det.normalize": det_boxes.normalize,
    "det.anchors": by_form(det_rpn.anchors, det_rotated.anchors),
    "det.apply_deltas": by_form(det_boxes.apply_deltas, det_rotated.apply_deltas, boxes=1),
    "det.clip_boxes": by_form(det_boxes.clip_boxes, det_rotated.clip_boxes),
    "det.rescale_boxes": by_form(det_boxes.rescale_boxes, det_rotated.rescale_boxes),
    "det.nonempty": by_form(det_boxes.nonempty, det_rotated.nonempty, boxes=0),
    "det.box_inference": by_form(det_boxes.box_inference, det_rotated.box_inference),
    "det.rpn_proposals": by_form(det_rpn.rpn_proposals, det_rotated.rpn_proposals),
    "det.grid_proposals": by_form(det_rpn.grid_proposals, _no_grid),
    "det.dense_proposals": by_form(det_rpn.dense_proposals, _no_grid),
    "det.roi_pool": by_form(det_pooling.roi_pool, det_rotated_pooling.roi_pool, boxes=1),
    **det_dense.TABLE,
    **det_masks.TABLE,
    **det_keypoints.TABLE,
    **det_points.TABLE,
    **det_segmentation.TABLE,
}
