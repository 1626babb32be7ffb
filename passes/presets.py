"""Runs of passes that the pipelines of several targets begin with."""

from __future__ import annotations

from .anchors import FuseAnchors
from .base import Pass
from .batch_norm import FoldBatchNorm
from .canonicalize import Canonicalize
from .cleanup import CommonSubexpressions, DeadCode
from .constants import FoldConstants
from .fuse import Fuse
from .instances import FlattenInstances
from .postprocess import DecomposePostprocess, KeepRoiMasks, RemovePostprocess
from .rpn_head import FuseRpnHead

FLATTEN: tuple[Pass, ...] = (
    # Postprocessing is the last use of `Instances`: open it up before they are taken apart.
    DecomposePostprocess(),
    FlattenInstances(),
)
OPTIMIZE: tuple[Pass, ...] = (
    Canonicalize(),
    FuseAnchors(),
    FuseRpnHead(),
    # Before constants are folded: a fold needs the normalization's parameters as they are.
    FoldBatchNorm(),
    Fuse(),
    FoldConstants(),
    CommonSubexpressions(),
    DeadCode(),
)


def choose_outputs(*, postprocess: bool, masks: str) -> tuple[Pass, ...]:
    """The passes that choose what the graph gives.

    Without `postprocess` that is raw detections in the network's input pixels. With it, masks are "roi" (a grid of
    probabilities for each box) or "pasted" (bitmaps of the output image).
    """
    if not postprocess:
        return (RemovePostprocess(),)
    return (KeepRoiMasks(),) if masks == "roi" else ()
