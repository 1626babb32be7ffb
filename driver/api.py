"""detc from Python: load a detector, capture it, run a pipeline over it, and make an artifact that runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from detc.backends.target import find_target, known_targets
from detc.ir import InputError
from detc.ir.spans import span

if TYPE_CHECKING:
    from torch import nn

    from detc.backends.detector import Artifact
    from detc.ir import Graph
    from detc.passes import Observer, Pipeline

MASKS = ("roi", "pasted")


def pipeline(
    target: str,
    *,
    postprocess: bool = False,
    masks: str = "roi",
    batch: int | None = None,
    dtype: str = "float32",
) -> Pipeline:
    """The passes that lower a captured graph to a target, as a list to edit.

    With `postprocess` the artifact takes `output_size` and gives detections in output pixels; `masks` is "roi" for
    each detection's own grid of probabilities, or "pasted" for bitmaps of the output image (with postprocessing).
    `batch` is how many images a run of the artifact takes, for targets whose files must fix that; it is 1 by default.
    `dtype` is what TorchScript stores weights and feature maps as: float32, float16 or bfloat16; boxes are float32.

    Errors:
        InputError: there is no such target, or the options do not go together.
    """
    found = find_target(target)
    if masks not in MASKS:
        raise InputError(f"masks are {' or '.join(MASKS)}, not {masks!r}")
    if masks == "pasted" and not postprocess:
        raise InputError("masks are pasted into the output image: ask for postprocessing too (--postprocess)")
    chosen: dict[str, object] = {}
    if dtype != "float32":
        chosen["dtype"] = dtype
    if batch is not None:
        if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
            raise InputError(f"the batch is a number of images, 1 or more, not {batch!r}")
        chosen["batch"] = batch
    for option in chosen.keys() - found.options:
        takers = ", ".join(name for name, other in known_targets().items() if option in other.options)
        raise InputError(f"the target {target} {_WITHOUT[option]}; --{option} is for {takers}")
    return found.pipeline(postprocess=postprocess, masks=masks, **chosen)


_WITHOUT = {
    "dtype": "stores weights as float32",
    "batch": "takes any number of images at once",
}
"""Option -> what a target that does not take it does."""


def compile(
    model: nn.Module,
    target: str = "onnx",
    *,
    postprocess: bool = False,
    masks: str = "roi",
    batch: int | None = None,
    dtype: str = "float32",
    class_names: Sequence[str] | None = None,
    observers: Sequence[Observer] = (),
) -> Artifact:
    """Capture a detector, lower it and emit the artifact. See `pipeline` for the options.

    Errors:
        InputError: an option is wrong.
        UnsupportedError: the model has a component, or an op, that cannot be compiled; all of them are listed.
    """
    from detc.frontend import capture  # noqa: PLC0415  (takes seconds, which whoever asks for passes need not wait for)

    passes = pipeline(target, postprocess=postprocess, masks=masks, batch=batch, dtype=dtype)
    with span("capture"):
        graph = capture(model, class_names=class_names)
    with span("run the passes"):
        lowered = passes.run(graph, observers=observers)
    return emit(lowered, target)


def emit(graph: Graph, target: str | None = None) -> Artifact:
    """The artifact of a lowered graph; without a target, that of the first one with the graph's level.

    Errors:
        InputError: the graph is not lowered to the target, or to any.
    """
    suitable = (one for one in known_targets().values() if one.level == graph.level)
    found = next(suitable, None) if target is None else find_target(target)
    if found is None or found.level != graph.level:
        wanted = repr(target) if target else "target"
        raise InputError(
            f"a graph of the level {graph.level!r} is not lowered; run detc.pipeline({wanted}) over it first"
        )
    with span(f"emit {found.name}", nodes=len(graph)):
        return found.artifact(graph)
