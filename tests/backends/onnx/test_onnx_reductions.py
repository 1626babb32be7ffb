"""Ops that reduce, order and create: each lowering against torch, at several sizes."""

from __future__ import annotations

import pytest
import torch
from lowering import Case, check

from detc.backends.onnx.lower.aten import DIRECT, LOWERED, TABLE, UNSUPPORTED
from detc.ir import symbol
from detc.ir.aten import overload_of

N, H, W = symbol("N"), symbol("H"), symbol("W")
IMAGE = "f32[N,6,H,W]"
ROWS = "f32[R,6]"
SIZES = ({"N": 1, "H": 8, "W": 12}, {"N": 3, "H": 11, "W": 9})
SOME = ({"R": 5}, {"R": 1}, {"R": 0})
FULL = ({"R": 5}, {"R": 1})


REDUCTIONS = [
    Case(
        "mean",
        [IMAGE],
        lambda b, x: [
            b.aten.mean(x),
            b.aten.mean.dim(x, dim=(2, 3), keepdim=True),
            b.aten.mean.dim(x, dim=(-1,)),
        ],
        SIZES,
        3,
    ),
    Case(
        "sum",
        [ROWS],
        lambda b, x: [
            b.aten.sum(x),
            b.aten.sum.dim_IntList(x, dim=(0,)),
            b.aten.sum.dim_IntList(x, dim=(-1,), keepdim=True),
        ],
        SOME,
        3,
    ),
    Case(
        "sum-bool",
        [ROWS],
        lambda b, x: b.aten.sum.dim_IntList(b.aten.gt.Scalar(x, other=0), dim=(1,)),
        SOME,
        3,
    ),
    Case("sum-integers", ["i32[R,6]"], lambda b, x: b.aten.sum.dim_IntList(x, dim=(1,)), SOME, 2),
    Case(
        "amax",
        [ROWS],
        lambda b, x: [b.aten.amax(x, dim=(1,)), b.aten.amin(x, dim=(1,), keepdim=True)],
        SOME,
        2,
    ),
    Case("max-all", [ROWS], lambda b, x: [b.aten.max(x), b.aten.min(x)], FULL, 2),
    Case(
        "max-dim",
        [ROWS],
        lambda b, x: [*b.aten.max.dim(x, dim=1), *b.aten.min.dim(x, dim=-1, keepdim=True)],
        SOME,
        4,
    ),
    Case("max-values", [ROWS], lambda b, x: b.aten.max.dim(x, dim=1)[0], SOME, 1),
    Case(
        "argmax",
        [ROWS],
        lambda b, x: [b.aten.argmax(x, dim=-1), b.aten.argmin(x, dim=1, keepdim=True)],
        SOME,
        2,
    ),
    Case("argmax-all", [ROWS], lambda b, x: b.aten.argmax(x), FULL, 2),
    Case(
        "any",
        [ROWS],
        lambda b, x: [
            b.aten.any.dim(b.aten.gt.Scalar(x, other=1.5), dim=1),
            b.aten.all.dim(b.aten.lt.Scalar(x, other=1.5), dim=1),
            b.aten.any(b.aten.gt.Scalar(x, other=1.5)),
        ],
        FULL,
    ),
    Case("norm", [ROWS], lambda b, x: b.aten.linalg_vector_norm(x, dim=(1,), keepdim=True), SOME, 1),
    Case(
        "var",
        [ROWS],
        lambda b, x: [
            b.aten.var.correction(x, dim=(1,)),
            b.aten.var.correction(x, dim=(1,), correction=0, keepdim=True),
        ],
        SOME,
    ),
    Case("logsumexp", [ROWS], lambda b, x: b.aten.logsumexp(x, dim=(1,)), SOME, 1),
    Case("prod", [ROWS], lambda b, x: b.aten.prod.dim_int(x, dim=1), SOME, 1),
    Case(
        "softmax",
        [IMAGE],
        lambda b, x: [
            b.aten.softmax.int(x, dim=1),
            b.aten._softmax(x, dim=-1, half_to_float=False),
            b.aten.log_softmax.int(x, dim=-1),
        ],
        SIZES,
        3,
    ),
    Case("softmax-rows", [ROWS], lambda b, x: b.aten.softmax.int(x, dim=-1), SOME, 1),
    Case(
        "softmax-integers",
        ["i64[R,6]"],
        lambda b, x: b.aten.softmax.int(x, dim=-1, dtype=torch.float32),
        SOME,
        2,
    ),
    Case("cumsum", [ROWS], lambda b, x: [b.aten.cumsum(x, dim=0), b.aten.cumsum(x, dim=-1)], SOME, 2),
    Case("cumsum-bool", [ROWS], lambda b, x: b.aten.cumsum(b.aten.gt.Scalar(x, other=0), dim=1), SOME, 3),
    Case(
        "topk",
        [ROWS],
        lambda b, x: [*b.aten.topk(x, k=3), *b.aten.topk(x, k=2, dim=1, largest=False)],
        SOME,
        2,
    ),
    Case(
        "sort", [ROWS], lambda b, x: [*b.aten.sort(x, dim=0), *b.aten.sort(x, dim=1, descending=True)], SOME
    ),
    Case(
        "sort-ties",
        ["i64[R,6]"],
        lambda b, x: list(b.aten.sort.stable(x, stable=True, dim=1, descending=True)),
        FULL,
        openvino=False,
    ),  # OpenVINO orders ties its own way
    Case("argsort", [ROWS], lambda b, x: b.aten.argsort(x, dim=0), FULL),
    Case(
        "scalar-reductions",
        ["f32[]"],
        lambda b, x: [b.aten.sum(x), b.aten.mean(x), b.aten.amax(x), b.aten.cumsum(x, dim=0)],
        nodes=4,
    ),
]

CREATION = [
    Case(
        "arange",
        [IMAGE],
        lambda b, x: [
            b.aten.add.Tensor(
                b.aten.arange(end=W, dtype=torch.float32),
                b.aten.select.int(
                    b.aten.select.int(b.aten.select.int(x, dim=0, index=0), dim=0, index=0), dim=0, index=0
                ),
            ),
            b.aten.arange.start_step(start=0, end=2 * H, step=2),
        ],
        SIZES,
    ),
    Case("arange-static", ["f32[8]"], lambda b, x: b.aten.add.Tensor(x, b.aten.arange(end=8)), nodes=1),
    Case(
        "zeros_like",
        [IMAGE],
        lambda b, x: [b.aten.zeros_like(x), b.aten.ones_like(x, dtype=torch.int64)],
        SIZES,
        3,
    ),
    Case(
        "full",
        [IMAGE],
        lambda b, x: [
            b.aten.full(size=(N, H), fill_value=0.5),
            b.aten.new_zeros(x, size=(H, 2)),
            b.aten.full_like(x, fill_value=True, dtype=torch.bool),
        ],
        SIZES,
    ),
    Case(
        "full-static",
        ["f32[4]"],
        lambda b, x: b.aten.add.Tensor(x, b.aten.full(size=(4,), fill_value=2.0)),
        nodes=1,
    ),
    Case(
        "triu",
        ["f32[H,W]"],
        lambda b, x: [b.aten.triu(x, diagonal=1), b.aten.tril(x)],
        SIZES,
        2,
        openvino=False,
    ),  # OpenVINO's Trilu wants static sizes
    Case("one_hot", ["i64[R,2]"], lambda b, x: b.aten.one_hot(x, num_classes=4), SOME, 1, low=0, high=4),
    Case(
        "grid",
        [IMAGE],
        lambda b, x: b.aten.stack(
            [
                b.aten.expand(b.aten.unsqueeze(b.aten.arange(end=W), dim=0), size=(H, W)),
                b.aten.expand(b.aten.unsqueeze(b.aten.arange(end=H), dim=1), size=(H, W)),
            ],
            dim=-1,
        ),
        SIZES,
    ),
]


@pytest.mark.parametrize("case", [*REDUCTIONS, *CREATION], ids=lambda case: case.name)
def test_lowering_agrees_with_torch(case):
    check(case)


def test_the_table_names_operators_that_exist_once():
    assert len(TABLE) == len(DIRECT) + len(LOWERED) + len(UNSUPPORTED)
    assert [name for name in TABLE if overload_of(name) is None] == []
