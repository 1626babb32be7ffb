"""What passes did, as tables."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from .terminal import table

if TYPE_CHECKING:
    from detc.passes import CheckNumerics, Context, Pass, PassReport, PassRun

_SHOWN = 3


def timing_table(runs: Sequence[PassRun]) -> Table:
    """Each pass's time and its share, and how many nodes it left."""
    numbers = ("#", "ms", "share", "nodes")
    made = table("#", "pass", "ms", "share", "nodes", title="time", right=numbers)
    total = sum(run.seconds for run in runs) or 1.0
    for run in runs:
        nodes = f"{run.nodes_after} ({run.nodes_after - run.nodes_before:+d})"
        made.add_row(
            str(run.index), run.name, f"{run.seconds * 1e3:.1f}", f"{run.seconds / total:.0%}", nodes
        )
    made.add_row("", "all", f"{total * 1e3:.1f}", "100%", str(runs[-1].nodes_after) if runs else "")
    return made


def statistics_tables(context: Context) -> Iterator[Table]:
    """Each rule's tries, matches and reasons to refuse, the most frequent first."""
    made = table(
        "pass",
        "rule",
        "tried",
        "matched",
        "ms",
        "refused because",
        title="rules",
        right=("tried", "matched", "ms"),
    )
    last = ""
    for (owner, rule), count in context.rules.items():
        if not count.tried:
            continue
        reasons = [f"{number} x {why}" for why, number in count.refused.most_common(_SHOWN)]
        if len(count.refused) > _SHOWN:
            reasons.append(f"and {len(count.refused) - _SHOWN} other reasons")
        made.add_row(
            owner if owner != last else "",
            rule,
            str(count.tried),
            str(count.matched),
            f"{count.seconds * 1e3:.1f}",
            "\n".join(reasons),
        )
        last = owner
    yield made


def check_table(check: CheckNumerics) -> Table:
    """For each pass the largest difference of each output and of each named value that is still there."""
    allowed = check.tolerances
    made = table(
        "#", "pass", "outputs", "named values",
        title=f"largest differences (tensors: rtol {allowed.rtol:g}, atol {allowed.atol:g}; detections: "
        f"IoU {allowed.iou:g}, score {allowed.score:g}; masks: 1 - IoU)",
        right=("#",),
    )  # fmt: skip
    for report in check.reports:
        outputs = _listed(report.differences) or "the new reference"
        made.add_row(str(report.index), report.name, outputs, _values(report))
    return made


def _listed(differences: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.1e}" for name, value in differences.items())


def _values(report: PassReport) -> str:
    if not report.values:
        return ""
    worst = sorted(report.values.items(), key=lambda item: -item[1])
    return ", ".join(
        f"{name} {value:.1e}{' (astray)' if name in report.astray else ''}" for name, value in worst
    )


def explain(item: type[Pass]) -> Iterator[str | Table]:
    """A pass class: its docstring, its options, its rules."""
    yield f"{item.pass_name()}  ({item.__module__}.{item.__qualname__})"
    yield inspect.cleandoc(item.__doc__ or "It has no docstring.")
    options = table("option", "type", "default", title="options")
    for field in dataclasses.fields(item):
        default = "needed" if field.default is dataclasses.MISSING else repr(field.default)
        options.add_row(field.name, str(field.type), default)
    if options.row_count:
        yield options
    try:
        rules = item().rules
    except TypeError:
        # Its options have no defaults.
        return
    if rules:
        made = table("rule", "what it does", title=f"{len(rules)} rules")
        for name, summary in rules.items():
            made.add_row(name, summary)
        yield made
