"""The targets and their pipelines as tables, for `detc passes`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from rich.table import Table

from detc.backends.target import known_targets
from detc.ir import InputError
from detc.passes import Pass, known_passes

from ..api import pipeline
from ..show.terminal import table

_VARIANTS: dict[str, dict[str, Any]] = {
    "without --postprocess": {},
    "with --postprocess": {"postprocess": True},
    "with --masks pasted": {"postprocess": True, "masks": "pasted"},
}

_SPEC_WIDTH = 40


def pass_tables() -> Iterator[Table]:
    """For each target, its passes in order: the name, what it does, and when it runs if not always."""
    for name, target in known_targets().items():
        runtimes = " or ".join(choice.name for choice in target.runtimes)
        title = f"target {name}: {target.what_it_writes}, run by {runtimes}"
        made = table("#", "pass", "what it does", "when", title=title, right=("#",))
        for number, (step, when) in enumerate(_merged(name), 1):
            # Long options would squeeze the other columns.
            spec = step.spec if len(step.spec) <= _SPEC_WIDTH else f"{step.name}{{...}}"
            made.add_row(str(number), spec, step.summary, when)
        yield made


def other_passes() -> Iterator[Table]:
    """The passes that stand in no target's pipeline: a user's, and those that one asks for."""
    standing = {type(step) for target in known_targets() for step, _ in _merged(target)}
    made = table("pass", "what it does", "from", title="other passes")
    for name, item in known_passes().items():
        if item not in standing:
            made.add_row(name, item.pass_summary(), item.__module__)
    if made.row_count:
        yield made


def _merged(target: str) -> list[tuple[Pass, str]]:
    """The passes of all variants of a target's pipeline in one order; each with the variants it is in, if not all."""
    order: list[tuple[Pass, int]] = []
    members: dict[tuple[Pass, int], list[str]] = {}
    variants = 0
    for variant, options in _VARIANTS.items():
        try:
            steps = pipeline(target, **options)
        except InputError:
            # Not every target has all of them.
            continue
        variants += 1
        seen: Counter[Pass] = Counter()
        position = 0
        for step in steps:
            # A pass can stand in a pipeline twice: its occurrences are told apart.
            key = (step, seen[step])
            seen[step] += 1
            if key not in members:
                order.insert(position, key)
                members[key] = []
            position = order.index(key) + 1
            members[key].append(variant)
    return [(key[0], "" if len(members[key]) == variants else ", ".join(members[key])) for key in order]
