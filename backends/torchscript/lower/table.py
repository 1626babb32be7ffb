"""All lowering rules to TorchScript's level."""

from __future__ import annotations

from detc.passes.rewrite.conversion import LoweringRule

from . import boxes, dense, masks, points, pooling, proposals, scripted

TABLE: dict[str, LoweringRule] = {
    **boxes.TABLE,
    **proposals.TABLE,
    **dense.TABLE,
    **pooling.TABLE,
    **masks.TABLE,
    **points.TABLE,
    **scripted.TABLE,
}
"""The rules of the det ops whose bodies cannot be traced. The others are written out before."""
SAVES: dict[str, int] = {"det.roi_pool": 5}
"""The rules of ops whose bodies can be traced -> how many nodes fewer than what is traced they give, at most."""
