"""The IR: typed SSA graphs of detection models.

`Graph`, `Node`, `Value` are the structure; `types` and `dims` what values look like; `op` declares
operations; `Builder` makes nodes; `verify`, `print_graph`, `parse_graph` and `run` check, show, read and
execute a graph.
"""

from . import aten, dialects
from .builder import Builder, freeze, infer_types
from .collector import paused_collector
from .conditions import Condition
from .dim_parser import parse_dim
from .dims import Dim, Symbol, SymExpr, evaluate, symbol
from .equality import attribute_key, attribute_keys, difference
from .errors import (
    DetcError,
    InputError,
    IRError,
    ParseError,
    UnsupportedError,
    VerificationError,
)
from .graph import Graph
from .interpreter import Interpreter, bind_inputs, run
from .node import (
    Attribute,
    Constant,
    Node,
    Operand,
    Value,
    attribute_symbols,
    map_operands,
    substitute_attribute,
)
from .ops import Fresh, Op, get_op, op, register_dialect, registered_ops
from .parser import parse_graph, parse_type
from .printer import GraphPrinter, print_graph
from .spec import SPECS, Spec, get_spec
from .types import DTYPE_NAMES, DTYPES, InstancesType, ListType, ScalarType, TensorType, TupleType, Type
from .verifier import verify

__all__ = [
    "DTYPES",
    "DTYPE_NAMES",
    "SPECS",
    "Attribute",
    "Builder",
    "Condition",
    "Constant",
    "DetcError",
    "Dim",
    "Fresh",
    "Graph",
    "GraphPrinter",
    "IRError",
    "InputError",
    "InstancesType",
    "Interpreter",
    "ListType",
    "Node",
    "Op",
    "Operand",
    "ParseError",
    "ScalarType",
    "Spec",
    "SymExpr",
    "Symbol",
    "TensorType",
    "TupleType",
    "Type",
    "UnsupportedError",
    "Value",
    "VerificationError",
    "aten",
    "attribute_key",
    "attribute_keys",
    "attribute_symbols",
    "bind_inputs",
    "dialects",
    "difference",
    "evaluate",
    "freeze",
    "get_op",
    "get_spec",
    "infer_types",
    "map_operands",
    "op",
    "parse_dim",
    "parse_graph",
    "parse_type",
    "paused_collector",
    "print_graph",
    "register_dialect",
    "registered_ops",
    "run",
    "substitute_attribute",
    "symbol",
    "verify",
]
