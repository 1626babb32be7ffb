"""detc from Python: load a detector, capture it, run a pipeline over it, and make an artifact that runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from detc.backends.caffe2.model import Caffe2Model
from detc.backends.caffe2.pipeline import caffe2_pipeline
from detc.backends.detector import Artifact
from detc.backends.onnx.artifact import OnnxArtifact
from detc.backends.onnx.pipeline import onnx_pipeline
from detc.backends.torchscript.artifacts import ExportedArtifact, TorchScriptArtifact
from detc.backends.torchscript.pipeline import torchscript_pipeline
from detc.frontend import capture
from detc.ir import Graph, InputError
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
    if target not in TARGETS:
        raise InputError(f"there is no target {target!r}; there are {', '.join(TARGETS)}")
    if masks not in MASKS:
        raise InputError(f"masks are {' or '.join(MASKS)}, not {masks!r}")
    if masks == "pasted" and not postprocess:
        raise InputError("masks are pasted into the output image: ask for postprocessing too (--postprocess)")
    options = {**_batch_option(target, batch), **_dtype_option(target, dtype)}
    return TARGETS[target](postprocess=postprocess, masks=masks, **options)


def _dtype_option(target: str, dtype: str) -> dict[str, str]:
    if dtype == "float32":
        return {}
    if target not in HALF_PRECISION:
        raise InputError(
            f"the target {target} stores weights as float32; {dtype} (--dtype) is for {', '.join(HALF_PRECISION)}"
        )
    return {"dtype": dtype}


def _batch_option(target: str, batch: int | None) -> dict[str, int]:
    if batch is None:
        return {}
    if target not in FIXED_BATCH:
        raise InputError(
            f"what the target {target} gives takes any number of images at once: leave out the batch (--batch)"
        )
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise InputError(f"the batch is a number of images, 1 or more, not {batch!r}")
    return {"batch": batch}


TARGETS = {
    "onnx": onnx_pipeline,
    "torchscript": torchscript_pipeline,
    "torch-export": torchscript_pipeline,
    "caffe2": caffe2_pipeline,
}
"""Target -> the function that makes its pipeline."""
HALF_PRECISION = ("torchscript", "torch-export")
"""The targets that can store weights in half precision."""
FIXED_BATCH = ("caffe2",)
"""The targets whose files are for a fixed number of images."""
SUFFIXES = {"onnx": ".onnx", "torchscript": ".ts", "torch-export": ".pt2", "caffe2": ""}
"""Target -> what its files' names end in; nothing where it writes a folder."""


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
    passes = pipeline(target, postprocess=postprocess, masks=masks, batch=batch, dtype=dtype)
    graph = capture(model, class_names=class_names)
    return emit(passes.run(graph, observers=observers), target)


_EMITTERS: dict[str, tuple[str, Callable[[Graph], Artifact]]] = {
    "onnx": ("onnx", OnnxArtifact),
    "torchscript": ("torchscript", TorchScriptArtifact),
    "torch-export": ("torchscript", ExportedArtifact),
    "caffe2": ("caffe2", Caffe2Model.emit),
}
"""Target -> the level that it is emitted from, and what emits it."""


def emit(graph: Graph, target: str | None = None) -> Artifact:
    """The artifact of a lowered graph; without a target, that which is called like the graph's level.

    Errors:
        InputError: the graph is not lowered to the target, or to any.
    """
    level, emitter = _EMITTERS.get(target or graph.level, (None, None))
    if emitter is None or graph.level != level:
        wanted = repr(target) if target else "target"
        raise InputError(
            f"a graph of the level {graph.level!r} is not lowered; run detc.pipeline({wanted}) over it first"
        )
    return emitter(graph)
