"""The results: rows with their targets, as a table on the terminal and in RESULTS.md."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path

THREADS = 2
PACKAGES = ("torch", "torchvision", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Row:
    """One result.

    `target` is the bound in words, empty where there is none; `passed` says whether it is kept.
    """

    what: str
    value: str
    target: str = ""
    passed: bool | None = None

    @property
    def verdict(self) -> str:
        """pass, fail, or nothing."""
        return {True: "pass", False: "FAIL", None: ""}[self.passed]


@dataclass(frozen=True)
class Section:
    """A table of results, what was measured and how, and details below it."""

    title: str
    about: str
    rows: Sequence[Row]
    details: Sequence[Sequence[str]] = field(default=())
    """A second table, its first line the header."""


def at_least(what: str, value: float, bound: float) -> Row:
    """A ratio that should be large."""
    return Row(what, f"{value:.2f}x", f"at least {bound:g}x", value >= bound)


def at_most(what: str, value: float, bound: float) -> Row:
    """A ratio that should be small."""
    return Row(what, f"{value:.2f}x", f"at most {bound:g}x", value <= bound)


def in_seconds(what: str, value: float, bound: float) -> Row:
    """A time that should be short."""
    return Row(what, f"{value:.2f} s", f"at most {bound:g} s", value <= bound)


def environment() -> list[tuple[str, str]]:
    """What the numbers depend on."""
    return [
        ("date", date.today().isoformat()),
        ("CPU", _cpu_name()),
        ("threads", str(THREADS)),
        ("Python", platform.python_version()),
        *((name, version(name)) for name in PACKAGES),
    ]


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def show(sections: Iterable[Section]) -> None:
    """Print the tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    colors = {"pass": "green", "FAIL": "bold red", "": ""}
    for section in sections:
        table = Table(
            title=section.title, title_justify="left", caption=section.about, caption_justify="left"
        )
        for name in ("what", "measured", "target", ""):
            table.add_column(name, justify="right" if name == "measured" else "left")
        for row in section.rows:
            table.add_row(row.what, row.value, row.target, row.verdict, style=colors[row.verdict])
        console.print(table)
        if section.details:
            details = Table(*section.details[0])
            for line in section.details[1:]:
                details.add_row(*line)
            console.print(details)


def markdown(sections: Iterable[Section]) -> str:
    """The tables as RESULTS.md has them."""
    lines = [
        "# Benchmark results",
        "",
        "Written by `make bench`. Each ratio is of medians from one run, in which the two sides took turns; absolute",
        "times depend on what else the machine did, and are here for scale only.",
        "",
        *_table(("", ""), environment()),
    ]
    for section in sections:
        lines += ["", f"## {section.title}", "", section.about, ""]
        rows = [(row.what, row.value, row.target, row.verdict) for row in section.rows]
        lines += _table(("what", "measured", "target", ""), rows)
        if section.details:
            lines += ["", *_table(section.details[0], section.details[1:])]
    return "\n".join(lines) + "\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(cells)} |"
        for cells in (header, ["---"] * len(header), *([c.replace("|", "\\|") for c in r] for r in rows))
    ]
