"""Lowering of `det.*` on semantic and panoptic segmentation."""

from __future__ import annotations

from detc.passes.rewrite.conversion import LoweringRule

from .common import scripted

TABLE: dict[str, LoweringRule] = {
    # Images differ in what is cut off and in their output's size; an instance's turn depends on those before it.
    "det.sem_seg_postprocess": scripted,
    "det.panoptic_combine": scripted,
}
