"""Checking a pipeline numerically: the graph is run after each pass and compared with the captured one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from detc.ir import DetcError, Graph, Interpreter
from detc.ir.dialects.instances import InstancesBatch

from .base import Pass, attribute
from .compare import Mismatch, Reference, Tolerances, compare, detection_groups, flatten_outputs
from .instances import input_name
from .observers import Observer


class DivergenceError(DetcError):
    """After a pass an output differs from the reference by more than the tolerances.

    Attributes:
        after: the pass's name.
        output: the output's name.
    """

    def __init__(self, after: str, output: str, problem: str) -> None:
        super().__init__(f"after the pass {after} the output {output!r} differs: {problem}")
        self.after = after
        self.output = output


@dataclass(frozen=True)
class PassReport:
    """How far each output was from the reference after a pass: the largest absolute difference by output.

    For masks it is 1 - IoU. Index 0 is the graph before the first pass.
    """

    index: int
    name: str
    differences: Mapping[str, float]


class CheckNumerics(Observer):
    """Runs the graph after each pass in the interpreter, and compares its outputs with the captured graph's.

    Instances are compared field by field with the tensors that they were flattened to. After a pass that
    changes what the graph means (`changes_meaning`, such as removing the postprocessing), the results of then
    are the reference.

    Args:
        inputs: a tensor for each graph input, or a list of such. Inputs that a pass has removed are left out;
            instances that it has flattened are, too.
        reference: the graph to compare with; the one that the run starts with unless given.

    Attributes:
        reports: a `PassReport` for each pass so far.

    Errors:
        DivergenceError: an output differs, or is missing.
    """

    def __init__(
        self,
        inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        reference: Graph | None = None,
        tolerances: Tolerances | None = None,
    ) -> None:
        self.reports: list[PassReport] = []
        self._inputs = [inputs] if isinstance(inputs, Mapping) else list(inputs)
        self._graph = reference
        self._tolerances = tolerances or Tolerances()
        self._expected: list[Reference] = []

    @override
    def start(self, graph: Graph) -> None:
        self.reports = []
        self._expected = self._run(graph if self._graph is None else self._graph)
        if self._graph is not None:
            self._compare(graph, 0, "start")

    @override
    def after(self, graph: Graph, pass_: Pass, index: int, changed: bool) -> None:
        if getattr(pass_, "changes_meaning", False) and changed:
            self._expected = self._run(graph)
            self.reports.append(PassReport(index, pass_.name, {}))
        else:
            self._compare(graph, index, pass_.name)

    def _run(self, graph: Graph) -> list[Reference]:
        interpreter = Interpreter(graph)
        thresholds = sorted(_score_thresholds(graph))
        types = {name: value.type for name, value in graph.outputs.items()}
        groups = detection_groups(types)
        return [
            Reference(flatten_outputs(interpreter.run(_fitting(graph, given)), types), groups, thresholds)
            for given in self._inputs
        ]

    def _compare(self, graph: Graph, index: int, name: str) -> None:
        worst: dict[str, float] = {}
        interpreter = Interpreter(graph)
        types = {output: value.type for output, value in graph.outputs.items()}
        for given, expected in zip(self._inputs, self._expected, strict=True):
            actual = flatten_outputs(interpreter.run(_fitting(graph, given)), types)
            try:
                differences = compare(expected, actual, self._tolerances)
            except Mismatch as mismatch:
                raise DivergenceError(name, mismatch.output, mismatch.problem) from None
            for output, difference in differences.items():
                worst[output] = max(worst.get(output, 0.0), difference)
        self.reports.append(PassReport(index, name, worst))

    def report(self) -> str:
        """A line per pass with the largest difference of each output."""
        lines: list[str] = []
        for report in self.reports:
            parts = ", ".join(f"{name} {value:.2e}" for name, value in report.differences.items())
            lines.append(f"{report.index:03d} {report.name}: {parts or 'a new reference'}")
        return "\n".join(lines)


def _score_thresholds(graph: Graph) -> set[float]:
    found: set[float] = set()
    for node in graph:
        if "score_thresh" in node.op.attributes:
            value = attribute(node, "score_thresh")
            if isinstance(value, int | float):
                found.add(float(value))
    return found


def _fitting(graph: Graph, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given inputs that the graph has, instances as it wants them."""
    wanted = {value.name for value in graph.inputs}
    fitting = {name: value for name, value in given.items() if name in wanted}
    for name, value in given.items():
        if name not in wanted and isinstance(value, InstancesBatch):
            flat = {input_name(name, f): tensor for f, tensor in value.fields.items()}
            fitting.update({n: tensor for n, tensor in flat.items() if n in wanted})
    return fitting
