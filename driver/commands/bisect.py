"""The command `bisect`: which pass broke it, which rewrite in it, and the smallest graph that shows it."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from rich.syntax import Syntax

from detc.ir import InputError
from detc.passes import Culprit, Reproducer, bisect, reduce, save_graph

from ..show.terminal import Stages, output, print_blocks
from .opt import read_pipeline
from .sources import inputs_for, read_graph


def run_bisect(options: argparse.Namespace, stages: Stages) -> int:
    """Search, print what was found, write the reproducer; returns 1 if something is wrong, else 0.

    Errors:
        InputError: an option or the graph cannot be used.
        DetcError: the graph itself is wrong, or does not run on the inputs.
    """
    passes = read_pipeline(options)
    if options.output.suffix != ".ir":
        raise InputError(f"the reproducer is IR text: end {options.output.name} in .ir")
    with stages.stage("read the graph"):
        graph = read_graph(options)
    inputs = inputs_for(graph, options.check, options.graph)
    with stages.stage("run the passes"):
        culprit = bisect(passes, graph, inputs)
    console = output()
    if culprit is None:
        console.print(f"nothing is wrong: {len(passes)} passes keep what the graph computes")
        return 0
    _describe(culprit)
    with stages.stage("cut the graph down"):
        smallest = _smallest(culprit, inputs)
    if smallest is None:
        console.print("no part of the graph shows the fault on one of the inputs by itself")
        return 1
    save_graph(smallest.graph, options.output, smallest.inputs)
    words = ["detc", "opt", str(options.output), "--passes", culprit.pass_.spec, "--check-each"]
    for file in options.pass_file:
        words += ["--pass-file", str(file)]
    print_blocks(
        f"{options.output}: {len(smallest.graph)} of {len(culprit.before)} nodes. It shows the fault by itself:",
        f"  {shlex.join(words)}",
    )
    return 1


def _describe(culprit: Culprit) -> None:
    console = output()
    console.print(f"pass {culprit.index}, {culprit.pass_.spec}: {culprit.error}", soft_wrap=True)
    rewrite = culprit.rewrite
    if rewrite is None:
        return
    console.print(f"rewrite {rewrite.number} of {rewrite.total} in it, by the rule {rewrite.rule}:")
    if console.is_terminal:
        console.print(Syntax(rewrite.diff, "diff", background_color="default", word_wrap=True))
    else:
        console.print(rewrite.diff, soft_wrap=True)


def _smallest(culprit: Culprit, inputs: list[dict[str, Any]]) -> Reproducer | None:
    """On the first of the inputs that shows it."""
    names = {value.name for value in culprit.before.inputs}
    for given in inputs:
        if names <= set(given):
            found = reduce(culprit.before, culprit.pass_, {name: given[name] for name in names})
            if found is not None:
                return found
    return None
