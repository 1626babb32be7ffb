"""The other spellings of ops whose meaning the other tests cover: overloads, aliases, one and three dimensions."""

from __future__ import annotations

import pytest
import torch
from lowering import Case, check
from lowering import weight as w

from detc.ir import symbol

R = symbol("R")
ROWS = "f32[R,6]"
SOME = ({"R": 5}, {"R": 1}, {"R": 0})
FULL = ({"R": 5}, {"R": 1})
IMAGE = "f32[N,3,H,W]"
SIZES = ({"N": 1, "H": 8, "W": 12}, {"N": 3, "H": 11, "W": 9})
SEQUENCE = "f32[N,3,12]"
BATCHES = ({"N": 1}, {"N": 3})


def views(b, x, y):
    return [
        b.aten.numpy_T(x),
        b.aten.swapaxes(x, axis0=0, axis1=-1),
        b.aten.tile(x, dims=(2,)),
        b.aten.view_as(x, y),
        b.aten.reshape_as(x, y),
        b.aten._unsafe_view(x, size=(R, 2, 3)),
        b.aten._reshape_alias(x, size=(R, 3, 2), stride=(6, 2, 1)),
        b.aten.broadcast_to(x, size=(2, R, 6)),
        b.aten.squeeze(b.aten.unsqueeze(b.aten.select.int(x, dim=1, index=0), dim=1)),
        *b.aten.split.sizes(x, split_size=(2, 4), dim=1),
        *b.aten.tensor_split.sections(x, sections=3, dim=1),
        b.aten.concat([x, x], dim=1),
        b.aten.concatenate([x, x], dim=0),
        b.aten._unsafe_index.Tensor(x, [None, b.constant([1, 0, 5])]),
    ]


def pointwise(b, x, y):
    half = b.constant(torch.tensor(0.5))
    above = b.aten.gt.Scalar(x, other=0)
    return [
        b.aten.clamp_max(x, max=0.25),
        b.aten.tan(x),
        b.aten.asin(x),
        b.aten.acos(x),
        b.aten.alias(x),
        b.aten.lift_fresh(x),
        b.aten.lift_fresh_copy(x),
        b.aten.feature_dropout(x, p=0.5, train=False),
        b.aten.div.Scalar(x, other=3),
        b.aten.div.Scalar_mode(x, other=0.25, rounding_mode="floor"),
        b.aten.true_divide.Tensor(x, y),
        b.aten.sub.Scalar(x, other=1.5),
        b.aten.mul.Scalar(x, other=2),
        b.aten.rsub.Tensor(x, y),
        b.aten.remainder.Tensor(x, y),
        b.aten.fmod.Tensor(x, y),
        b.aten.floor_divide.Scalar(x, other=0.25),
        b.aten.min.other(x, y),
        b.aten.masked_fill.Tensor(x, above, half),
        b.aten.where.ScalarSelf(above, y, self=1.5),
        b.aten.where.Scalar(above, self=1.5, other=-1.0),
        b.aten.fill.Scalar(x, value=2.5),
        b.aten.fill.Tensor(x, half),
        b.aten.to.device(x, device="cpu", dtype=torch.int64),
        b.aten.to.dtype_layout(x, dtype=torch.float64),
        b.aten.to.other(above, x),
    ]


def creation(b, x):
    return [
        b.aten.ones(size=(R, 2)),
        b.aten.zeros(size=(R,), dtype=torch.int64),
        b.aten.new_ones(x, size=(R, 3)),
        b.aten.new_full(x, size=(2, R), fill_value=-1.5),
        b.aten.add.Tensor(x, b.aten.scalar_tensor(s=2.0)),
        b.aten.arange.start(start=1, end=R + 1),
    ]


def reductions(b, x):
    flags = b.aten.lt.Scalar(x, other=1.5)
    return [
        b.aten.any.dims(flags, dim=(0, 1)),
        b.aten.all.dims(flags, dim=(0, 1), keepdim=True),
        b.aten.all(flags),
        b.aten.prod(x),
        b.aten.argsort.stable(x, stable=True, dim=0),
        b.aten._log_softmax(x, dim=1, half_to_float=False),
        b.aten.mv(x, b.constant(torch.arange(6.0))),
        b.aten.dot(b.aten.select.int(x, dim=0, index=0), b.aten.select.int(x, dim=0, index=0)),
        b.aten.scatter_add(
            x, b.aten.argmax(x, dim=1, keepdim=True), b.aten.amax(x, dim=(1,), keepdim=True), dim=1
        ),
    ]


def bits(b, x, y):
    return [
        b.aten.bitwise_or.Scalar(x, other=5),
        b.aten.bitwise_xor.Scalar(x, other=5),
        b.call("aten.__and__.Tensor", x, y),
        b.call("aten.__or__.Tensor", x, y),
        b.call("aten.__xor__.Tensor", x, y),
    ]


def flash(b, q, k, v):
    return b.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[0]


def group_norm(b, x):
    return b.aten.native_group_norm(x, w(b, 8), w(b, 8), N=symbol("N"), C=8, HxW=24, group=2, eps=1e-5)[0]


CASES = [
    Case("views", [ROWS, ROWS], views, ({"R": 5}, {"R": 2})),
    Case("pointwise", [ROWS, "f32[6]"], pointwise, SOME, low=-0.9, high=0.9),
    Case("creation", [ROWS], creation, SOME),
    Case("reductions", [ROWS], reductions, FULL),
    Case("bits", ["i64[R]", "i64[R]"], bits, SOME, low=0, high=9),
    Case(
        "conv3d", ["f32[N,2,4,5,6]"], lambda b, x: b.aten.conv3d(x, w(b, 3, 2, 2, 2, 2), w(b, 3)), BATCHES, 1
    ),
    Case(
        "conv1d-same",
        [SEQUENCE],
        lambda b, x: b.aten.conv1d.padding(x, w(b, 4, 3, 3), padding="same"),
        BATCHES,
        1,
    ),
    Case(
        "conv_transpose1d",
        [SEQUENCE],
        lambda b, x: b.aten.conv_transpose1d(x, w(b, 3, 4, 2), stride=(2,)),
        BATCHES,
        1,
    ),
    Case(
        "conv_transpose3d",
        ["f32[N,2,4,5,6]"],
        lambda b, x: b.aten.conv_transpose3d.input(x, w(b, 2, 3, 2, 2, 2), w(b, 3)),
        BATCHES,
        1,
    ),
    Case("avg_pool1d", [SEQUENCE], lambda b, x: b.aten.avg_pool1d(x, kernel_size=(3,)), BATCHES, 1),
    Case(
        "adaptive_avg_pool1d",
        [SEQUENCE],
        lambda b, x: b.aten.adaptive_avg_pool1d(x, output_size=(4,)),
        BATCHES,
        1,
    ),
    Case(
        "adaptive_avg_pool2d",
        [IMAGE],
        lambda b, x: b.aten._adaptive_avg_pool2d(x, output_size=(1, 1)),
        SIZES,
        1,
    ),
    Case("reflection_pad1d", [SEQUENCE], lambda b, x: b.aten.reflection_pad1d(x, padding=(2, 1)), BATCHES, 1),
    Case(
        "replication_pad1d", [SEQUENCE], lambda b, x: b.aten.replication_pad1d(x, padding=(2, 1)), BATCHES, 1
    ),
    Case(
        "prelu", ["f32[N,3,H]", "f32[1]"], lambda b, x, a: b.aten._prelu_kernel(x, a), ({"N": 2, "H": 4},), 1
    ),
    Case(
        "bicubic-vec",
        [IMAGE],
        lambda b, x: b.aten.upsample_bicubic2d.vec(
            x, output_size=None, align_corners=True, scale_factors=(2.0, 2.0)
        ),
        SIZES,
        1,
    ),
    Case(
        "nearest-exact-vec",
        [IMAGE],
        lambda b, x: b.aten._upsample_nearest_exact2d.vec(x, output_size=None, scale_factors=(2.0, 3.0)),
        SIZES,
        1,
    ),
    Case(
        "grid_sampler_2d",
        [IMAGE, "f32[N,P,Q,2]"],
        lambda b, x, g: b.aten.grid_sampler_2d(
            x, g, interpolation_mode=0, padding_mode=2, align_corners=False
        ),
        ({"N": 2, "H": 5, "W": 6, "P": 3, "Q": 4},),
        1,
    ),
    Case("native_group_norm", ["f32[N,8,4,6]"], group_norm, BATCHES),
    Case("flash", ["f32[N,2,R,8]", "f32[N,2,S,8]", "f32[N,2,S,8]"], flash, ({"N": 2, "R": 3, "S": 5},), 5),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_lowering_agrees_with_torch(case):
    check(case)
