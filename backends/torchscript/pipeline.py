"""The passes that lower a captured graph to TorchScript's level."""

from __future__ import annotations

from detc.passes import CommonSubexpressions, DeadCode, FoldConstants, Pass, Pipeline
from detc.passes.presets import FLATTEN, OPTIMIZE, choose_outputs

from .lower import LowerToTorchScript

LOWER: tuple[Pass, ...] = (
    LowerToTorchScript(),
    # Lowering each op by itself leaves the same slices and constants behind in several places.
    FoldConstants(),
    CommonSubexpressions(),
    DeadCode(),
)


def torchscript_pipeline(*, postprocess: bool = False, masks: str = "roi") -> Pipeline:
    """Captured graph -> graph of the level `torchscript`.

    Without `postprocess` the outputs are raw detections in the network's input pixels. With it, masks are "roi" (a
    grid of probabilities for each box) or "pasted" (bitmaps of the output image).
    """
    first = choose_outputs(postprocess=postprocess, masks=masks)
    return Pipeline([*first, *FLATTEN, *OPTIMIZE, *LOWER])
