"""The passes that lower a captured graph to Caffe2."""

from __future__ import annotations

from detc.ir import InputError
from detc.passes import (
    Canonicalize,
    CommonSubexpressions,
    DeadCode,
    Decompose,
    FlattenInstances,
    FoldBatchNorm,
    FoldConstants,
    Fuse,
    FuseAnchors,
    Pass,
    Pipeline,
    RemovePostprocess,
)

from .lower import KEPT, LowerToCaffe2
from .outputs import Caffe2Outputs, DenseOutputs
from .passes import CleanUpCaffe2, FixBatch, SplitNormalize

OPTIMIZE: tuple[Pass, ...] = (
    Canonicalize(),
    # GenerateProposals takes cell anchors and a stride.
    FuseAnchors(rotated=True),
    # Before Fuse, which moves the factor into the first convolution.
    SplitNormalize(),
    # Before constants are folded: a fold needs the normalization's parameters as they are.
    FoldBatchNorm(),
    Fuse(),
    FoldConstants(),
    CommonSubexpressions(),
    DeadCode(),
)
LOWER: tuple[Pass, ...] = (
    Decompose(kept=KEPT),
    LowerToCaffe2(),
    CleanUpCaffe2(),
    CommonSubexpressions(),
    # Last: boxes and image numbers taken out of the rois for nobody, and casts to integers.
    DeadCode(),
)


def caffe2_pipeline(*, postprocess: bool = False, masks: str = "roi", batch: int = 1) -> Pipeline:
    """Captured graph -> graph of the level `caffe2`, for `batch` images at once.

    Append `FindKeypoints()` for a net that gives no heatmaps of keypoints, but finds them.

    Errors:
        InputError: postprocessing is asked for. Clients of Caffe2 nets do it: Caffe2 has no operators for it.
    """
    if postprocess:
        raise InputError("Caffe2 nets give raw detections: leave out the postprocessing for this target")
    first: tuple[Pass, ...] = (
        RemovePostprocess(),
        FlattenInstances(),
        FixBatch(batch),
        # Needs to know whether there are several images.
        Caffe2Outputs(),
        DenseOutputs(),
    )
    return Pipeline([*first, *OPTIMIZE, *LOWER])
