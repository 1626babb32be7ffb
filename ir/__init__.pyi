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
from .spec import Spec, get_spec, register_level
from .types import DTYPE_NAMES, DTYPES, InstancesType, TensorType, Type
from .verifier import verify

__all__ = [
    "DTYPES",
    "DTYPE_NAMES",
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
    "Node",
    "Op",
    "Operand",
    "ParseError",
    "Spec",
    "SymExpr",
    "Symbol",
    "TensorType",
    "Type",
    "UnsupportedError",
    "Value",
    "VerificationError",
    "attribute_key",
    "attribute_keys",
    "attribute_symbols",
    "bind_inputs",
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
    "register_level",
    "registered_ops",
    "run",
    "substitute_attribute",
    "symbol",
    "verify",
]
