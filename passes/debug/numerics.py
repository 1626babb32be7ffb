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


@dataclass(frozen=True)
class _Result:
    """What a run gives: the outputs, and the tensors inside that have a name of their own, one that no other has."""

    outputs: Mapping[str, Tensor]
    named: Mapping[str, Tensor]


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
        self._named: list[Mapping[str, Tensor]] = []

    @override
    def start(self, graph: Graph) -> None:
        self.reports = []
        reference = graph if self._graph is None else self._graph
        results = self._results(reference)
        self._expected, self._named = self._references(reference, results), [r.named for r in results]
        if self._graph is not None:
            self._report(graph, 0, "start")

    @override
    def after(self, graph: Graph, pass_: Pass, index: int, changed: bool) -> None:
        if pass_.changes_meaning and changed:
            results = self._results(graph)
            self._expected = self._references(graph, results)
            self.reports.append(PassReport(index, pass_.name, {}, *self._compare_values(results)))
        else:
            self._report(graph, index, pass_.name)

    def run(self, graph: Graph) -> list[Reference]:
        """What a graph gives for the inputs."""
        return self._references(graph, self._results(graph))

    def compare(self, graph: Graph, name: str) -> dict[str, float]:
        """The largest difference of each of a graph's outputs from the reference. `name` is for the message.

        Errors:
            DivergenceError: an output differs, or is missing.
        """
        return self._compare_outputs(self._results(graph), name)

    def _results(self, graph: Graph) -> list[_Result]:
        interpreter = Interpreter(graph)
        types = {name: value.type for name, value in graph.outputs.items()}
        counts = Counter(result.name for node in graph for result in node.results)
        found: list[_Result] = []
        for given in self._inputs:
            named: dict[str, Tensor] = {}

            def keep(node: Node, results: Sequence[Any], named: dict[str, Tensor] = named) -> None:
                for value, result in zip(node.results, results, strict=True):
                    if value.name and counts[value.name] == 1 and isinstance(result, Tensor):
                        named[value.name] = result

            outputs = interpreter.run(_fitting(graph, given), hook=keep if self._values else None)
            found.append(_Result(flatten_outputs(outputs, types), named))
        return found

    def _references(self, graph: Graph, results: Sequence[_Result]) -> list[Reference]:
        thresholds = [_thresholds(graph, name) for name in ("score_thresh", "nms_thresh")]
        groups = detection_groups({name: value.type for name, value in graph.outputs.items()})
        return [Reference(result.outputs, groups, *thresholds) for result in results]

    def _report(self, graph: Graph, index: int, name: str) -> None:
        results = self._results(graph)
        differences = self._compare_outputs(results, name)
        self.reports.append(PassReport(index, name, differences, *self._compare_values(results)))

    def _compare_outputs(self, results: Sequence[_Result], name: str) -> dict[str, float]:
        worst: dict[str, float] = {}
        for expected, result in zip(self._expected, results, strict=True):
            try:
                differences = compare(expected, result.outputs, self.tolerances)
            except Mismatch as mismatch:
                raise DivergenceError(name, mismatch.output, mismatch.problem) from None
            for output, difference in differences.items():
                worst[output] = max(worst.get(output, 0.0), difference)
        return worst

    def _compare_values(self, results: Sequence[_Result]) -> tuple[dict[str, float], list[str]]:
        differences: dict[str, float] = {}
        astray: dict[str, None] = {}
        for expected, result in zip(self._named, results, strict=True):
            for name in expected.keys() & result.named.keys():
                left, right = expected[name], result.named[name]
                if left.shape == right.shape and left.dtype == right.dtype:
                    difference, within = tensor_difference(left, right, self.tolerances)
                    differences[name] = max(differences.get(name, 0.0), difference)
                    if not within:
                        astray[name] = None
        return dict(sorted(differences.items())), sorted(astray)

    def report(self) -> str:
        """A line per pass with the largest difference of each output."""
        lines: list[str] = []
        for report in self.reports:
            parts = ", ".join(f"{name} {value:.2e}" for name, value in report.differences.items())
            lines.append(f"{report.index:03d} {report.name}: {parts or 'a new reference'}")
        return "\n".join(lines)


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
