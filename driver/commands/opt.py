"""The command `opt`: any passes over any graph, watched and checked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from detc.backends.target import known_targets
from detc.ir import Graph, InputError, print_graph, verify
from detc.passes import (
    CheckNumerics,
    Context,
    DumpIR,
    ExpensiveChecks,
    Observer,
    Pipeline,
    PrintAfter,
    PrintBefore,
    PrintChanged,
    VerifyEach,
    load_entry_points,
    load_pass_file,
    parse_pass,
    parse_passes,
    save_graph,
)

from ..api import emit, pipeline
from ..show.passes import check_table, statistics_tables, timing_table
from ..show.terminal import Stages, output, print_blocks
from .sources import inputs_for, read_graph


def read_pipeline(options: argparse.Namespace) -> Pipeline:
    """The passes that the options name.

    Errors:
        InputError: there are none, or one is not known.
    """
    load_entry_points()
    for file in options.pass_file:
        load_pass_file(file)
    if (options.passes is None) == (options.pipeline is None):
        raise InputError("give either --passes or --pipeline (see `detc passes`)")
    if options.passes is not None:
        made = parse_passes(options.passes)
    else:
        made = pipeline(options.pipeline, postprocess=options.postprocess, masks=options.masks)
    for text in options.insert_after:
        where, spec = _position(made, text, "--insert-after")
        made.insert(where + 1, parse_pass(spec))
    for text in options.insert_before:
        where, spec = _position(made, text, "--insert-before")
        made.insert(where, parse_pass(spec))
    for text in options.replace:
        where, spec = _position(made, text, "--replace")
        made[where] = parse_pass(spec)
    for name in options.remove:
        del made[_index(made, name)]
    if options.stop_after is not None:
        made = made[: _index(made, options.stop_after) + 1]
    return made


def _position(made: Pipeline, text: str, option: str) -> tuple[int, str]:
    where, colon, spec = text.partition(":")
    if not colon or not spec:
        raise InputError(f"{option} wants PASS:NEW, such as dead-code:fuse, not {text!r}")
    return _index(made, where), spec


def _index(made: Pipeline, where: str) -> int:
    return made.position(int(where) - 1 if where.isdigit() and where != "0" else where)


def opt(options: argparse.Namespace, stages: Stages) -> int:
    """Run the passes, print what was asked for, write the result.

    Errors:
        InputError: an option or the graph cannot be used. Nothing is written then.
        DetcError: a pass failed, or a check did.
    """
    passes = read_pipeline(options)
    _check_names(passes, [*options.print_before, *options.print_after])
    with stages.stage("read the graph"):
        graph = read_graph(options)
    _check_output(options.output, graph)
    check = None
    if options.check_each is not None:
        check = CheckNumerics(inputs_for(graph, options.check_each, options.graph), values=True)
    context = Context()
    observers: list[Observer] = [*_watchers(options), *([check] if check is not None else [])]
    if options.verify_each:
        verify(graph)
        # After a pass the last observer comes first: what the verifier refuses is not run.
        observers.append(VerifyEach())
    try:
        with stages.stage("run the passes"):
            result = passes.run(graph, observers, verify=False, context=context)
    finally:
        # What was measured up to a failure is what one looks for then.
        blocks = [timing_table(context.runs)] if options.timing else []
        blocks += statistics_tables(context) if options.statistics else []
        blocks += [check_table(check)] if check is not None and check.reports else []
        print_blocks(*blocks)
    _write(result, options.output)
    return 0


def _watchers(options: argparse.Namespace) -> list[Observer]:
    made: list[Observer] = [ExpensiveChecks()] if options.expensive_checks else []
    for observer, names in ((PrintBefore, options.print_before), (PrintAfter, options.print_after)):
        if names:
            made.append(observer("all" if "all" in names else names, sys.stdout, module=options.filter))
    if options.print_changed:
        made.append(PrintChanged(sys.stdout, color=output().is_terminal, module=options.filter))
    if options.dump_ir is not None:
        made.append(DumpIR(options.dump_ir))
    return made


def _check_names(passes: Pipeline, names: Sequence[str]) -> None:
    known = list(dict.fromkeys(item.name for item in passes))
    unknown = [name for name in names if name not in (*known, "all")]
    if unknown:
        raise InputError(f"there is no pass {', '.join(map(repr, unknown))}; there are {', '.join(known)}")


def _check_output(path: Path | None, graph: Graph) -> None:
    if path is None:
        return
    if not path.absolute().parent.is_dir():
        raise InputError(f"the output folder does not exist: {path.parent}")
    suffixes = {target.suffix for target in known_targets().values()}
    if path.suffix not in {".ir", *suffixes}:
        endings = ", ".join([".ir", *sorted(suffix for suffix in suffixes if suffix)])
        raise InputError(
            f"cannot write {path.name}: its name must end in {endings}, or in nothing for a folder"
        )


def _write(graph: Graph, path: Path | None) -> None:
    if path is None:
        print(print_graph(graph), end="")
    elif path.suffix == ".ir":
        save_graph(graph, path)
    else:
        emit(graph, _target_of(graph, path)).save(path)


def _target_of(graph: Graph, path: Path) -> str | None:
    """The target that the file's name and the graph's level say; None where none has both."""
    for name, target in known_targets().items():
        if target.suffix == path.suffix and target.level == graph.level:
            return name
    return next(name for name, target in known_targets().items() if target.suffix == path.suffix)
