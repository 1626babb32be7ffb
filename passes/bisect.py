"""Finding the pass that broke it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from detc.ir import DetcError, Graph

from .base import Pass
from .compare import Tolerances
from .numerics import CheckNumerics
from .observers import Observer
from .pipeline import Pipeline


@dataclass(frozen=True)
class Culprit:
    """The first pass after which something is wrong. `index` counts from 1; `error` says what is wrong."""

    index: int
    pass_: Pass
    error: DetcError


def bisect(
    pipeline: Pipeline,
    graph: Graph,
    inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    tolerances: Tolerances | None = None,
) -> Culprit | None:
    """The first pass that fails, breaks a rule of the IR, or makes an output differ; None if all is well.

    Errors:
        DetcError: the graph itself is wrong, or does not run on the inputs.
    """
    at = _Position()
    try:
        pipeline.run(graph, [at, CheckNumerics(inputs, tolerances=tolerances)])
    except DetcError as error:
        if at.current is None:
            raise
        return Culprit(at.index, at.current, error)
    return None


class _Position(Observer):
    index = 0
    current: Pass | None = None

    @override
    def before(self, graph: Graph, pass_: Pass, index: int) -> None:
        self.current, self.index = pass_, index
