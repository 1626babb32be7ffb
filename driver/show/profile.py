"""Where the time of a compile goes, for a browser's tracing page.

with detc.Profile("compile.json"):
    detc.compile(model).save("model.onnx")
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from detc.ir.spans import Span, is_recorded, recorded, span

if TYPE_CHECKING:
    from torch import nn


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


@contextmanager
def module_spans(model: nn.Module) -> Iterator[None]:
    """A block in which each call of a module of the model is a span, named by the module's path."""
    if not is_recorded():
        yield
        return
    from torch.nn.modules import module as hooks  # noqa: PLC0415  (takes seconds)

    paths = {module: path or "(model)" for path, module in model.named_modules()}
    under_way: list[AbstractContextManager[Any]] = []

    def enter(module: nn.Module, _: Any) -> None:
        kind = type(module).__name__
        under_way.append(span(paths.get(module, kind), module=kind))
        under_way[-1].__enter__()

    def leave(*_: Any) -> None:
        under_way.pop().__exit__(None, None, None)

    with (
        hooks.register_module_forward_pre_hook(enter),
        hooks.register_module_forward_hook(leave, always_call=True),
    ):
        yield
