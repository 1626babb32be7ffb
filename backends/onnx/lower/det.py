"""The lowering rules of the `det` dialect, by family."""

from __future__ import annotations

from detc.passes.conversion import LoweringRule

from . import det_boxes, det_masks, det_pooling, det_rpn

TABLE: dict[str, LoweringRule] = {
    **det_boxes.TABLE,
    **det_rpn.TABLE,
    **det_pooling.TABLE,
    **det_masks.TABLE,
}
