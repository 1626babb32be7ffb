"""All lowering rules to Caffe2."""

from __future__ import annotations

from detc.passes.rewrite.conversion import LoweringRule
from detc.passes.rewrite.lowering_rules import by_form

from . import aten, det, points, proposals, resize, rotated

TABLE: dict[str, LoweringRule] = {
    **aten.TABLE,
    **resize.TABLE,
    **points.TABLE,
    **det.TABLE,
    "det.grid_proposals": by_form(proposals.grid_proposals, rotated.grid_proposals),
    "det.roi_pool": by_form(det.roi_pool, rotated.roi_pool, boxes=1),
}
