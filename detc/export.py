"""The `export` command: config and checkpoint in, a checked file out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detc.frontend import capture, load_model
from detc.ir import InputError

from .api import emit, pipeline
from .images import read_image
from .terminal import Stages


def export_model(
    *,
    config: str,
    weights: str,
    target: str,
    output: Path,
    postprocess: bool,
    masks: str,
    class_names: Sequence[str] | None,
    dump_ir: str | None,
    print_after: Sequence[str],
    check: Sequence[str],
) -> int:
    """Compile and write; with `check`, compare what was written with the model. Returns the exit status."""
    passes = pipeline(target, postprocess=postprocess, masks=masks)
    observers = _observers(passes, dump_ir, print_after)
    if not output.parent.is_dir():
        raise InputError(f"the output folder does not exist: {output.parent}")
    images = [(path, read_image(path)) for path in check]

    stages = Stages()
    with stages.stage("load the model"):
        model = load_model(config, weights)
    with stages.stage("capture"):
        graph = capture(model, class_names=class_names)
    with stages.stage("run the passes"):
        lowered = passes.run(graph, observers=observers)
    with stages.stage("write the file"):
        artifact = emit(lowered)
        artifact.save(output)
    return 0
