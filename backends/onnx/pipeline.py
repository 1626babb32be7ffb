"""The passes that lower a captured graph to ONNX."""

from __future__ import annotations

from detc.passes import (
    CommonSubexpressions,
    DeadCode,
    Decompose,
    FoldConstants,
    Pass,
    Pipeline,
)
from detc.passes.presets import FLATTEN, OPTIMIZE, choose_outputs

from .cleanup import CleanUpOnnx
from .lower import KEPT, LowerToOnnx

LOWER: tuple[Pass, ...] = (
    Decompose(kept=KEPT),
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
    first = choose_outputs(postprocess=postprocess, masks=masks)
    return Pipeline([*first, *FLATTEN, *OPTIMIZE, *LOWER])
