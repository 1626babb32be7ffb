"""The command `export`: config and checkpoint in, a file out, on request checked against the model."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import filesize
from torch import nn
from typing_extensions import override

from detc.backends.detector import Artifact
from detc.backends.images import model_input, read_image
from detc.backends.target import find_target, load_artifact
from detc.frontend import AssumptionWarning, capture, load_model
from detc.ir import Graph, InputError
from detc.passes import DumpIR, Observer, Pass, Pipeline, PrintAfter

from ..api import emit, pipeline
from ..check.parity import Parity, check_parity, parity_blocks
from ..show.terminal import Stages, output, print_blocks


@dataclass(frozen=True)
class Export:
    """What to export, from what, and what to show of it. Every field is an option of the command."""

    config: str
    weights: str
    output: Path
    target: str = "onnx"
    postprocess: bool = False
    masks: str = "roi"
    dtype: str = "float32"
    batch: int | None = None
    class_names: Sequence[str] | None = None
    dump_ir: Path | None = None
    print_after: Sequence[str] = ()
    check: Sequence[str] = ()


def export(options: Export, stages: Stages) -> int:
    """Compile and write, print a summary; returns 1 if the check found a difference, else 0.

    Errors:
        InputError: an option, the config or the checkpoint cannot be used. No file is written then.
    """
    # All that can be wrong is looked at before the minutes that a large model takes.
    passes = pipeline(
        options.target,
        postprocess=options.postprocess,
        masks=options.masks,
        batch=options.batch,
        dtype=options.dtype,
    )
    observers = _observers(passes, options.dump_ir, options.print_after)
    _check_output(options.output, options.target)
    names = {Path(path).name for path in options.check}
    # Full paths would not fit into a terminal's line beside the numbers.
    short = len(names) == len(set(options.check))
    images = {Path(path).name if short else path: read_image(path) for path in options.check}

    with stages.stage("load the model"):
        model = load_model(options.config, options.weights)
    artifact = compile_in_stages(model, options.target, passes, options.class_names, observers, stages)
    with stages.stage("write the file"):
        artifact.save(options.output)
    _summarize(options, artifact)
    rows: list[Parity] = []
    if images:
        with stages.stage("check"):
            detector = load_artifact(options.output, trusted=True)
            inputs = {name: model_input(image, detector.metadata) for name, image in images.items()}
            rows = check_parity(model, detector, inputs)
    print_blocks(
        stages.table(), *(parity_blocks(rows, str(find_target(options.target).runtime(None))) if rows else ())
    )
    return 0 if all(row.report.agrees for row in rows) else 1


def compile_in_stages(
    model: nn.Module,
    target: str,
    passes: Pipeline,
    class_names: Sequence[str] | None,
    observers: Sequence[Observer],
    stages: Stages,
) -> Artifact:
    """What `detc.compile` does, each step timed and shown."""
    with stages.stage("capture"), warnings.catch_warnings():
        # The summary says it.
        warnings.simplefilter("ignore", AssumptionWarning)
        graph = capture(model, class_names=class_names)
    with stages.stage("run the passes") as progress:
        lowered = passes.run(graph, [*observers, _ShowPass(progress, len(passes))])
    with stages.stage("emit"):
        return emit(lowered, target)


class _ShowPass(Observer):
    def __init__(self, progress: Callable[[str], None], total: int) -> None:
        self._progress = progress
        self._total = total

    @override
    def before(self, graph: Graph, pass_: Pass, index: int) -> None:
        self._progress(f"{index} of {self._total}, {pass_.name}")


def _observers(passes: Pipeline, dump_ir: Path | None, print_after: Sequence[str]) -> list[Observer]:
    known = list(dict.fromkeys(item.name for item in passes))
    unknown = [name for name in print_after if name not in (*known, "all")]
    if unknown:
        raise InputError(f"there is no pass {', '.join(map(repr, unknown))}; there are {', '.join(known)}")
    observers: list[Observer] = []
    if dump_ir is not None:
        if dump_ir.exists() and not dump_ir.is_dir():
            raise InputError(f"cannot write IR into {dump_ir}: it is no folder")
        observers.append(DumpIR(dump_ir))
    if print_after:
        observers.append(PrintAfter("all" if "all" in print_after else print_after, sys.stdout))
    return observers


def _check_output(path: Path, target: str) -> None:
    suffix = find_target(target).suffix
    if not suffix:
        if path.exists() and not path.is_dir():
            raise InputError(f"the target {target} writes a folder, and {path} is none")
        if not path.parent.is_dir():
            raise InputError(f"the output folder does not exist: {path.parent}")
        return
    if path.is_dir():
        raise InputError(f"the output is a folder: {path}")
    if not path.parent.is_dir():
        raise InputError(f"the output folder does not exist: {path.parent}")
    if path.suffix.lower() != suffix:
        raise InputError(f"the target {target} writes files that end in {suffix}, not {path.name}")


def _summarize(options: Export, artifact: Artifact) -> None:
    files = list(options.output.glob("model*")) if options.output.is_dir() else [options.output]
    graph, size = artifact.graph, filesize.decimal(sum(file.stat().st_size for file in files))
    console = output()
    console.print(f"{options.output}: {artifact.nodes} nodes, {size}", soft_wrap=True)
    for heading, values in (
        ("input ", [(value.name, value.type) for value in graph.inputs]),
        ("output", [(name, value.type) for name, value in graph.outputs.items()]),
    ):
        for name, type in values:
            console.print(f"  {heading} {name:<12} {type}")
    for assumption in graph.metadata.get("assumptions", []):
        console.print(
            f"  holds for {assumption['condition']}, because of {assumption['where']}", soft_wrap=True
        )
    if options.dump_ir is not None:
        console.print(f"{options.dump_ir}: the IR after each pass", soft_wrap=True)
