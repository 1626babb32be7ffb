"""What goes to the terminal: consoles, progress, tables of passes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

_PIPE_WIDTH = 160


def output() -> Console:
    """Standard output. In a pipe it is plain text, and wide enough that no table is squeezed."""
    return _console(stderr=False)


def messages() -> Console:
    """Standard error, for progress and remarks."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=_PIPE_WIDTH)


@dataclass
class Stages:
    """Runs named steps, shows which one is under way on a terminal, and keeps how long each took in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        console = messages()
        start = time.perf_counter()
        if console.is_terminal:
            with console.status(f"{name} ..."):
                yield
        else:
            yield
        self.seconds[name] = time.perf_counter() - start


def pass_table() -> Iterator[Table]:
    """For each target, its passes in order with the first line of their documentation."""
    from .api import TARGETS, pipeline

    for target in TARGETS:
        table = Table(title=f"{target}", title_justify="left")
        table.add_column("#", justify="right")
        table.add_column("pass")
        table.add_column("what it does")
        for i, step in enumerate(pipeline(target), 1):
            table.add_row(str(i), step.spec, step.summary)
        yield table
