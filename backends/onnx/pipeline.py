"""The passes that lower a captured graph to ONNX."""

from __future__ import annotations

from detc.passes import (
    Canonicalize,
    CommonSubexpressions,
    DeadCode,
    DecomposePostprocess,
    FlattenInstances,
    FoldBatchNorm,
    FoldConstants,
    Fuse,
    FuseAnchors,
    FuseRpnHead,
    KeepRoiMasks,
    Pass,
    Pipeline,
    RemovePostprocess,
)

from .cleanup import CleanUpOnnx
from .lower import LowerToOnnx

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
LOWER: tuple[Pass, ...] = (
    LowerToOnnx(),
    CleanUpOnnx(),
    # Lowering each op by itself leaves the same shapes and constants behind in several places.
    FoldConstants(),
    CommonSubexpressions(),
    DeadCode(),
)


def onnx_pipeline(*, postprocess: bool = False, masks: str = "roi") -> Pipeline:
    """Captured graph -> graph of the level `onnx`.

    Without `postprocess` the outputs are raw detections in the network's input pixels. With it, masks are "roi" (a
    grid of probabilities for each box) or "pasted" (bitmaps of the output image).
    """
    first: tuple[Pass, ...] = ()
    if not postprocess:
        first = (RemovePostprocess(),)
    elif masks == "roi":
        first = (KeepRoiMasks(),)
    return Pipeline([*first, *FLATTEN, *OPTIMIZE, *LOWER])
