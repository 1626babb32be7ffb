"""The passes that lower a captured graph to TorchScript's level."""

from __future__ import annotations

from detc.ir import InputError
from detc.passes import (
    CommonSubexpressions,
    DeadCode,
    Decompose,
    FoldConstants,
    FuseAnchors,
    Pass,
    Pipeline,
)
from detc.passes.presets import FLATTEN, OPTIMIZE, choose_outputs

from .half import DTYPES, HalfPrecision
from .lower import KEPT, LowerToTorchScript

LOWER: tuple[Pass, ...] = (
    # Rotated ones too: here they are as easily laid out as upright ones.
    FuseAnchors(rotated=True),
    Decompose(kept=KEPT),
    LowerToTorchScript(),
    # Lowering each op by itself leaves the same slices and constants behind in several places.
    FoldConstants(),
    CommonSubexpressions(),
    DeadCode(),
)


def torchscript_pipeline(
    *, postprocess: bool = False, masks: str = "roi", dtype: str = "float32"
) -> Pipeline:
    """Captured graph -> graph of the level `torchscript`.

    Without `postprocess` the outputs are raw detections in the network's input pixels. With it, masks are "roi" (a
    grid of probabilities for each box) or "pasted" (bitmaps of the output image). `dtype` is what weights are stored
    as: float32, float16 or bfloat16.

    Errors:
        InputError: there is no such dtype.
    """
    if dtype not in DTYPES:
        raise InputError(f"weights are stored as {', '.join(DTYPES)}, not as {dtype!r}")
    first = choose_outputs(postprocess=postprocess, masks=masks)
    # While det ops still stand for all that concerns boxes.
    half = () if dtype == "float32" else (HalfPrecision(dtype),)
    return Pipeline([*first, *FLATTEN, *OPTIMIZE, *half, *LOWER])
