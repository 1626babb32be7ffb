"""`python -m benchmarks`: measure, print the tables, and write RESULTS.md."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from . import caffe2, compiling, configs, peers, running, starting, torchscript
from .report import Section, markdown, show

PARTS: dict[str, Callable[[Path, int], list[Section]]] = {
    "compile": compiling.run,
    "start": starting.run,
    "latency": running.run,
    "torchscript": torchscript.run,
    "caffe2": caffe2.run,
    "scaling": peers.run,
    "configs": configs.run,
}
RESULTS = Path(__file__).resolve().parent / "RESULTS.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; the exit status is 1 where a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all by default")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side is measured (%(default)s)")
    parser.add_argument(
        "--work", type=Path, help="keep the files here, and use what is here (a temporary folder)"
    )
    parser.add_argument("--output", type=Path, help="where to write the tables (RESULTS.md if all parts run)")
    options = parser.parse_args(arguments)
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    parts = options.parts or list(PARTS)
    sections: list[Section] = []
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        for part in parts:
            print(f"measuring: {part}", file=sys.stderr)
            sections += PARTS[part](work.resolve(), options.rounds)
    show(sections)
    output = options.output or (RESULTS if set(parts) == set(PARTS) else None)
    if output:
        output.write_text(markdown(sections), encoding="utf-8")
    return int(any(row.passed is False for section in sections for row in section.rows))


if __name__ == "__main__":
    sys.exit(main())
