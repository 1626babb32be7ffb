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
    "det.anchors": by_form(det_rpn.anchors, det_rotated.anchors),
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
"""The others are written out before, as what their bodies compute."""
SAVES: dict[str, int] = {"det.anchors": 19, "det.roi_pool": 6}
"""The rules of ops whose bodies can be traced -> how many nodes fewer than what is traced they give, at most."""
