"""Ops that move elements: each lowering against torch, at several sizes."""

from __future__ import annotations

import pytest
import torch
from lowering import Case, check, weight

from detc.ir import symbol

N, H, W, R = symbol("N"), symbol("H"), symbol("W"), symbol("R")
IMAGE = "f32[N,6,H,W]"
ROWS = "f32[R,6]"
SIZES = ({"N": 1, "H": 8, "W": 12}, {"N": 3, "H": 11, "W": 9})
SOME = ({"R": 5}, {"R": 1}, {"R": 0})
FULL = ({"R": 5}, {"R": 1})


VIEWS = [
    Case("flatten", [IMAGE], lambda b, x: b.aten.flatten.using_ints(x, start_dim=1), SIZES, 1),
    Case("flatten-space", [IMAGE], lambda b, x: b.aten.flatten.using_ints(x, start_dim=2), SIZES, 1),
    Case("flatten-rows", ["f32[R,2,3,4]"], lambda b, x: b.aten.flatten.using_ints(x, start_dim=1), SOME, 1),
    Case("view-rows", ["f32[R,24]"], lambda b, x: b.aten.view(x, size=(-1, 4, 6)), SOME, 1),
    Case("view-merge", ["f32[R,4,6]"], lambda b, x: b.aten.view(x, size=(4 * R, 6)), SOME, 1),
    Case("view-heads", [IMAGE], lambda b, x: b.aten.view(x, size=(N, 2, 3, H, W)), SIZES, 3),
    Case(
        "retina-head",
        [IMAGE],
        lambda b, x: b.aten.reshape(
            b.aten.permute(b.aten.view(x, size=(N, 2, 3, H, W)), dims=(0, 3, 4, 1, 2)), shape=(N, -1, 3)
        ),
        SIZES,
        5,
    ),
    Case("reshape-same", [IMAGE], lambda b, x: b.aten.relu(b.aten.reshape(x, shape=(N, 6, H, W))), SIZES, 1),
    Case("reshape-scalar", ["f32[1,1]"], lambda b, x: b.aten.view(x, size=()), nodes=1),
    Case("unflatten", ["f32[R,6]"], lambda b, x: b.aten.unflatten.int(x, dim=1, sizes=(2, -1)), SOME, 1),
    Case(
        "unsqueeze", [ROWS], lambda b, x: [b.aten.unsqueeze(x, dim=-1), b.aten.unsqueeze(x, dim=0)], SOME, 2
    ),
    Case(
        "squeeze",
        ["f32[1,R,1,6]"],
        lambda b, x: [
            b.aten.squeeze.dim(x, dim=-2),
            b.aten.squeeze.dims(x, dim=(0, 2)),
            b.aten.squeeze.dim(x, dim=3),
        ],
        SOME,
        3,
    ),
    Case("expand", ["f32[R,1,6]"], lambda b, x: b.aten.expand(x, size=(3, -1, 4, 6)), SOME, 1),
    Case("expand-size", ["f32[1,6]", "f32[R,2]"], lambda b, x, y: b.aten.expand(x, size=(R, 6)), SOME, 3),
    Case("expand_as", ["f32[1,6]", ROWS], lambda b, x, y: b.aten.expand_as(x, y), SOME, 3),
    Case("repeat", [ROWS], lambda b, x: b.aten.repeat(x, repeats=(2, 3, 1)), SOME, 2),
    Case("repeat-size", ["f32[1,6]", "f32[R,2]"], lambda b, x, y: b.aten.repeat(x, repeats=(R, 1)), FULL, 3),
    Case("permute", [IMAGE], lambda b, x: b.aten.permute(x, dims=(0, 2, -1, 1)), SIZES, 1),
    Case("transpose", [IMAGE], lambda b, x: b.aten.transpose.int(x, dim0=1, dim1=-1), SIZES, 1),
    Case("t", [ROWS], lambda b, x: b.aten.t(x), SOME, 1),
    Case("movedim", [IMAGE], lambda b, x: b.aten.movedim.int(x, source=1, destination=-1), SIZES, 1),
]

SLICES = [
    Case("slice", [ROWS], lambda b, x: b.aten.slice.Tensor(x, dim=1, start=1, end=-1), SOME, 1),
    Case(
        "slice-step", [ROWS], lambda b, x: b.aten.slice.Tensor(x, dim=-1, start=0, end=None, step=2), SOME, 1
    ),
    Case(
        "slice-all",
        [ROWS],
        lambda b, x: b.aten.abs(b.aten.slice.Tensor(x, dim=1, start=0, end=2**63 - 1)),
        SOME,
        1,
    ),
    Case(
        "slice-own-size",
        [ROWS],
        lambda b, x: b.aten.abs(b.aten.slice.Tensor(x, dim=0, start=0, end=R)),
        SOME,
        1,
    ),
    Case(
        "slice-size",
        ["f32[4,3*R]", ROWS],
        lambda b, x, y: b.aten.slice.Tensor(x, dim=1, start=0, end=2 * R),
        ({"R": 5}, {"R": 0}),
        3,
    ),
    Case(
        "slice-scatter",
        ["f32[R,8]", "f32[R,8]", "f32[R,3]", "f32[R,5]"],
        lambda b, x, y, z, v: [
            b.aten.slice_scatter(x, y, dim=1),
            b.aten.slice_scatter(x, z, dim=1, start=-5, end=-2),
            b.aten.slice_scatter(x, z, dim=-1, end=3),
            b.aten.slice_scatter(x, v, dim=1, start=3, end=2**63 - 1),
        ],
        ({"R": 4}, {"R": 1}, {"R": 0}),
    ),
    Case(
        "slice-scatter-size",
        ["f32[3*R,4]", "f32[R,4]"],
        lambda b, x, y: b.aten.slice_scatter(x, y, dim=0, start=R, end=2 * R),
        ({"R": 3}, {"R": 1}),
    ),
    Case("narrow", [IMAGE], lambda b, x: b.aten.narrow(x, dim=1, start=2, length=3), SIZES, 1),
    Case(
        "select",
        [IMAGE],
        lambda b, x: [b.aten.select.int(x, dim=1, index=-1), b.aten.select.int(x, dim=-1, index=2)],
        SIZES,
        2,
    ),
    Case("unbind", ["f32[R,3]"], lambda b, x: list(b.aten.unbind.int(x, dim=1)), SOME, 3),
    Case("split", [IMAGE], lambda b, x: list(b.aten.split.Tensor(x, split_size=4, dim=1)), SIZES, 1),
    Case(
        "split_with_sizes",
        [IMAGE],
        lambda b, x: list(b.aten.split_with_sizes(x, split_sizes=(1, 3, 2), dim=-3)),
        SIZES,
        1,
    ),
    Case("chunk", [IMAGE], lambda b, x: list(b.aten.chunk(x, chunks=3, dim=1)), SIZES, 1),
    Case("flip", [IMAGE], lambda b, x: b.aten.flip(x, dims=(1, -1)), SIZES, 1),
    Case("roll", [IMAGE], lambda b, x: b.aten.roll(x, shifts=(2, -1), dims=(1, 1)), SIZES, 6),
    Case(
        "roll-symbolic",
        [IMAGE],
        lambda b, x: b.aten.roll(x, shifts=(-3, 3), dims=(2, 3)),
        ({"N": 1, "H": 7, "W": 5}, {"N": 1, "H": 2, "W": 3}),
        14,
    ),
]

JOINS = [
    Case(
        "cat",
        [ROWS, "f32[S,6]"],
        lambda b, x, y: b.aten.cat([x, y, x]),
        ({"R": 2, "S": 0}, {"R": 0, "S": 0}, {"R": 1, "S": 3}),
        1,
    ),
    Case("cat-dtypes", [ROWS, "i64[R,2]"], lambda b, x, y: b.aten.cat([x, y], dim=-1), SOME, 2),
    Case("cat-empty-vector", [ROWS], lambda b, x: b.aten.cat([b.constant(torch.empty(0)), x], dim=1), FULL),
    Case("stack", [ROWS, ROWS], lambda b, x, y: b.aten.stack([x, y], dim=-1), SOME, 3),
    Case(
        "constant_pad_nd",
        [IMAGE],
        lambda b, x: b.aten.constant_pad_nd(x, pad=(1, 2, 0, 3), value=-1.5),
        SIZES,
        1,
    ),
    Case("pad-none", [IMAGE], lambda b, x: b.aten.abs(b.aten.constant_pad_nd(x, pad=(0, 0))), SIZES, 1),
    Case("pad-crop", [IMAGE], lambda b, x: b.aten.constant_pad_nd(x, pad=(-1, 2)), SIZES, 1),
    Case("pad-reflect", [IMAGE], lambda b, x: b.aten.pad(x, pad=(1, 2, 3, 0), mode="reflect"), SIZES, 1),
    Case("pad-replicate", [IMAGE], lambda b, x: b.aten.pad(x, pad=(1, 2, 3, 0), mode="replicate"), SIZES, 1),
    Case(
        "pad-to-divisor",
        ["f32[N,3,H,W]"],
        lambda b, x: b.aten.constant_pad_nd(x, pad=(0, -W % 4, 0, -H % 4)),
        SIZES,
    ),
    Case(
        "reflection_pad2d", [IMAGE], lambda b, x: b.aten.reflection_pad2d(x, padding=(1, 1, 2, 2)), SIZES, 1
    ),
    Case(
        "replication_pad2d", [IMAGE], lambda b, x: b.aten.replication_pad2d(x, padding=(1, 1, 2, 2)), SIZES, 1
    ),
]


def rows(b, x):
    """Row numbers of x, from its values: i64[R] within the range of 6 columns."""
    return b.aten.remainder.Scalar(b.aten.abs(b.aten._to_copy(x, dtype=torch.int64)), other=4)


INDEXING = [
    Case("index_select", [ROWS, "f32[4]"], lambda b, x, i: b.aten.index_select(x, rows(b, i), dim=1), SOME),
    Case(
        "embedding",
        ["i64[N,3]"],
        lambda b, i: b.aten.embedding(weight(b, 10, 4), i),
        ({"N": 2}, {"N": 0}),
        1,
        low=0,
        high=10,
    ),
    Case("gather", [ROWS, "i64[R,2]"], lambda b, x, i: b.aten.gather(x, i, dim=1), SOME, 1, low=0, high=6),
    Case(
        "scatter",
        [ROWS, "f32[R,1]"],
        lambda b, x, y: b.aten.scatter.src(x, b.aten.argmax(x, dim=1, keepdim=True), y, dim=1),
        FULL,
        2,
    ),
    Case(
        "scatter-value",
        [ROWS],
        lambda b, x: b.aten.scatter.value(x, b.aten.argmax(x, dim=1, keepdim=True), dim=1, value=7.5),
        FULL,
    ),
    Case(
        "index",
        [ROWS, "i64[S,2]"],
        lambda b, x, i: b.aten.index.Tensor(x, [i]),
        ({"R": 4, "S": 3}, {"R": 4, "S": 0}),
        1,
        low=0,
        high=4,
    ),
    Case(
        "index-negative",
        [ROWS, "i64[S]"],
        lambda b, x, i: b.aten.index.Tensor(x, [i]),
        ({"R": 4, "S": 9},),
        1,
        low=-4,
        high=4,
    ),
    Case(
        "index-axis",
        [ROWS, "i64[S]"],
        lambda b, x, i: b.aten.index.Tensor(x, [None, i]),
        ({"R": 4, "S": 3}, {"R": 0, "S": 3}),
        1,
        low=0,
        high=6,
    ),
    Case(
        "index-two",
        ["f32[N,5,6,3]", "i64[S]", "i64[S]"],
        lambda b, x, i, j: b.aten.index.Tensor(x, [None, i, j]),
        ({"N": 2, "S": 7},),
        low=0,
        high=5,
    ),
    Case(
        "index-broadcast",
        ["f32[5,6,N]", "i64[S,1]", "i64[4]"],
        lambda b, x, i, j: b.aten.index.Tensor(x, [i, j]),
        ({"N": 2, "S": 3},),
        low=0,
        high=5,
    ),
    Case(
        "mask",
        [ROWS, "f32[R]"],
        lambda b, x, s: b.aten.index.Tensor(x, [b.aten.gt.Scalar(s, other=0.0)]),
        SOME,
        2,
    ),
    Case(
        "mask-none",
        [ROWS, "f32[R]"],
        lambda b, x, s: b.aten.index.Tensor(x, [b.aten.gt.Scalar(s, other=9.0)]),
        SOME,
        2,
    ),
    Case(
        "mask-matrix", [ROWS], lambda b, x: b.aten.index.Tensor(x, [b.aten.gt.Scalar(x, other=0.0)]), SOME, 4
    ),
    Case("nonzero", ["f32[R,6]"], lambda b, x: b.aten.nonzero(b.aten.gt.Scalar(x, other=0.0)), SOME, 3),
]


@pytest.mark.parametrize("case", [*VIEWS, *SLICES, *JOINS, *INDEXING], ids=lambda case: case.name)
def test_lowering_agrees_with_torch(case):
    check(case)
