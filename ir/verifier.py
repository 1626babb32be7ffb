"""The verifier: SSA, use lists, arity, attributes, types, and what the graph's level allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .builder import infer_types
from .dims import Dim, SymExpr
from .errors import IRError, VerificationError
from .graph import Graph
from .node import Constant, Node, Value, attribute_symbols
from .ops import FRESH_PREFIX
from .printer import GraphPrinter
from .spans import span
from .spec import Spec, get_spec
from .types import InstancesType, TensorType, Type

_WINDOW = 3


def verify(graph: Graph, *, after: str = "") -> None:
    """Check every rule of the IR. `after` names the pass that has just run, for the message.

    Errors:
        VerificationError: with the op, its source, the pass that made it, and the IR around it.
    """
    with span("verify", nodes=len(graph)):
        _verify(graph, after)


def _verify(graph: Graph, after: str) -> None:
    try:
        spec = get_spec(graph.level)
    except IRError as error:
        raise VerificationError(str(error)) from None
    defined: set[int] = {id(v) for v in graph.inputs}
    sizes = {name for v in graph.inputs for name in v.type.size_names}
    if len({v.name for v in graph.inputs}) != len(graph.inputs):
        raise VerificationError("two inputs have the same name")
    for name, weight in graph.weights.items():
        if weight.name != name:
            raise VerificationError(f"the weight {name!r} calls itself {weight.name!r}")
    for node in graph:
        problem = _node_problem(graph, node, spec, defined, sizes)
        if problem:
            raise VerificationError(_report(graph, node, problem, after))
        for result in node.results:
            defined.add(id(result))
            sizes.update(result.type.size_names)
    for name, value in graph.outputs.items():
        if not isinstance(value, Constant) and id(value) not in defined:
            raise VerificationError(_suffix(f"the output {name!r} is no value of this graph", after))
        problem = spec.type_problem(value.type)
        if problem:
            raise VerificationError(_suffix(f"the output {name!r}: {problem}", after))


def _node_problem(graph: Graph, node: Node, spec: Spec, defined: set[int], sizes: set[str]) -> str | None:
    if node.graph is not graph:
        return "the node does not belong to this graph"
    problem = spec.problem(node.op.name, node.op.dialect)
    if problem:
        return problem
    for value in node.operand_values:
        if isinstance(value, Constant):
            if not value.is_literal and graph.weights.get(value.name) is not value:
                return f"the weight @{value.name} is not in the graph"
        elif id(value) not in defined:
            return f"%{value.name or '?'} is used before it is defined"
        if node not in value._users:
            return f"%{value.name or '?'} does not know that it is used here"
    problem = node.op.check(len(node.operands), node.attributes)
    if problem:
        return problem
    if not node.size_names <= sizes:
        for name, attribute in node.attributes.items():
            for symbol in attribute_symbols(attribute):
                if symbol.name not in sizes:
                    return f"the size {symbol.name} in the attribute {name!r} is of no value before"
    for result in node.results:
        problem = spec.type_problem(result.type)
        if problem:
            return problem
    try:
        inferred = infer_types(node.op, node.operands, node.attributes)
    except IRError as error:
        return str(error)
    return _type_problem(node.results, inferred, sizes)


def _type_problem(results: Sequence[Value], inferred: Sequence[Type], sizes: set[str]) -> str | None:
    if len(results) != len(inferred):
        return f"it has {len(results)} results, its rule gives {len(inferred)}"
    if all(result.type == type for result, type in zip(results, inferred, strict=True)):
        return None
    names = _Names(sizes)
    for i, (result, type) in enumerate(zip(results, inferred, strict=True)):
        if not _fits(result.type, type, names):
            return f"result {i} is declared {result.type}, its rule gives {type}"
    return None


@dataclass
class _Names:
    """What the names of sizes stand for at one node: those that the rule made up, and those declared here.

    A declared symbol that no value before this node has is a name for what the rule gives, even where the rule
    can tell the size by now: a pass may have found out a constant on which it depends.
    """

    sizes: set[str]
    inferred: dict[str, Dim] = field(default_factory=dict)
    declared: dict[str, Dim] = field(default_factory=dict)


def _fits(declared: Type, inferred: Type, names: _Names) -> bool:
    """Whether the types agree. An inferred fresh size may be any symbol or number, always the same one."""
    if isinstance(declared, TensorType) and isinstance(inferred, TensorType):
        if declared.dtype != inferred.dtype or declared.rank != inferred.rank:
            return False
        return all(_dim_fits(d, i, names) for d, i in zip(declared.shape, inferred.shape, strict=True))
    if isinstance(declared, InstancesType) and isinstance(inferred, InstancesType):
        return [n for n, _ in declared.fields] == [n for n, _ in inferred.fields] and all(
            _fits(d, i, names) for (_, d), (_, i) in zip(declared.fields, inferred.fields, strict=True)
        )
    return declared == inferred


def _dim_fits(declared: Dim, inferred: Dim, names: _Names) -> bool:
    known = inferred.as_symbol if isinstance(inferred, SymExpr) else None
    if known is not None and known.name.startswith(FRESH_PREFIX):
        return names.inferred.setdefault(known.name, declared) == declared
    own = declared.as_symbol if isinstance(declared, SymExpr) else None
    if own is not None and own.name not in names.sizes:
        return names.declared.setdefault(own.name, inferred) == inferred
    return declared == inferred


def _suffix(message: str, after: str) -> str:
    return f"{message} (after the pass {after})" if after else message


def _report(graph: Graph, node: Node, problem: str, after: str) -> str:
    printer = GraphPrinter(graph)
    nodes = graph.nodes
    at = nodes.index(node)
    lines = [_suffix(f"{node.op.name}: {problem}", after)]
    if node.source:
        lines.append(f"  source: {node.source}")
    if node.created_by:
        lines.append(f"  made by: {node.created_by}")
    for i in range(max(at - _WINDOW, 0), min(at + _WINDOW + 1, len(nodes))):
        lines.append(f"  {'>' if i == at else ' '} {printer.node(nodes[i])}")
    return "\n".join(lines)
