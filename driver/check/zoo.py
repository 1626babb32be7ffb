"""The command `zoo`: which models compile to which targets, and run there, measured on a folder of models.

Every cell of the table is what happened: the model was compiled, the file's runtime ran it on each image alone (they
differ in size) and on all of them as one batch, and what it found was compared with what the model finds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from detc.backends.images import model_input, read_image
from detc.backends.target import RuntimeChoice, Target, find_target, known_targets, load_artifact
from detc.frontend import load_model
from detc.ir import DetcError, InputError, UnsupportedError

from ..api import compile
from .parity import check_parity

BEGIN, END = "<!-- detc zoo -->", "<!-- end of detc zoo -->"
"""Where the table stands in a Markdown file."""


@dataclass(frozen=True)
class Cell:
    """How one model fared on one target, in one runtime.

    Attributes:
        images: how many images of other sizes than each other were run alone, 0 if it did not compile.
        batch: the images that one run took: "any" number, or a fixed one.
        problem: why not, or why not in a batch; empty where all agrees.
        alone: whether each image by itself agrees.
        least: the least height and width of what the file takes; 0 if that is what the model takes too.
    """

    images: int
    batch: str
    problem: str = ""
    alone: bool = True
    least: int = 0

    def __str__(self) -> str:
        sizes = f"from {self.least} pixels" if self.least else "any size"
        if self.problem:
            return f"{sizes}, alone" if self.images and self.alone else "no"
        return f"{sizes}, any batch" if self.batch == "any" else f"{sizes}, fixed batch"


@dataclass(frozen=True)
class Entry:
    """A model and its cells by target and runtime."""

    name: str
    cells: Mapping[tuple[str, str], Cell]


def find_models(folder: Path) -> list[Path]:
    """The folders in it that hold a config.yaml and a model_final.pth.

    Errors:
        InputError: there is none.
    """
    found = sorted(
        path.parent for path in folder.glob("*/config.yaml") if (path.parent / "model_final.pth").exists()
    )
    if not found:
        raise InputError(f"{folder} holds no folder with a config.yaml and a model_final.pth")
    return found


def measure(
    folders: Sequence[Path],
    images: Sequence[str],
    targets: Iterable[str] | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[Entry]:
    """Compile and run each model for each target, by default for all.

    Errors:
        InputError: an image, a config or a checkpoint cannot be read.
    """
    for folder in folders:
        progress(f"{folder.name}: load")
        model = load_model(folder / "config.yaml", folder / "model_final.pth")
        cells: dict[tuple[str, str], Cell] = {}
        for target in known_targets() if targets is None else targets:
            progress(f"{folder.name}: {target}")
            cells |= {(target, name): cell for name, cell in measure_target(model, target, images).items()}
        yield Entry(folder.name, cells)


def runtimes(target: Target) -> list[RuntimeChoice]:
    """What runs a target's files here, of what is installed."""
    return [choice for choice in target.runtimes if choice.is_installed]


def measure_target(model: nn.Module, target: str, images: Sequence[str]) -> dict[str, Cell]:
    """Compile a model for a target, write the file, and in each runtime compare it with the model on the images."""
    found = find_target(target)
    fixed = "batch" in found.options
    batch = len(images) if fixed and len(images) > 1 else None
    try:
        artifact = compile(model, target, batch=batch)
    except UnsupportedError as error:
        return dict.fromkeys(map(str, runtimes(found)), Cell(0, "", _brief(error)))
    divisibility, least = _divisibility(artifact.metadata), _least(artifact.metadata)
    inputs: dict[str, dict[str, Any]] = {}
    for path in images:
        one = model_input(read_image(path), artifact.metadata)
        if min(-(-side // divisibility) * divisibility for side in one["image"].shape[1:]) >= least:
            inputs[path] = one
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"model{found.suffix}"
        artifact.save(file)
        cell = Cell(len(inputs), str(len(images)) if fixed else "any", least=least)
        return {str(choice): _run(model, file, choice.name, inputs, cell) for choice in runtimes(found)}


def _divisibility(metadata: Mapping[str, Any]) -> int:
    return max(1, int(metadata["size_divisibility"]))


def _least(metadata: Mapping[str, Any]) -> int:
    """The least side of the images that a file takes, 0 where any that the model takes will do."""
    sides = [int(metadata.get("least", {}).get(name, 0)) for name in ("H", "W")]
    return max(sides) if max(sides) > _divisibility(metadata) else 0


def _run(
    model: nn.Module, path: Path, runtime: str, inputs: Mapping[str, Mapping[str, Any]], cell: Cell
) -> Cell:
    """The cell, if the file agrees with the model."""
    if not inputs:
        return replace(cell, problem=f"no image has {cell.least} pixels along both sides")
    try:
        # What was written a moment ago is trusted.
        rows = check_parity(model, load_artifact(path, runtime=runtime, trusted=True), inputs)
    except DetcError as error:
        return replace(cell, images=0, problem=_brief(error).replace(str(path), "the file"))
    wrong = [row for row in rows if not row.report.agrees]
    if not wrong:
        return cell
    first = wrong[0]
    where = f"{Path(first.image).name}, " + (f"in a batch of {first.batch}" if first.batch > 1 else "alone")
    return replace(cell, problem=f"{where}: {first.report.problem}", alone=first.batch > 1)


def _brief(error: DetcError) -> str:
    """Its first line, and the second where the first only announces it."""
    lines = str(error).splitlines()
    return " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])


def as_markdown(entries: Sequence[Entry], note: str = "") -> str:
    """The table, and below it why a cell says no."""
    columns = list(entries[0].cells)
    lines = [
        "| model | " + " | ".join(f"{target} ({runtime})" for target, runtime in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    reasons: dict[str, int] = {}
    for entry in entries:
        cells: list[str] = []
        for cell in entry.cells.values():
            number = reasons.setdefault(cell.problem, len(reasons) + 1) if cell.problem else None
            cells.append(str(cell) + (f" [{number}]" if number else ""))
        lines.append(f"| {entry.name} | " + " | ".join(cells) + " |")
    lines += [""] * bool(reasons)
    lines += [f"[{number}] {reason.replace('|', '/')}  " for reason, number in reasons.items()]
    return "\n".join([*lines, *(["", note] if note else [])])


def write_into(path: Path, table: str) -> None:
    """Replace the table between the marks in a Markdown file.

    Errors:
        InputError: the file cannot be read, or has no marks.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{path} has no lines {BEGIN} and {END} for the table to stand between")
    path.write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}", encoding="utf-8")
