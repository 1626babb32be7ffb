"""Where time goes: parts of the program say what they do, and whoever listens gets when and how long.

with span("verify", nodes=len(graph)) as facts:
    ...
    facts["problems"] = 0
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Span:
    """Something that was done. Times are in nanoseconds, of `time.perf_counter_ns` and `time.thread_time_ns`.

    Attributes:
        facts: what else is known of it, as JSON has it.
    """

    name: str
    start: int
    duration: int
    cpu_start: int
    cpu_duration: int
    facts: dict[str, Any]


_listener: ContextVar[list[Span] | None] = ContextVar("detc spans", default=None)


@contextmanager
def span(name: str, **facts: Any) -> Iterator[dict[str, Any]]:
    """A block that is a span, with what is known of it before; the dictionary takes what is known later."""
    listener = _listener.get()
    if listener is None:
        yield facts
        return
    start, cpu_start = time.perf_counter_ns(), time.thread_time_ns()
    try:
        yield facts
    finally:
        duration, cpu_duration = time.perf_counter_ns() - start, time.thread_time_ns() - cpu_start
        listener.append(Span(name, start, duration, cpu_start, cpu_duration, facts))


@contextmanager
def recorded() -> Iterator[list[Span]]:
    """A list that gets the spans of the block, each when it ends."""
    spans: list[Span] = []
    token = _listener.set(spans)
    try:
        yield spans
    finally:
        _listener.reset(token)


def is_recorded() -> bool:
    """Whether anybody listens."""
    return _listener.get() is not None
