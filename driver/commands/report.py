"""The command `report`: a page that shows what each pass did."""

from __future__ import annotations

import argparse

from rich import filesize

from detc.ir import DetcError, InputError, verify
from detc.passes import CheckNumerics, Context, Observer, VerifyEach

from ..report import Recorder, write_report
from ..show.terminal import Stages, output
from .opt import read_pipeline
from .sources import inputs_for, read_graph


def report(options: argparse.Namespace, stages: Stages) -> int:
    """Run the passes and write the page. When a pass fails, the page shows the passes before it.

    Errors:
        InputError: an option or the graph cannot be used. Nothing is written then.
        DetcError: a pass failed; the page is written all the same.
    """
    passes = read_pipeline(options)
    if options.output.suffix not in (".html", ".htm"):
        raise InputError(f"the report is a page: end {options.output.name} in .html")
    if not options.output.absolute().parent.is_dir():
        raise InputError(f"the output folder does not exist: {options.output.parent}")
    with stages.stage("read the graph"):
        graph = read_graph(options)
    check = None
    if options.check is not None:
        check = CheckNumerics(inputs_for(graph, options.check, options.graph), values=True)
    recorder, context = Recorder(), Context()
    observers: list[Observer] = [recorder, *([check] if check is not None else []), VerifyEach()]
    verify(graph)
    failed: DetcError | None = None
    with stages.stage("run the passes"):
        try:
            passes.run(graph, observers, verify=False, context=context)
        except DetcError as error:
            failed = error
    with stages.stage("write the page"):
        write_report(recorder.data(context, check), options.output)
    size = filesize.decimal(options.output.stat().st_size)
    output().print(f"{options.output}: {len(context.runs)} passes, {size}", soft_wrap=True)
    if failed is not None:
        raise failed
    return 0
