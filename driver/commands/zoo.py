"""The command `zoo`: measures, prints the table, writes it."""

from __future__ import annotations

import argparse

from rich.table import Table

from detc.backends.target import known_targets
from detc.ir import InputError

from ..check.zoo import Entry, as_markdown, find_models, measure, write_into
from ..show.terminal import Stages, print_blocks, table


def zoo(options: argparse.Namespace, stages: Stages) -> int:
    """Measure and print; returns 1 if what compiled differs from its model anywhere, else 0.

    Errors:
        InputError: the folder holds no models, or an option names none of them.
    """
    folders = find_models(options.folder)
    names = [folder.name for folder in folders]
    for wanted, known, what in (
        (options.model, names, "model"),
        (options.target, list(known_targets()), "target"),
    ):
        unknown = [name for name in wanted or [] if name not in known]
        if unknown:
            raise InputError(f"there is no {what} {', '.join(unknown)}; there are {', '.join(known)}")
    images = options.images or sorted(str(path) for path in options.folder.glob("scenes/*.png"))
    if not images:
        raise InputError(f"there are no images in {options.folder / 'scenes'}: give some with --images")
    chosen = [folder for folder in folders if not options.model or folder.name in options.model]
    with stages.stage("measure") as progress:
        entries = list(measure(chosen, images, options.target or list(known_targets()), progress))
    print_blocks(_table(entries), *_reasons(entries))
    if options.write is not None:
        write_into(options.write, as_markdown(entries))
    return int(any(cell.problem and cell.images for entry in entries for cell in entry.cells.values()))


def _table(entries: list[Entry]) -> Table:
    made = table("model", *(f"{target} ({runtime})" for target, runtime in entries[0].cells))
    for entry in entries:
        made.add_row(entry.name, *map(str, entry.cells.values()))
    return made


def _reasons(entries: list[Entry]) -> list[str]:
    return [
        f"{entry.name}, {target} ({runtime}): {cell.problem}"
        for entry in entries
        for (target, runtime), cell in entry.cells.items()
        if cell.problem
    ]
