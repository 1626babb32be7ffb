"""What goes to the terminal: consoles, progress, tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from rich import box
from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table

from detc.ir.spans import span

_PIPE_WIDTH = 160


def output() -> Console:
    """Standard output. In a pipe it is plain text, and wide enough that no table is squeezed."""
    return _console(stderr=False)


def print_blocks(*blocks: RenderableType) -> None:
    """Print to standard output, an empty line before each. Lines of text are not broken."""
    console = output()
    for block in blocks:
        console.print()
        console.print(block, soft_wrap=isinstance(block, str))


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console


def table(*columns: str, title: str | None = None, right: Collection[str] = ()) -> Table:
    """An empty table. The columns named in `right` hold numbers, which are never broken into two lines."""
    made = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    for heading in columns:
        number = heading in right
        made.add_column(heading, justify="right" if number else "left", no_wrap=number, overflow="fold")
    return made


@dataclass
class Stages:
    """Runs named steps, shows on a terminal which one is under way, and keeps how long each took.

    Attributes:
        live: whether to show it; not while the steps themselves print.
        seconds: stage -> its time, in order.
    """

    live: bool = True
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[str], None]]:
        """Time a block. It gets a function that says how far it is."""
        console = _console(stderr=True)
        spinner = Spinner("dots", f"{name} ...")

        def progress(text: str) -> None:
            spinner.update(text=f"{name}: {text}")

        # Standard output stays what it is: it may be a pipe while this is shown on a terminal.
        shown = Live(spinner, console=console, transient=True, refresh_per_second=12, redirect_stdout=False)
        start = time.perf_counter()
        with span(name), shown if self.live and console.is_terminal else nullcontext():
            yield progress
        self.seconds[name] = time.perf_counter() - start

    def table(self) -> Table:
        """Each stage and its seconds."""
        made = table("stage", "seconds", right=("seconds",))
        for name, seconds in self.seconds.items():
            made.add_row(name, f"{seconds:.2f}")
        return made
