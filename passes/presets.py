"""Runs of passes that the pipelines of several targets begin with."""

from __future__ import annotations

from .core.base import Pass
from .detection.anchors import FuseAnchors
from .detection.instances import FlattenInstances
from .detection.postprocess import DecomposePostprocess, KeepRoiMasks, RemovePostprocess
from .detection.rpn_head import FuseRpnHead
from .generic.batch_norm import FoldBatchNorm
from .generic.canonicalize import Canonicalize
from .generic.cleanup import CommonSubexpressions, DeadCode
from .generic.constants import FoldConstants
from .generic.fuse import Fuse

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
