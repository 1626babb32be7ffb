"""Recording a pipeline's run for the report: each stage's nodes as text, their wires, and what each rule did."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from detc.ir import Constant, Graph, Node, Value
from detc.passes import CheckNumerics, Context, Observer, Pass
from detc.passes.core.lines import StableLines

from .layout import layered


class Recorder(Observer):
    """Records every stage of a run. Nodes are known by a number of their own from stage to stage.

    A node's text is kept once for all stages in which it is the same.
    """

    def __init__(self) -> None:
        self._printer = StableLines()
        self._ids: dict[object, int] = {}
        self._texts: list[dict[str, Any]] = []
        self._known: dict[tuple[int, str], int] = {}
        self._stages: list[dict[str, Any]] = []
        self._name = self._level = ""

    @override
    def start(self, graph: Graph) -> None:
        self._name, self._level = graph.name, graph.level
        self._add(graph, {"name": graph.level, "spec": "", "summary": "The graph before the first pass."})

    @override
    def after(self, graph: Graph, pass_: Pass, index: int, changed: bool) -> None:
        doc = inspect.cleandoc(type(pass_).__doc__ or "")
        self._add(graph, {"name": pass_.name, "spec": pass_.spec, "summary": pass_.summary, "doc": doc})

    def _add(self, graph: Graph, stage: dict[str, Any]) -> None:
        lines = self._printer.lines(graph)
        rows = [self._text(key, line, graph) for key, line in lines.items()]
        if self._stages and self._stages[-1]["rows"] == rows:
            # Nothing changed: the drawing is the same, too.
            self._stages.append({**self._stages[-1], "doc": "", **stage})
            return
        self._stages.append({**stage, "level": graph.level, "rows": rows, **self._drawing(graph)})

    def _text(self, key: object, line: str, graph: Graph) -> int:
        # A key is kept, so that it is never another object's: numbers stay what they are.
        number = self._ids.setdefault(key, len(self._ids))
        found = self._known.get((number, line))
        if found is None:
            found = self._known[number, line] = len(self._texts)
            self._texts.append({"key": number, "text": line, **self._facts(key, graph)})
        return found

    def _facts(self, key: object, graph: Graph) -> dict[str, Any]:
        if isinstance(key, Node):
            return {
                "op": key.op.name,
                "source": key.source,
                "by": key.created_by or "capture",
                "types": [f"%{self._printer.names[r]}: {r.type}" for r in key.results],
            }
        if isinstance(key, Value):
            return {"op": "input", "types": [f"%{self._printer.names[key]}: {key.type}"]}
        if isinstance(key, tuple):
            return {"op": "output", "types": [f"{key[1]}: {graph.outputs[key[1]].type}"]}
        return {}

    def _drawing(self, graph: Graph) -> dict[str, Any]:
        """The vertices (inputs, nodes, outputs) by their numbers, the edges by their indices, the positions."""
        vertices: list[object] = [*graph.inputs, *graph]
        place = {vertex: i for i, vertex in enumerate(vertices)}
        edges: list[tuple[int, int]] = []
        for node in graph:
            sources = {v.producer or v for v in node.operand_values if not isinstance(v, Constant)}
            edges += sorted((place[source], place[node]) for source in sources)
        for name, value in graph.outputs.items():
            vertices.append(("output", name))
            if not isinstance(value, Constant):
                edges.append((place[value.producer or value], len(vertices) - 1))
        return {
            "vertices": [self._ids[vertex] for vertex in vertices],
            "edges": [index for edge in edges for index in edge],
            "places": [number for place in layered(len(vertices), edges) for number in place],
        }

    def data(self, context: Context, check: CheckNumerics | None = None) -> dict[str, Any]:
        """Everything as JSON has it; `context` and `check` are of the same run."""
        stages = [dict(stage) for stage in self._stages]
        for stage, run in zip(stages[1:], context.runs, strict=False):
            stage["ms"] = round(run.seconds * 1e3, 2)
            stage["change"] = run.nodes_after - run.nodes_before
            stage["rules"] = _rules(context, stage["name"])
        reports = {report.index: report for report in check.reports} if check is not None else {}
        for index, stage in enumerate(stages):
            if index in reports:
                report = reports[index]
                stage["outputs"] = _finite(report.differences)
                stage["values"] = _finite(report.values)
                stage["astray"] = list(report.astray)
        return {
            "graph": self._name,
            "level": self._level,
            "texts": self._texts,
            "stages": stages,
            "tolerances": _tolerances(check),
        }


def _finite(differences: Mapping[str, float]) -> dict[str, float | str]:
    """As JSON has it, which knows no infinity."""
    return {name: value if math.isfinite(value) else str(value) for name, value in differences.items()}


def _rules(context: Context, name: str) -> list[dict[str, Any]]:
    return [
        {
            "rule": rule,
            "tried": count.tried,
            "matched": count.matched,
            "ms": round(count.seconds * 1e3, 2),
            "refused": [[why, number] for why, number in count.refused.most_common(5)],
        }
        for (owner, rule), count in context.rules.items()
        if owner == name and count.tried
    ]


def _tolerances(check: CheckNumerics | None) -> Mapping[str, float] | None:
    if check is None:
        return None
    allowed = check.tolerances
    return {"rtol": allowed.rtol, "atol": allowed.atol, "iou": allowed.iou, "score": allowed.score}
