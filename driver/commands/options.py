"""The options of the workbench's commands. No torch here: `--help` need not wait for it."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """The options that say where the graph comes from."""
    add = parser.add_argument
    add(
        "graph", nargs="?", type=Path, metavar="GRAPH",
        help="IR text (.ir), an .onnx file, or a Caffe2 folder; or give --config and --weights",
    )  # fmt: skip
    add("--config", metavar="FILE", help="detectron2 config of a model to capture")
    add("--weights", metavar="FILE", help="its checkpoint")


def add_pipeline_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which passes run."""
    add = parser.add_argument_group("which passes").add_argument
    add("--passes", metavar="A,B{x=1},...", help="passes with their options, in order")
    add("--pipeline", metavar="TARGET", help="a target's passes, see `detc passes`")
    add("--postprocess", action="store_true", help="of the target's pipeline: postprocessing is kept")
    add(
        "--masks",
        choices=("roi", "pasted"),
        default="roi",
        help="of the target's pipeline: how masks are given",
    )
    add(
        "--insert-after", metavar="PASS:NEW", action="append", default=[],
        help="put a pass right after another; the other may be given by its number from 1",
    )  # fmt: skip
    add("--insert-before", metavar="PASS:NEW", action="append", default=[], help="right before another")
    add("--replace", metavar="PASS:NEW", action="append", default=[], help="put a pass in another's place")
    add("--remove", metavar="PASS", action="append", default=[], help="leave a pass out")
    add("--stop-after", metavar="PASS", help="run no further than this pass, by name or number")
    add(
        "--pass-file", metavar="FILE", type=Path, action="append", default=[],
        help="a Python file that defines passes; it is run",
    )  # fmt: skip


def add_profile_option(parser: argparse.ArgumentParser) -> None:
    """The option of the commands that compile."""
    parser.add_argument(
        "--profile-compile", type=Path, metavar="FILE",
        help="write where the time went, as JSON for a browser's tracing page (ui.perfetto.dev, chrome://tracing)",
    )  # fmt: skip


def add_opt_options(parser: argparse.ArgumentParser) -> None:
    """The options of `detc opt`."""
    add_source_options(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE",
        help="write the result: IR text (.ir, weights beside it), or what its target writes; "
        "default: the text to standard output",
    )  # fmt: skip
    add_pipeline_options(parser)
    add = parser.add_argument_group("watch").add_argument
    for name, what in (("before", "the IR before"), ("after", "the IR after")):
        add(
            f"--print-{name}", metavar="PASS", action="append", default=[],
            help=f"print {what} a pass, or 'all'; can be given several times",
        )  # fmt: skip
    add("--print-changed", action="store_true", help="print the nodes that each pass took away and made")
    add("--filter", metavar="MODULE_PATH", help="print only nodes of this part of the model")
    add("--dump-ir", type=Path, metavar="DIR", help="write the IR after each pass to numbered files")
    add("--timing", action="store_true", help="print each pass's time")
    add("--statistics", action="store_true", help="print what each rule matched and why it refused")
    add = parser.add_argument_group("trust").add_argument
    add(
        "--check-each", nargs="*", metavar="IMAGE",
        help="run the graph after each pass, on images or, without any, on the inputs beside the file or random ones, "
        "and compare with the start; exit with 1 at the first difference",
    )  # fmt: skip
    add(
        "--verify-each", action=argparse.BooleanOptionalAction, default=True,
        help="verify the graph after each pass; default: on",
    )  # fmt: skip
    add(
        "--expensive-checks", action="store_true",
        help="also prove that a pass which said 'unchanged' changed nothing, and that print-parse is the identity",
    )  # fmt: skip
    add_profile_option(parser)


def add_analyze_options(parser: argparse.ArgumentParser) -> None:
    """The options of `detc analyze`."""
    add_source_options(parser)
    add = parser.add_argument
    add(
        "--size", metavar="NAME=NUMBER", action="append", default=[],
        help="a symbolic size, such as H=800; default: one image of about 800 x 800, 100 of what depends on the data",
    )  # fmt: skip
    add(
        "--depth",
        type=int,
        default=2,
        metavar="N",
        help="how far into the modules the table goes; default: 2",
    )
    add(
        "--between", nargs=2, metavar=("A", "B"),
        help="also list the nodes between two values, named as the IR prints them (inputs and outputs, too)",
    )  # fmt: skip
    add(
        "--find", type=Path, metavar="PATTERN.ir",
        help="also list where another graph stands in this one; its inputs stand for any value",
    )  # fmt: skip
    add(
        "--json",
        metavar="FILE",
        help="write everything as JSON ('-': to standard output, instead of the tables)",
    )


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """The options of `detc report`."""
    add_source_options(parser)
    add_pipeline_options(parser)
    parser.add_argument(
        "--check", nargs="*", metavar="IMAGE",
        help="also run the graph after each pass, on images, or without any on the inputs beside the file or random "
        "ones, and show how far the results are from the start",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", default=Path("report.html"),
        help="the page to write; default: report.html",
    )  # fmt: skip
    add_profile_option(parser)


def add_bisect_options(parser: argparse.ArgumentParser) -> None:
    """The options of `detc bisect`."""
    add_source_options(parser)
    add_pipeline_options(parser)
    parser.add_argument(
        "--check", nargs="+", metavar="IMAGE", default=[],
        help="images to run on; default: the inputs beside the file, or random ones",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", default=Path("reproducer.ir"),
        help="where to write the smallest graph that shows the fault; default: reproducer.ir",
    )  # fmt: skip
