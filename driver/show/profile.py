"""Where the time of a compile goes, for a browser's tracing page.

with detc.Profile("compile.json"):
    detc.compile(model).save("model.onnx")
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from detc.ir.spans import Span, recorded, span


class Profile:
    """Records a block's spans: capture with the modules in it, each pass, each verification, emitting, writing.

    The file is written when the block ends, well or not. It has the Trace Event Format, which ui.perfetto.dev and
    chrome://tracing open: a complete event for each span, times in microseconds (`dur` of the clock, `tdur` of the
    CPU), and what is known of it in `args`, such as a pass's nodes before and after.

    Errors:
        InputError: the file cannot be written; where its folder does not exist, already when the block begins.
    """

    def __init__(self, path: str | os.PathLike[str], name: str = "detc") -> None:
        self._path = Path(path)
        self._name = name

    def __enter__(self) -> None:
        from detc.ir import InputError  # noqa: PLC0415  (`detc --help` need not wait for it)

        if not self._path.absolute().parent.is_dir():
            raise InputError(f"the folder of the profile does not exist: {self._path.parent}")
        self._recording = recorded()
        self._spans = self._recording.__enter__()
        self._whole: AbstractContextManager[Any] = span(self._name)
        self._whole.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from detc.ir.files import atomic_write  # noqa: PLC0415  (as above)

        self._whole.__exit__(None, None, None)
        self._recording.__exit__(None, None, None)
        with atomic_write(self._path) as file:
            file.write(json.dumps(_trace(self._spans)).encode())


def _trace(spans: list[Span]) -> dict[str, Any]:
    where = {"pid": os.getpid(), "tid": threading.get_native_id()}
    first = min(one.start for one in spans)
    events = [
        {
            "ph": "X",
            "name": one.name,
            "ts": (one.start - first) / 1e3,
            "dur": one.duration / 1e3,
            "tts": one.cpu_start / 1e3,
            "tdur": one.cpu_duration / 1e3,
            "args": one.facts,
            **where,
        }
        for one in sorted(spans, key=lambda one: (one.start, -one.duration))
    ]
    return {"traceEvents": events, "displayTimeUnit": "ms"}
