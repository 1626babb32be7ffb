"""What a pass is: a frozen dataclass whose fields are its options and whose `apply` changes a graph."""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from typing import ClassVar

from detc.ir import Attribute, Builder, Graph, IRError, Node, freeze
from detc.ir.printer import format_string


class NoMatch(Exception):
    """A rule does not apply here. The reason is kept in the statistics."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RewriteLimit(BaseException):
    """The pass has done all the rewrites that it may, and stops. Not an Exception: no pass is to catch it by chance."""


@dataclass
class RuleCount:
    """How often a rule was tried at a node of its kind, how often it rewrote, why it refused, how long it took."""

    tried: int = 0
    matched: int = 0
    seconds: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class PassRun:
    """What one pass of a run did. `index` counts from 1; nodes are counted before and after."""

    index: int
    name: str
    changed: bool
    seconds: float
    nodes_before: int
    nodes_after: int


@dataclass
class Context:
    """What a running pass may use, and the statistics of a pipeline's run.

    Attributes:
        pass_name: the running pass, recorded on every node that it makes.
        rules: per (pass, rule) the counts of matches and refusals.
        runs: what each pass did, in order.
        rewrites: the names of the running pass's rewrites so far, in order.
        limit: how many rewrites a pass may do, all if None: with it the bisector finds the first wrong one.
    """

    pass_name: str = ""
    rules: dict[tuple[str, str], RuleCount] = field(default_factory=dict)
    runs: list[PassRun] = field(default_factory=list)
    rewrites: list[str] = field(default_factory=list)
    limit: int | None = None

    def rewrite(self, rule: str) -> AbstractContextManager[None]:
        """A block that is one rewrite of the running pass, by that rule. Passes change graphs in such blocks only.

            with context.rewrite("drop-dropout"):
                graph.replace_uses(node.result, node.operand(0))
                graph.erase(node)

        Before and after each block the graph is valid, and computes what it did: the bisector stops a pass there.

        Errors:
            RewriteLimit: the pass has done all that it may; nothing after it is to be done.
        """
        if self.is_spent:
            raise RewriteLimit
        self.rewrites.append(rule)
        return nullcontext()

    @property
    def is_spent(self) -> bool:
        """Whether the next rewrite is refused. For passes that finish what earlier rewrites left for later."""
        return self.limit is not None and len(self.rewrites) >= self.limit

    def prune_weights(self, graph: Graph) -> bool:
        """Forget the weights that nothing uses, as one rewrite. Returns whether there were any."""
        if not graph.unused_weights:
            return False
        with self.rewrite("prune-weights"):
            graph.prune_weights()
        return True

    def count(self, rule: str) -> RuleCount:
        """The counts of one rule of the running pass."""
        return self.rules.setdefault((self.pass_name, rule), RuleCount())

    def refusals(self, rule: str) -> list[str]:
        """Why any pass so far refused to apply the rule of that name."""
        return [why for (_, name), count in self.rules.items() if name == rule for why in count.refused]

    def builder(self, graph: Graph, before: Node) -> Builder:
        """A builder that puts nodes before `before`, with its source, made by the running pass."""
        return Builder(graph, before=before, source=before.source, created_by=self.pass_name)


@dataclass(frozen=True)
class Pass(ABC):
    """A step of a pipeline. Subclasses are frozen dataclasses; the fields are the options."""

    changes_meaning: ClassVar[bool] = False
    """Whether outputs may mean something else afterwards, so that they cannot be compared with those before."""

    @classmethod
    def pass_name(cls) -> str:
        """The class's name in kebab case: FoldBatchNorm -> fold-batch-norm."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()

    @property
    def name(self) -> str:
        """`pass_name`, of an instance."""
        return self.pass_name()

    @property
    def spec(self) -> str:
        """Name and options that differ from their defaults: `fold-batch-norm{eps=1e-05}`."""
        given = [
            f"{f.name}={_written(getattr(self, f.name))}"
            for f in fields(self)
            if getattr(self, f.name) != f.default
        ]
        return f"{self.name}{{{','.join(given)}}}" if given else self.name

    @classmethod
    def pass_summary(cls) -> str:
        """The first line of the docstring."""
        return (cls.__doc__ or "").strip().split("\n", 1)[0]

    @property
    def summary(self) -> str:
        """`pass_summary`, of an instance."""
        return self.pass_summary()

    @property
    def rules(self) -> Mapping[str, str]:
        """The names of its rewrite rules as the statistics have them, each with one line of what it does."""
        return {}

    @abstractmethod
    def apply(self, graph: Graph, context: Context) -> bool:
        """Change the graph in place, in blocks of `context.rewrite`. Returns whether it changed anything."""


def _written(option: object) -> str:
    if isinstance(option, str):
        return format_string(option)
    if isinstance(option, tuple):
        return f"({', '.join(map(_written, option))}{',' * (len(option) == 1)})"
    return repr(option)


def attribute(node: Node, name: str) -> Attribute:
    """A node's attribute, the op's default where it is not given. Raises IRError when there is neither."""
    if name in node.attributes:
        return node.attributes[name]
    default = node.op.attributes.get(name, inspect.Parameter.empty)
    if default is inspect.Parameter.empty:
        raise IRError(f"{node.op.name} has no attribute {name!r}")
    return freeze(default)


def number(node: Node, name: str) -> float:
    """An attribute that is a number. Raises IRError where it is something else."""
    return _number(node, name, attribute(node, name))


def integer(node: Node, name: str) -> int:
    """An attribute that is a whole number. Raises IRError where it is something else."""
    return _integer(node, name, attribute(node, name))


def numbers(node: Node, name: str) -> tuple[float, ...]:
    """An attribute that is a row of numbers. Raises IRError where it is something else."""
    return tuple(_number(node, name, item) for item in _row(node, name))


def integers(node: Node, name: str) -> tuple[int, ...]:
    """An attribute that is a row of whole numbers. Raises IRError where it is something else."""
    return tuple(_integer(node, name, item) for item in _row(node, name))


def _number(node: Node, name: str, value: Attribute) -> float:
    if not isinstance(value, int | float):
        raise IRError(f"the attribute {name!r} of {node.op.name} holds {value!r} where a number must stand")
    return float(value)


def _integer(node: Node, name: str, value: Attribute) -> int:
    if not isinstance(value, int | float) or value % 1:
        raise IRError(
            f"the attribute {name!r} of {node.op.name} holds {value!r} where a whole number must stand"
        )
    return int(value)


def _row(node: Node, name: str) -> tuple[Attribute, ...]:
    value = attribute(node, name)
    if not isinstance(value, tuple):
        raise IRError(f"the attribute {name!r} of {node.op.name} is {value!r}, not a row")
    return value


def is_unused(node: Node) -> bool:
    """Whether nothing uses the node's results, and it does nothing else."""
    return not node.op.has_effects and not node.is_used


def erase_if_unused(graph: Graph, node: Node) -> bool:
    """Erase a node whose results nothing uses. Returns whether it did."""
    if not is_unused(node):
        return False
    graph.erase(node)
    return True
