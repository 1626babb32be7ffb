"""What code asks about sizes while it is traced, and the line that asks.

Nothing is proven: a question is answered for large example sizes. What torch's own code asks is its own affair.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import TypeAlias

import torch

from . import torch_parts
from .conditions import MIRRORED, Condition
from .dims import SymExpr

Questions: TypeAlias = dict[tuple[Condition | None, str], None]
"""What code outside of torch asked about sizes and was told is true, and the line that asked, in their order. None
stands for a condition that the IR cannot express."""

_listeners: list[Questions] = []


@contextmanager
def questions_noted() -> Iterator[Questions]:
    """Within the block, the questions are noted."""
    _listeners.append({})
    try:
        yield _listeners[-1]
    finally:
        _listeners.pop()


def questions_so_far() -> int:
    """How many are noted now, while they are."""
    return sum(map(len, _listeners))


def note(reasons: tuple[Condition | None, ...]) -> None:
    """Note that code was told that these are true, if it is a model's."""
    if not _listeners:
        return
    frame, by_python = _asking_frame()
    if frame is None or _is_torchs(frame):
        return
    for condition in reasons:
        if by_python or condition is None or not _is_plain(condition):
            _listeners[-1].setdefault((condition, _line(frame)))


def _is_plain(question: Condition) -> bool:
    """Whether it asks of a size that adds up sizes if it is 0 or 1, or of any if it is negative: what torch's operators
    ask of every size.

    To note these would be to note that no size is 1, of every size there is.
    """
    number, size, relation = question.right, question.left, question.relation
    if isinstance(size, int):
        number, size, relation = size, number, relation.translate(MIRRORED)
    if not isinstance(number, int) or not isinstance(size, SymExpr):
        return False
    return (number, relation) == (0, ">=") or (number <= 1 and all(factor > 0 for _, factor in size.terms))


_TORCH = tuple(f"{path}/" for path in torch.__path__)
_HERE = Path(__file__).parent
_MACHINERY = ("symbolic", "symbolic_numbers", "questions", "aten", "builder")


@cache
def _is_machinery(file: str) -> bool:
    """Whether a file only passes questions on."""
    if file in (torch.__file__, torch_parts.sym_node.__file__):
        return True
    folder = Path(file).parent
    return folder == _HERE / "tracing" or (folder == _HERE and Path(file).stem in _MACHINERY)


def _asking_frame() -> tuple[FrameType | None, bool]:
    """The frame that wants to know, and whether it does so by Python's operators (`if size > 3`), not torch's core."""
    by_python = False
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_machinery(frame.f_code.co_filename):
        by_python |= frame.f_code.co_filename == torch.__file__
        frame = frame.f_back
    return frame, by_python


def _is_torchs(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_TORCH)


def place_at_work() -> str:
    """The line at work outside of torch and detc's own machinery."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and (_is_torchs(frame) or _is_machinery(frame.f_code.co_filename)):
        frame = frame.f_back
    return _line(frame)


def _line(frame: FrameType | None) -> str:
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else "torch"
