"""Pointwise ops: each lowering against torch for the element types that matter, empty and odd sizes included."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lowering import Case, build, check, example, lower, same

from detc.backends.onnx.lower import LowerToOnnx
from detc.ir import Builder, Graph, TensorType, UnsupportedError, parse_type, run, symbol
from detc.passes.core.base import Context

N, R = symbol("N"), symbol("R")
SOME = ({"R": 5}, {"R": 1}, {"R": 0})
ROWS = "f32[R,6]"

FLOAT_FUNCTIONS = [
    "abs", "neg", "sign", "relu", "relu6", "sigmoid", "tanh", "exp", "erf", "sin", "cos", "atan", "floor", "ceil",
    "round", "trunc", "silu", "gelu", "hardswish", "hardsigmoid", "mish", "selu", "softplus", "square", "isnan",
    "isinf", "isfinite", "logical_not", "clone", "detach", "contiguous",
]  # fmt: skip
POSITIVE_FUNCTIONS = ["log", "log2", "sqrt", "rsqrt", "reciprocal"]
INTEGER_FUNCTIONS = [
    "abs",
    "neg",
    "sign",
    "relu",
    "sigmoid",
    "exp",
    "floor",
    "round",
    "logical_not",
    "square",
]


def unary(names):
    """One graph with all of these functions of one tensor."""

    def make(b, x):
        return [b.call(f"aten.{name}", x) for name in names]

    return make


def whole(b, x):
    """Whole numbers, zeros among them."""
    return b.aten._to_copy(b.aten._to_copy(x, dtype=torch.int64), dtype=torch.float32)


FUNCTIONS = [
    Case("floats", [ROWS], unary(FLOAT_FUNCTIONS), SOME),
    Case("positive", [ROWS], unary(POSITIVE_FUNCTIONS), SOME, low=0.1, high=9.0),
    Case("integers", ["i64[R,6]"], unary(INTEGER_FUNCTIONS), SOME, low=-5, high=5),
    Case("small-integers", ["i32[R,6]"], unary(INTEGER_FUNCTIONS), SOME, low=-5, high=5),
    Case("scalar", ["f32[]"], unary(["relu", "exp", "silu", "isnan"])),
    Case("leaky_relu", [ROWS], lambda b, x: b.aten.leaky_relu(x, negative_slope=0.1), SOME, 1),
    Case("gelu-tanh", [ROWS], lambda b, x: b.aten.gelu(x, approximate="tanh"), SOME, 1),
    Case("elu", [ROWS], lambda b, x: b.aten.elu(x, alpha=0.5), SOME, 1),
    Case("prelu", ["f32[N,3,R]", "f32[3]"], lambda b, x, w: b.aten.prelu(x, w), ({"N": 2, "R": 5},), 2),
    Case("glu", [ROWS], lambda b, x: b.aten.glu(x, dim=1), SOME, 3),
    Case("hardtanh", [ROWS], lambda b, x: b.aten.hardtanh(x, min_val=-0.5, max_val=0.5), SOME, 1),
    Case("dropout", [ROWS], lambda b, x: b.aten.relu(b.aten.dropout(x, p=0.5, train=False)), SOME, 1),
]

ARITHMETIC = [
    Case("add", [ROWS, "f32[6]"], lambda b, x, y: b.aten.add.Tensor(x, y), SOME, 1),
    Case("add-alpha", [ROWS, "f32[6]"], lambda b, x, y: b.aten.add.Tensor(x, y, alpha=2), SOME, 2),
    Case("add-number", [ROWS], lambda b, x: b.aten.add.Tensor(x, other=1.5), SOME, 1),
    Case("add-number-alpha", [ROWS], lambda b, x: b.aten.add.Scalar(x, other=1.5, alpha=2), SOME, 1),
    Case("add-size", [ROWS], lambda b, x: b.aten.add.Tensor(x, other=R), SOME, 4),
    Case("add-integers", ["i64[R,6]", ROWS], lambda b, x, y: b.aten.add.Tensor(x, y), SOME, 2),
    Case("add-float-number-to-integers", ["i64[R,6]"], lambda b, x: b.aten.add.Tensor(x, other=0.5), SOME, 2),
    Case("add-bools", ["bool[R]", "bool[R]"], lambda b, x, y: b.aten.add.Tensor(x, y), SOME, 1),
    Case("sub", [ROWS, ROWS], lambda b, x, y: b.aten.sub.Tensor(x, y, alpha=0.5), SOME, 2),
    Case("rsub", [ROWS], lambda b, x: b.aten.rsub.Scalar(x, other=1.0), SOME, 1),
    Case("mul", [ROWS, "f32[R,1]"], lambda b, x, y: b.aten.mul.Tensor(x, y), SOME, 1),
    Case("mul-bool", [ROWS, "bool[R,6]"], lambda b, x, y: b.aten.mul.Tensor(x, y), SOME, 2),
    Case("mul-number", ["i32[R,6]"], lambda b, x: b.aten.mul.Tensor(x, other=3), SOME, 1),
    Case("div-integers", ["i64[R,6]"], lambda b, x: b.aten.div.Tensor(x, other=4), SOME, 2),
    Case("div", [ROWS], lambda b, x: b.aten.div.Tensor(x, other=0.25), SOME, 1),
    Case(
        "div-modes",
        ["i64[R,6]", "f32[R,6]"],
        lambda b, x, y: [
            b.aten.div.Tensor_mode(x, other=4, rounding_mode="floor"),
            b.aten.div.Tensor_mode(x, other=4, rounding_mode="trunc"),
            b.aten.floor_divide(x, other=-3),
            b.aten.div.Tensor_mode(y, other=0.75, rounding_mode="floor"),
            b.aten.div.Tensor_mode(y, other=0.75, rounding_mode="trunc"),
            b.aten.remainder.Scalar(x, other=4),
            b.aten.remainder.Scalar(y, other=0.75),
            b.aten.fmod.Scalar(x, other=4),
            b.aten.fmod.Scalar(y, other=0.75),
        ],
        SOME,
        low=-9,
        high=9,
    ),
    Case("rank-0-promotion", [ROWS, "i64[]"], lambda b, x, y: b.aten.mul.Tensor(x, y), SOME, 2),
    Case("rank-0-integers", ["i32[R]", "i64[]"], lambda b, x, y: b.aten.add.Tensor(x, y), SOME, 2),
    Case(
        "pow",
        [ROWS, "f32[6]"],
        lambda b, x, y: [
            b.aten.pow.Tensor_Scalar(x, exponent=2),
            b.aten.pow.Tensor_Scalar(x, exponent=0.5),
            b.aten.pow.Tensor_Scalar(x, exponent=3),
            b.aten.pow.Tensor_Tensor(x, y),
            b.aten.pow.Scalar(x, self=2),
        ],
        SOME,
        5,
        low=0.1,
    ),
    Case(
        "clamp",
        [ROWS],
        lambda b, x: [
            b.aten.clamp(x, min=0),
            b.aten.clamp(x, max=0.5),
            b.aten.clamp(x, min=-0.5, max=0.5),
            b.aten.clamp_min(x, min=0.25),
        ],
        SOME,
        4,
    ),
    Case("clamp-integers", ["i64[R,6]"], lambda b, x: b.aten.clamp(x, min=-1, max=1), SOME, 1),
    Case("clamp-tensors", [ROWS, "f32[6]"], lambda b, x, y: b.aten.clamp.Tensor(x, None, y), SOME, 1),
    Case(
        "atan2",
        [ROWS, "f32[6]"],
        lambda b, x, y: [b.aten.atan2(x, y), b.aten.atan2(whole(b, x), whole(b, y))],
        SOME,
    ),
    Case("maximum", [ROWS, "f32[6]"], lambda b, x, y: [b.aten.maximum(x, y), b.aten.minimum(x, y)], SOME, 2),
    Case("maximum-integers", ["i64[R]", "i64[]"], lambda b, x, y: b.aten.max.other(x, y), SOME, 1),
    Case("addcmul", [ROWS, ROWS, ROWS], lambda b, x, y, z: b.aten.addcmul(x, y, z, value=0.5), SOME, 3),
]

COMPARISONS = ["eq", "ne", "lt", "le", "gt", "ge"]


def comparisons(other=None):
    """One graph with all comparisons, with another tensor or with a number."""

    def make(b, x, *y):
        kind = "Tensor" if y else "Scalar"
        number = {} if y else {"other": other}
        return [b.call(f"aten.{name}.{kind}", x, *y, **number) for name in COMPARISONS]

    return make


LOGIC = [
    Case("compare", [ROWS, "f32[R,1]"], comparisons(), SOME, 7),
    Case("compare-number", [ROWS], comparisons(0.5), SOME, 7),
    Case("compare-integers", ["i64[R,6]"], comparisons(1), SOME, 7),
    Case("compare-integers-with-float", ["i64[R,6]"], comparisons(0.5), SOME, low=-3, high=3),
    Case("compare-mixed", ["i64[R,6]", ROWS], comparisons(), SOME),
    Case("compare-bytes", ["u8[R,6]", "u8[R,6]"], comparisons(), SOME, low=0, high=4),
    Case(
        "compare-bools",
        ["bool[R]", "bool[R]"],
        lambda b, x, y: [b.aten.eq.Tensor(x, y), b.aten.ne.Tensor(x, y)],
        SOME,
    ),
    Case(
        "logical",
        ["bool[R]", "f32[R]"],
        lambda b, x, y: [
            b.aten.logical_and(x, y),
            b.aten.logical_or(x, y),
            b.aten.logical_xor(x, y),
            b.aten.bitwise_not(x),
        ],
        SOME,
        low=-1,
        high=1,
    ),
    Case(
        "bitwise",
        ["bool[R]", "bool[R]", "i64[R]"],
        lambda b, x, y, z: [
            b.aten.bitwise_and.Tensor(x, y),
            b.aten.bitwise_or.Tensor(x, y),
            b.aten.bitwise_xor.Tensor(x, y),
            b.aten.bitwise_and.Scalar(z, other=3),
        ],
        SOME,
        4,
        low=0,
        high=9,
    ),
    Case("where", ["bool[R,1]", ROWS, "f32[6]"], lambda b, c, x, y: b.aten.where.self(c, x, y), SOME, 1),
    Case(
        "where-number",
        ["bool[R,1]", ROWS],
        lambda b, c, x: b.aten.where.ScalarOther(c, x, other=-1.0),
        SOME,
        1,
    ),
    Case(
        "where-bools",
        ["bool[R]", "bool[R]", "bool[R]"],
        lambda b, c, x, y: b.aten.where.self(c, x, y),
        SOME,
        4,
    ),
    Case(
        "where-mixed", ["bool[R]", "i64[R]", "f32[R]"], lambda b, c, x, y: b.aten.where.self(c, x, y), SOME, 2
    ),
    Case(
        "masked_fill",
        [ROWS, "bool[R,1]"],
        lambda b, x, m: b.aten.masked_fill.Scalar(x, m, value=float("-inf")),
        SOME,
        1,
    ),
]

CASTS = [
    Case(
        f"from-{source}",
        [f"{source}[R,6]"],
        lambda b, x: [
            b.aten._to_copy(x, dtype=dtype)
            for dtype in (torch.float32, torch.int64, torch.int32, torch.bool, torch.float64)
        ],
        SOME,
        5,
    )
    for source in ("f32", "i64", "i32", "bool", "u8")
] + [
    Case("type_as", ["i64[R]", "f32[1]"], lambda b, x, y: b.aten.type_as(x, y), SOME, 1),
    Case("to", ["i64[R]"], lambda b, x: b.aten.to.dtype(x, dtype=torch.float32), SOME, 1),
]


@pytest.mark.parametrize("case", [*FUNCTIONS, *ARITHMETIC, *LOGIC, *CASTS], ids=lambda case: case.name)
def test_lowering_agrees_with_torch(case):
    check(case)


DTYPES = st.sampled_from(["f32", "i64", "i32", "bool"])
SHAPES = st.sampled_from(["[]", "[6]", "[R,6]", "[R,1]", "[1,1]"])
BINARY = st.sampled_from(["add.Tensor", "mul.Tensor", "eq.Tensor", "lt.Tensor", "maximum", "where.self"])


@settings(max_examples=60, deadline=None)
@given(BINARY, DTYPES, DTYPES, SHAPES, SHAPES, st.integers(0, 3))
def test_binary_ops_of_any_types_and_shapes(op, left, right, left_shape, right_shape, size):
    """The element type and shape of every result are torch's, whatever is combined with whatever."""

    def make(b, x, y):
        condition = [b.aten.gt.Scalar(y, other=0)] if op == "where.self" else []
        return b.call(f"aten.{op}", *condition, x, y)

    case = Case("binary", [left + left_shape, right + right_shape], make)
    graph = build(case)
    lowered = lower(graph)
    data = example(graph, {"R": size}, case)
    same(run(lowered, data), run(graph, data), "interpreter")


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(4)), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(1, 4))
def test_permute_and_merge_any_axes(perm, first, last, rows, side):
    """A permutation, then two or more neighbouring axes flattened: sizes come out right for any input size."""
    first, last = min(first, last), max(first, last)

    def make(b, x):
        return b.aten.flatten.using_ints(b.aten.permute(x, dims=tuple(perm)), start_dim=first, end_dim=last)

    case = Case("merge", ["f32[R,3,S,4]"], make)
    graph = build(case)
    lowered = lower(graph)
    # Sizes of inputs are at least 1.
    data = example(graph, {"R": rows + 1, "S": side}, case)
    same(run(lowered, data), run(graph, data), "interpreter")


def test_unsupported_ops_are_reported_together():
    graph = Graph("bad", "flat")
    x = graph.add_input("x", parse_type("f32[N,4,H,W]"))
    b = Builder(graph)
    with b.at("backbone.noise"):
        y = b.aten.rand_like(x)
    with b.at("head.pool"):
        y = b.aten.adaptive_avg_pool2d(y, output_size=(3, 5))
    with b.at("head.norm"):
        y = b.aten.digamma(y)
    graph.set_outputs({"y": y})
    with pytest.raises(UnsupportedError) as caught:
        LowerToOnnx().apply(graph, Context("lower-to-onnx"))
    message = str(caught.value)
    assert message.startswith("3 ops have no lowering to onnx")
    assert "aten.rand_like at backbone.noise: its result is random" in message
    assert "aten.adaptive_avg_pool2d at head.pool: adaptive pooling of H to 3" in message
    assert "aten.digamma at head.norm: no rule for this op" in message


def test_training_mode_is_refused():
    graph = Graph("bad", "flat")
    x = graph.add_input("x", parse_type("f32[N,4]"))
    graph.set_outputs({"y": Builder(graph).aten.dropout(x, p=0.5, train=True)})
    with pytest.raises(UnsupportedError, match="dropout in training mode is random"):
        LowerToOnnx().apply(graph, Context("lower-to-onnx"))


def test_results_keep_the_sizes_of_the_ops_they_replace():
    case = Case("sizes", ["f32[N,3,H,W]"], lambda b, x: b.aten.max_pool2d(x, kernel_size=(2, 2)))
    (node,) = lower(build(case))
    assert node.results[0].type == TensorType(
        torch.float32, parse_type("f32[N,3,floor(H/2),floor(W/2)]").shape
    )
