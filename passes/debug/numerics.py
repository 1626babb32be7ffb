"""Checking a pipeline numerically: the graph is run after each pass and compared with the captured one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from typing_extensions import override

from detc.ir import DetcError, Graph, Interpreter, Node
from detc.ir.dialects.instances import InstancesBatch

from ..core.base import Pass, attribute
from ..core.observers import Observer
from ..detection.instances import input_name
from .compare import (
    Mismatch,
    Reference,
    Tolerances,
    compare,
    tensor_difference,
)
from .outputs import detection_groups, flatten_outputs


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

    Attributes:
        values: the same for each named value inside the graph that is still there, if values are compared.
        astray: which of those differ by more than the tolerances. It need be no fault: a pass may give a value
            another meaning, as long as the outputs stay.
    """

    index: int
    name: str
    differences: Mapping[str, float]
    values: Mapping[str, float] = field(default_factory=dict)
    astray: Sequence[str] = ()


class CheckNumerics(Observer):
    """Runs the graph after each pass in the interpreter, and compares its outputs with the captured graph's.

    Instances are compared field by field with the tensors that they were flattened to. After a pass that
    changes what the graph means (`changes_meaning`, such as removing the postprocessing), the results of then
    are the reference.

    Args:
        inputs: a tensor for each graph input, or a list of such. Inputs that a pass has removed are left out;
            instances that it has flattened are, too.
        reference: the graph to compare with; the one that the run starts with unless given.
        values: whether named values inside the graph are compared too, by their names, with the captured ones.

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
        *,
        values: bool = False,
    ) -> None:
        self.reports: list[PassReport] = []
        self._inputs = [inputs] if isinstance(inputs, Mapping) else list(inputs)
        self._graph = reference
        self.tolerances = tolerances or Tolerances()
        self._expected: list[Reference] = []
        self._values = values
        self._named: list[dict[str, Tensor]] = []

    @override
    def start(self, graph: Graph) -> None:
        self.reports = []
        reference = graph if self._graph is None else self._graph
        self._expected = self.run(reference)
        if self._values:
            self._named = [named_values(reference, _fitting(reference, given)) for given in self._inputs]
        if self._graph is not None:
            self._report(graph, 0, "start")

    @override
    def after(self, graph: Graph, pass_: Pass, index: int, changed: bool) -> None:
        if pass_.changes_meaning and changed:
            self._expected = self.run(graph)
            self.reports.append(PassReport(index, pass_.name, {}, *self._compare_values(graph)))
        else:
            self._report(graph, index, pass_.name)

    def run(self, graph: Graph) -> list[Reference]:
        """What a graph gives for the inputs."""
        interpreter = Interpreter(graph)
        thresholds = [_thresholds(graph, name) for name in ("score_thresh", "nms_thresh")]
        types = {name: value.type for name, value in graph.outputs.items()}
        groups = detection_groups(types)
        return [
            Reference(flatten_outputs(interpreter.run(_fitting(graph, given)), types), groups, *thresholds)
            for given in self._inputs
        ]

    def _report(self, graph: Graph, index: int, name: str) -> None:
        self.reports.append(PassReport(index, name, self.compare(graph, name), *self._compare_values(graph)))

    def _compare_values(self, graph: Graph) -> tuple[dict[str, float], list[str]]:
        differences: dict[str, float] = {}
        astray: dict[str, None] = {}
        for given, expected in zip(self._inputs, self._named, strict=False):
            actual = named_values(graph, _fitting(graph, given))
            for name in expected.keys() & actual.keys():
                left, right = expected[name], actual[name]
                if left.shape == right.shape and left.dtype == right.dtype:
                    difference, within = tensor_difference(left, right, self.tolerances)
                    differences[name] = max(differences.get(name, 0.0), difference)
                    if not within:
                        astray[name] = None
        return dict(sorted(differences.items())), sorted(astray)

    def compare(self, graph: Graph, name: str) -> dict[str, float]:
        """The largest difference of each of a graph's outputs from the reference. `name` is for the message.

        Errors:
            DivergenceError: an output differs, or is missing.
        """
        worst: dict[str, float] = {}
        interpreter = Interpreter(graph)
        types = {output: value.type for output, value in graph.outputs.items()}
        for given, expected in zip(self._inputs, self._expected, strict=True):
            actual = flatten_outputs(interpreter.run(_fitting(graph, given)), types)
            try:
                differences = compare(expected, actual, self.tolerances)
            except Mismatch as mismatch:
                raise DivergenceError(name, mismatch.output, mismatch.problem) from None
            for output, difference in differences.items():
                worst[output] = max(worst.get(output, 0.0), difference)
        return worst

    def report(self) -> str:
        """A line per pass with the largest difference of each output."""
        lines: list[str] = []
        for report in self.reports:
            parts = ", ".join(f"{name} {value:.2e}" for name, value in report.differences.items())
            lines.append(f"{report.index:03d} {report.name}: {parts or 'a new reference'}")
        return "\n".join(lines)


def named_values(graph: Graph, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """What a run gives the tensors inside a graph that have a name of their own, one that no other has."""
    counts = Counter(result.name for node in graph for result in node.results)
    found: dict[str, Tensor] = {}

    def keep(node: Node, results: Sequence[Any]) -> None:
        for value, result in zip(node.results, results, strict=True):
            if value.name and counts[value.name] == 1 and isinstance(result, Tensor):
                found[value.name] = result

    Interpreter(graph).run(inputs, hook=keep)
    return found


def _thresholds(graph: Graph, name: str) -> list[float]:
    found: set[float] = set()
    for node in graph:
        if name in node.op.attributes:
            value = attribute(node, name)
            if isinstance(value, int | float):
                found.add(float(value))
    return sorted(found)


def _fitting(graph: Graph, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given inputs that the graph has, instances as it wants them."""
    wanted = {value.name for value in graph.inputs}
    fitting = {name: value for name, value in given.items() if name in wanted}
    for name, value in given.items():
        if name not in wanted and isinstance(value, InstancesBatch):
            flat = {input_name(name, f): tensor for f, tensor in value.fields.items()}
            fitting.update({n: tensor for n, tensor in flat.items() if n in wanted})
    return fitting
