"""The command line: export, run, show, passes, opt, bisect, report, analyze, zoo, demo.

What the user can mend is one message, `detc: error: ...`, and exit status 2; a check that finds a difference is
status 1. A fault of detc's own keeps its traceback.
"""

# torch takes seconds to import: the modules that need it are imported by the commands, so that --help and mistyped
# options need not wait for it.
# ruff: noqa: PLC0415

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from rich_argparse import RichHelpFormatter

from ..show.profile import Profile
from ..show.terminal import Stages, output, print_blocks
from .options import (
    add_analyze_options,
    add_bisect_options,
    add_opt_options,
    add_profile_option,
    add_report_options,
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"detc: error: {message} (see '{self.prog} --help')\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    # Read as torch is imported: its threads would burn a core each while they wait for the next small tensor.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with warnings.catch_warnings():
        if not sys.warnoptions:
            # torch's warnings are for those who write models, not for those who compile them.
            warnings.simplefilter("ignore")
        return _main(options)


def _main(options: argparse.Namespace) -> int:
    stages = Stages(
        live=not any(
            getattr(options, name, None) for name in ("print_before", "print_after", "print_changed")
        )
    )
    from detc.ir import InputError

    try:
        try:
            path = getattr(options, "profile_compile", None)
            with Profile(path) if path is not None else nullcontext():
                status = int(options.command(options, stages))
            sys.stdout.flush()
            return status
        except InputError as error:
            print(f"detc: error: {error}", file=sys.stderr)
            return 2
    except KeyboardInterrupt:
        print("detc: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader went away (`detc show | head`): nothing is wrong, and nothing more can be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="detc",
        description="The compiler for object-detection models: detectron2 checkpoints to files that run.",
        formatter_class=RichHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"detc {version('detc')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    _add_export(commands)
    _add_run(commands)
    show = _command(commands, "show", _show, "Print the captured IR of a detector.")
    _add_model_options(show)
    passes = _command(commands, "passes", _passes, "List the targets and the passes of their pipelines.")
    passes.add_argument("--explain", metavar="PASS", help="what a pass does, its options, its rules")
    passes.add_argument(
        "--pass-file", metavar="FILE", type=Path, action="append", default=[],
        help="a Python file that defines passes; it is run",
    )  # fmt: skip
    _add_workbench(commands)
    _add_zoo(commands)
    demo = _command(
        commands,
        "demo",
        _demo,
        "Compile the bundled model, run it, and show that it agrees with the original.",
    )
    demo.add_argument(
        "--output", type=Path, metavar="DIR", default=Path("demo-output"),
        help="where to write the picture, the ONNX file and the IR; default: demo-output",
    )  # fmt: skip
    return parser


def _command(
    commands: argparse._SubParsersAction[_Parser],
    name: str,
    function: Callable[[argparse.Namespace, Stages], int],
    summary: str,
) -> _Parser:
    made = commands.add_parser(name, help=summary, description=summary, formatter_class=RichHelpFormatter)
    made.set_defaults(command=function)
    return made


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--config", required=True, metavar="FILE", help="detectron2 config (YAML)")
    add("--weights", required=True, metavar="FILE", help="checkpoint: .pth, .pkl or .safetensors")
    add(
        "--class-names",
        metavar="A,B,...",
        help="the classes' names in order; default: COCO's for a COCO model",
    )
    add(
        "--component-file", metavar="FILE", type=Path, action="append", default=[],
        help="a Python file that registers components of the model (@detc.register, @detc.importer); it is run",
    )  # fmt: skip


def _run_component_files(options: argparse.Namespace) -> None:
    from detc.passes import run_python_file

    for file in options.component_file:
        run_python_file(file)


def _add_export(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = _command(commands, "export", _export, "Compile a trained detector to a file.")
    _add_model_options(parser)
    add = parser.add_argument
    add(
        "--target",
        default="onnx",
        metavar="TARGET",
        help="what to compile to, see 'detc passes'; default: onnx",
    )
    add(
        "--output", required=True, type=Path, metavar="PATH",
        help="the file to write, or, for the target caffe2, the folder",
    )  # fmt: skip
    add(
        "--postprocess", action="store_true",
        help="give detections in the pixels of an output image; its size is a further input, 'output_size'",
    )  # fmt: skip
    add(
        "--dtype", choices=("float32", "float16", "bfloat16"), default="float32",
        help="what TorchScript stores weights and feature maps as; boxes are float32 always; default: float32",
    )  # fmt: skip
    add(
        "--masks", choices=("roi", "pasted"), default="roi",
        help="a grid of probabilities per box, or bitmaps of the output image; default: roi",
    )  # fmt: skip
    add(
        "--batch", type=int, metavar="N",
        help="how many images a run of the file takes, for targets that fix it (caffe2); default: 1",
    )  # fmt: skip
    add("--dump-ir", type=Path, metavar="DIR", help="write the IR after each pass to numbered files")
    add(
        "--print-after", metavar="PASS", action="append", default=[],
        help="print the IR after a pass, or after 'all'; can be given several times",
    )  # fmt: skip
    add(
        "--check", metavar="IMAGE", nargs="+", default=[],
        help="run model and file on these images, alone and as a batch; exit with 1 if they differ",
    )  # fmt: skip
    add_profile_option(parser)


def _add_run(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = _command(commands, "run", _run, "Run a compiled detector on a picture.")
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="a file or folder that 'detc export' wrote")
    add("image", type=Path, metavar="IMAGE", help="the picture")
    add(
        "--runtime",
        metavar="NAME",
        help="one of the target's runtimes, see 'detc passes'; default: its first",
    )
    add("--trust", action="store_true", help="load a .pt2 file, which can run code that is in it")
    add("--output", type=Path, metavar="FILE", help="write the picture with the detections drawn in")
    add("--json", metavar="FILE", help="write all detections as JSON ('-': to standard output)")
    add(
        "--min-score", type=float, metavar="S", default=0.5,
        help="the least score of detections in the picture and the table; default: 0.5",
    )  # fmt: skip


def _add_zoo(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = _command(
        commands, "zoo", _zoo,
        "Compile every model of a folder for every target, run it, and print what agrees with the model.",
    )  # fmt: skip
    add = parser.add_argument
    add(
        "folder",
        type=Path,
        metavar="FOLDER",
        help="its folders hold a config.yaml and a model_final.pth each",
    )
    add("--images", nargs="+", metavar="IMAGE", help="default: FOLDER/scenes/*.png")
    add("--target", action="append", metavar="TARGET", help="only this target; can be given several times")
    add("--model", action="append", metavar="NAME", help="only this model; can be given several times")
    add("--write", type=Path, metavar="FILE", help="also put the table into this Markdown file")


def _add_workbench(commands: argparse._SubParsersAction[_Parser]) -> None:
    opt = _command(commands, "opt", _opt, "Run any passes over a graph, watch and check them.")
    add_opt_options(opt)
    bisect = _command(
        commands, "bisect", _bisect,
        "Find the pass, and the rewrite in it, that breaks a graph; write the smallest graph that shows it.",
    )  # fmt: skip
    add_bisect_options(bisect)
    report = _command(
        commands, "report", _report,
        "Write a page that shows what each pass did: diffs, the graph drawn, rules, differences.",
    )  # fmt: skip
    add_report_options(report)
    analyze = _command(
        commands, "analyze", _analyze,
        "What a graph costs: FLOPs and parameters by module, memory for activations, dominators.",
    )  # fmt: skip
    add_analyze_options(analyze)


def _class_names(options: argparse.Namespace) -> list[str] | None:
    from detc.ir import InputError

    if options.class_names is None:
        return None
    names = [name.strip() for name in options.class_names.split(",")]
    if not all(names):
        raise InputError(f"a name is empty in --class-names {options.class_names}")
    return names


def _export(options: argparse.Namespace, stages: Stages) -> int:
    with stages.stage("import detc"):
        from .export import Export, export

    _run_component_files(options)
    request = Export(
        config=options.config,
        weights=options.weights,
        output=options.output,
        target=options.target,
        postprocess=options.postprocess,
        masks=options.masks,
        dtype=options.dtype,
        batch=options.batch,
        class_names=_class_names(options),
        dump_ir=options.dump_ir,
        print_after=options.print_after,
        check=options.check,
    )
    return export(request, stages)


def _run(options: argparse.Namespace, stages: Stages) -> int:
    with stages.stage("import detc"):
        from detc.backends.images import check_image_name, read_image, save_image
        from detc.backends.target import load_artifact

        from ..show.detections import write_json
        from ..show.findings import Findings

    if options.output:
        check_image_name(options.output)
        from ..show import picture  # noqa: F401  (says so now, not after the run, if the extra for it is missing)

    image = read_image(options.image)
    with stages.stage("load the model"):
        detector = load_artifact(options.model, runtime=options.runtime, trusted=options.trust)
    with stages.stage("run"):
        found = Findings.of(detector, image, options.min_score)
    if options.output:
        save_image(found.picture(), options.output)
    if options.json:
        described = found.to_json(str(options.image))
        if options.json == "-":
            print(json.dumps(described, indent=2))
            return 0
        write_json(described, options.json)
    for shown in found.tables(options.image.name):
        output().print(shown)
    return 0


def _show(options: argparse.Namespace, stages: Stages) -> int:
    with stages.stage("import detc"):
        from detc.frontend import capture, load_model

    _run_component_files(options)
    with stages.stage("load the model"):
        model = load_model(options.config, options.weights)
    with stages.stage("capture"):
        graph = capture(model, class_names=_class_names(options))
    print(graph, end="")
    return 0


def _passes(options: argparse.Namespace, stages: Stages) -> int:
    with stages.stage("import detc"):
        from detc.passes import find_pass, load_entry_points, load_pass_file

        from ..show.passes import explain
        from .targets import other_passes, pass_tables

    load_entry_points()
    for file in options.pass_file:
        load_pass_file(file)
    print_blocks(
        *(explain(find_pass(options.explain)) if options.explain else (*pass_tables(), *other_passes()))
    )
    return 0


def _zoo(options: argparse.Namespace, stages: Stages) -> int:
    with stages.stage("import detc"):
        from .zoo import zoo

    return zoo(options, stages)


def _opt(options: argparse.Namespace, stages: Stages) -> int:
    with stages.stage("import detc"):
        from .faults import reported
        from .opt import opt

    return reported(lambda: opt(options, stages))


def _analyze(options: argparse.Namespace, stages: Stages) -> int:
    with stages.stage("import detc"):
        from .analyze import analyze
        from .faults import reported

    return reported(lambda: analyze(options, stages))


def _report(options: argparse.Namespace, stages: Stages) -> int:
    with stages.stage("import detc"):
        from .faults import reported
        from .report import report

    return reported(lambda: report(options, stages))


def _bisect(options: argparse.Namespace, stages: Stages) -> int:
    with stages.stage("import detc"):
        from .bisect import run_bisect
        from .faults import reported

    return reported(lambda: run_bisect(options, stages))


def _demo(options: argparse.Namespace, stages: Stages) -> int:
    with stages.stage("import detc"):
        from .demo import demo

    return demo(options.output, stages)
