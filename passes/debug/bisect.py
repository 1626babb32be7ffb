"""Finding the pass that broke it, and within it the rewrite."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from detc.ir import DetcError, Graph, print_graph, verify

from ..core.base import Context, Pass
from ..core.observers import Observer, VerifyEach
from ..core.pipeline import PassError, Pipeline, apply_pass
from .compare import Tolerances
from .numerics import CheckNumerics

_NUMBER = re.compile(r"%\d+\b")


@dataclass(frozen=True)
class Rewrite:
    """One rewrite of a pass: its number from 1, of how many, its rule, and its diff (lines that begin with - or +)."""

    number: int
    total: int
    rule: str
    diff: str


@dataclass(frozen=True)
class Culprit:
    """The first pass after which something is wrong.

    Attributes:
        index: counts from 1.
        error: what is wrong.
        before: the graph that the pass was given.
        rewrite: the first rewrite in it after which it is wrong; None where that cannot be told: the pass fails
            between its rewrites, or changes graphs outside of `Context.rewrite`.
    """

    index: int
    pass_: Pass
    error: DetcError
    before: Graph
    rewrite: Rewrite | None = None


def bisect(
    pipeline: Pipeline,
    graph: Graph,
    inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    tolerances: Tolerances | None = None,
) -> Culprit | None:
    """The first pass that fails, breaks a rule of the IR, or makes an output differ; None if all is well.

    Within the pass the first such rewrite is searched for by halving: log2(rewrites) runs of it.

    Errors:
        DetcError: the graph itself is wrong, or does not run on the inputs.
    """
    at = _Position()
    check = CheckNumerics(inputs, tolerances=tolerances)
    try:
        verify(graph)
        # After a pass the last observer comes first: what the verifier refuses is not run.
        pipeline.run(graph, [at, check, VerifyEach()], verify=False)
    except DetcError as error:
        if at.current is None or at.before_pass is None:
            raise
        rewrite = _first_rewrite(at.current, at.before_pass, check, error)
        return Culprit(at.index, at.current, error, at.before_pass, rewrite)
    return None


class _Position(Observer):
    index = 0
    current: Pass | None = None
    before_pass: Graph | None = None

    @override
    def before(self, graph: Graph, pass_: Pass, index: int) -> None:
        self.current, self.index, self.before_pass = pass_, index, graph.clone()


def _first_rewrite(pass_: Pass, before: Graph, check: CheckNumerics, error: DetcError) -> Rewrite | None:
    def problem(limit: int | None) -> tuple[DetcError | None, Graph, list[str]]:
        graph, context = before.clone(), Context(limit=limit)
        try:
            apply_pass(pass_, graph, context)
            verify(graph, after=pass_.name)
            if pass_.changes_meaning:
                check.run(graph)
            else:
                check.compare(graph, pass_.name)
        except DetcError as found:
            return found, graph, context.rewrites
        except Exception as fault:
            return PassError(str(fault)), graph, context.rewrites
        return None, graph, context.rewrites

    found, _, rules = problem(None)
    if not rules or type(found) is not type(error):
        return None
    low, high = 0, len(rules)
    if problem(0)[0] is not None:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if problem(middle)[0] is not None else (middle, high)
    found, after, rules_so_far = problem(high)
    if found is None or len(rules_so_far) < high:
        return None
    return Rewrite(high, len(rules), rules_so_far[high - 1], _diff(problem(low)[1], after))


def _diff(before: Graph, after: Graph) -> str:
    left, right = (print_graph(graph).splitlines() for graph in (before, after))
    # One more node shifts the numbers of all values behind it: lines are compared without them.
    plain, other = ([_NUMBER.sub("%", line) for line in lines] for lines in (left, right))
    found: list[str] = []
    for tag, i, j, k, m in difflib.SequenceMatcher(None, plain, other, autojunk=False).get_opcodes():
        if tag != "equal":
            found += [f"- {line.strip()}" for line in left[i:j]] + [
                f"+ {line.strip()}" for line in right[k:m]
            ]
    return "\n".join(found)
