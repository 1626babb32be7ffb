"""The command line: export, run, show, passes, demo.

What the user can mend is one line, `detc: error: ...`, and exit status 2; a check that finds a difference is status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich_argparse import RichHelpFormatter


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"detc: error: {message} (see '{self.prog} --help')\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    # torch takes seconds to import: --help and mistyped options must not wait for it.
    from detc.ir import DetcError

    try:
        return int(options.command(options))
    except DetcError as error:
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
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    def command(name: str, function: Any, summary: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=summary, description=summary, formatter_class=RichHelpFormatter)
        made.set_defaults(command=function)
        return made

    def model_options(made: argparse.ArgumentParser) -> None:
        made.add_argument("--config", required=True, metavar="FILE", help="detectron2 config (YAML)")
        made.add_argument(
            "--weights", required=True, metavar="FILE", help="checkpoint: .pth, .pkl or .safetensors"
        )
        made.add_argument("--class-names", metavar="A,B,...", help="names of the classes, in order")

    export = command("export", _export, "Compile a trained detector to a file.")
    model_options(export)
    export.add_argument(
        "--target", default="onnx", help="what to compile to (see 'detc passes'); default: onnx"
    )
    export.add_argument("--output", required=True, metavar="FILE", help="the file to write")
    export.add_argument(
        "--postprocess", action="store_true", help="rescale detections to an 'output_size' input"
    )
    export.add_argument(
        "--masks", choices=("roi", "pasted"), default="roi", help="masks per box, or in the image"
    )
    export.add_argument("--dump-ir", metavar="DIR", help="write the IR after each pass to numbered files")
    export.add_argument(
        "--print-after", metavar="PASS", action="append", help="print the IR after a pass, or 'all'"
    )
    export.add_argument(
        "--check", metavar="IMAGE", nargs="+", help="compare the file with the model on these images"
    )

    run = command("run", _run, "Run a compiled detector on a picture.")
    run.add_argument("model", metavar="MODEL", help="a file that 'detc export' wrote")
    run.add_argument("image", metavar="IMAGE", help="the picture")
    run.add_argument("--output", metavar="FILE", help="write the picture with the detections drawn in")
    run.add_argument("--json", metavar="FILE", help="write the detections as JSON ('-' for standard output)")

    show = command("show", _show, "Print the captured IR of a detector.")
    model_options(show)

    command("passes", _passes, "List the targets and the passes of their pipelines.")

    demo = command(
        "demo", _demo, "Compile the bundled model, run it, and show that it agrees with the original."
    )
    demo.add_argument(
        "--output", metavar="DIR", default="demo-output", help="where to write; default: demo-output"
    )
    return parser


def _class_names(options: argparse.Namespace) -> list[str] | None:
    return [name.strip() for name in options.class_names.split(",")] if options.class_names else None


def _export(options: argparse.Namespace) -> int:
    from .export import export_model

    return export_model(
        config=options.config,
        weights=options.weights,
        target=options.target,
        output=Path(options.output),
        postprocess=options.postprocess,
        masks=options.masks,
        class_names=_class_names(options),
        dump_ir=options.dump_ir,
        print_after=options.print_after or (),
        check=options.check or (),
    )


def _run(options: argparse.Namespace) -> int:
    from .detections import detection_table, to_json
    from .images import read_image, save_image
    from .load import load_artifact
    from .picture import draw

    detector = load_artifact(options.model)
    image = read_image(options.image)
    instances = detector.predict(image)
    names = detector.class_names
    if options.output:
        save_image(draw(image, instances, names), options.output)
    if options.json:
        text = json.dumps(to_json(instances, names), indent=2)
        if options.json == "-":
            print(text)
        else:
            from detc.backends.files import atomic_write

            with atomic_write(options.json) as file:
                file.write(text.encode() + b"\n")
    if options.json != "-":
        from .terminal import output

        output().print(detection_table(instances, names, Path(options.image).name))
    return 0


def _show(options: argparse.Namespace) -> int:
    import detc

    model = detc.load_model(options.config, options.weights)
    print(detc.capture(model, class_names=_class_names(options)), end="")
    return 0


def _passes(options: argparse.Namespace) -> int:
    from .terminal import output, pass_table

    for table in pass_table():
        output().print(table)
    return 0


def _demo(options: argparse.Namespace) -> int:
    from .demo import demo

    return demo(Path(options.output))


if __name__ == "__main__":
    sys.exit(main())
