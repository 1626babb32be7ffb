"""The part `scaling`: how the generic passes grow with the graph."""

from __future__ import annotations

from pathlib import Path

from . import scaling
from .report import Section, at_most

_LINEAR = 1.5
"""Time per node on the largest graph against the smallest: caches take their part, a quadratic pass has 100."""


def run(work: Path, rounds: int) -> list[Section]:
    """Measure on graphs that are made for it."""
    measured = scaling.measure()
    sizes = [key for key in measured[0] if key not in ("what", "growth")]
    return [
        Section(
            "Scaling",
            "The generic passes, and the rest that walks over whole graphs, on synthetic graphs: time per node on the "
            "largest graph against that on the smallest.",
            [at_most(row["what"], row["growth"], _LINEAR) for row in measured],
            [
                ("nodes", *sizes),
                *((row["what"], *(f"{row[size]:.3f} s" for size in sizes)) for row in measured),
            ],
        )
    ]
