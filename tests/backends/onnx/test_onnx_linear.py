"""Linear maps, attention, resizing and sampling: each lowering against torch, at several sizes."""

from __future__ import annotations

import pytest
from lowering import Case, check
from lowering import weight as w

from detc.ir import symbol

H, W = symbol("H"), symbol("W")
IMAGE = "f32[N,3,H,W]"
SIZES = ({"N": 1, "H": 8, "W": 12}, {"N": 3, "H": 11, "W": 9})
EVEN = ({"N": 1, "H": 8, "W": 12}, {"N": 2, "H": 16, "W": 4})
NO_ROWS = ({"N": 0, "H": 8, "W": 8},)


LINEAR = [
    Case("linear", ["f32[R,8]"], lambda b, x: b.aten.linear(x, w(b, 5, 8), w(b, 5)), ({"R": 3}, {"R": 0}), 1),
    Case(
        "linear-unbiased",
        ["f32[R,8]"],
        lambda b, x: b.aten.linear(x, w(b, 5, 8), None),
        ({"R": 3}, {"R": 0}),
        1,
    ),
    Case(
        "linear-3d",
        ["f32[N,R,8]"],
        lambda b, x: b.aten.linear(x, w(b, 5, 8), w(b, 5)),
        ({"N": 2, "R": 3}, {"N": 1, "R": 0}),
        2,
    ),
    Case("linear-vector", ["f32[8]"], lambda b, x: b.aten.linear(x, w(b, 5, 8), w(b, 5)), ({},), 2),
    Case(
        "addmm",
        ["f32[R,8]"],
        lambda b, x: b.aten.addmm(w(b, 5), x, b.aten.t(w(b, 5, 8)), beta=2, alpha=0.5),
        ({"R": 3}, {"R": 0}),
        1,
    ),
    Case("mm", ["f32[R,8]"], lambda b, x: b.aten.mm(x, w(b, 8, 3)), ({"R": 3}, {"R": 0}), 1),
    Case(
        "mm-transposed",
        ["f32[R,8]", "f32[S,8]"],
        lambda b, x, y: b.aten.mm(x, b.aten.t(y)),
        ({"R": 3, "S": 2}, {"R": 0, "S": 2}),
        1,
    ),
    Case(
        "bmm",
        ["f32[N,R,4]", "f32[N,4,S]"],
        lambda b, x, y: b.aten.bmm(x, y),
        ({"N": 2, "R": 3, "S": 2}, {"N": 2, "R": 0, "S": 2}),
        1,
    ),
    Case(
        "matmul",
        ["f32[N,2,R,4]", "f32[4,S]"],
        lambda b, x, y: b.aten.matmul(x, y),
        ({"N": 2, "R": 3, "S": 2},),
        1,
    ),
    Case(
        "baddbmm",
        ["f32[N,R,4]", "f32[N,4,3]", "f32[3]"],
        lambda b, x, y, z: b.aten.baddbmm(z, x, y, beta=0.5, alpha=2),
        ({"N": 2, "R": 3},),
        4,
    ),
    Case(
        "attention",
        ["f32[N,2,R,8]", "f32[N,2,S,8]", "f32[N,2,S,6]"],
        lambda b, q, k, v: b.aten.scaled_dot_product_attention(q, k, v),
        ({"N": 2, "R": 3, "S": 5},),
        5,
    ),
    Case(
        "attention-mask",
        ["f32[N,2,R,8]", "f32[N,2,S,8]", "f32[N,2,S,6]", "f32[R,S]"],
        lambda b, q, k, v, m: b.aten.scaled_dot_product_attention(q, k, v, m, scale=0.3),
        ({"N": 2, "R": 3, "S": 5},),
        6,
    ),
    Case(
        "attention-bool",
        ["f32[N,2,R,8]", "f32[N,2,S,8]", "f32[N,2,S,6]"],
        lambda b, q, k, v: b.aten.scaled_dot_product_attention(
            q,
            k,
            v,
            b.aten.gt.Scalar(
                b.aten.slice.Tensor(
                    b.aten.matmul(q, b.aten.transpose.int(k, dim0=2, dim1=3)), dim=1, start=0, end=1
                ),
                other=-30.0,
            ),
        ),
        ({"N": 2, "R": 3, "S": 5},),
    ),
    Case(
        "einsum",
        ["f32[N,R,4]", "f32[N,4,S]"],
        lambda b, x, y: b.aten.einsum([x, y], equation="nij, njk -> nik"),
        ({"N": 2, "R": 3, "S": 2},),
        1,
    ),
]

RESIZING = [
    Case(
        "nearest-2x",
        [IMAGE],
        lambda b, x: b.aten.upsample_nearest2d.vec(x, output_size=None, scale_factors=(2.0, 2.0)),
        (*SIZES, *NO_ROWS),
        1,
    ),
    Case(
        "nearest-2x-size",
        [IMAGE],
        lambda b, x: b.aten.upsample_nearest2d(x, output_size=(2 * H, 2 * W)),
        SIZES,
        1,
    ),
    Case(
        "nearest-sizes",
        [IMAGE, "f32[N,3,P,Q]"],
        lambda b, x, y: b.aten.upsample_nearest2d(x, output_size=(symbol("P"), symbol("Q"))),
        ({"N": 1, "H": 4, "W": 6, "P": 8, "Q": 12}, {"N": 2, "H": 3, "W": 5, "P": 7, "Q": 5}),
        4,
    ),
    Case(
        "nearest-exact",
        [IMAGE],
        lambda b, x: b.aten._upsample_nearest_exact2d(x, output_size=(3 * H, 2 * W)),
        SIZES,
        1,
    ),
    Case(
        "bilinear-2x",
        [IMAGE],
        lambda b, x: b.aten.upsample_bilinear2d.vec(
            x, output_size=None, align_corners=False, scale_factors=(2.0, 2.0)
        ),
        (*SIZES, *NO_ROWS),
        1,
    ),
    Case(
        "bilinear-fixed",
        [IMAGE],
        lambda b, x: b.aten.upsample_bilinear2d(x, output_size=(7, 13), align_corners=False),
        SIZES,
        3,
    ),
    Case(
        "bilinear-one-pixel",
        [IMAGE],
        lambda b, x: b.aten.upsample_bilinear2d(x, output_size=(1, 5), align_corners=False),
        SIZES,
        3,
    ),
    Case(
        "bilinear-corners",
        [IMAGE],
        lambda b, x: b.aten.upsample_bilinear2d(x, output_size=(2 * H, 2 * W), align_corners=True),
        SIZES,
        1,
    ),
    Case(
        "bilinear-corners-fixed",
        [IMAGE],
        lambda b, x: b.aten.upsample_bilinear2d(x, output_size=(9, 5), align_corners=True),
        SIZES,
        3,
    ),
    Case(
        "bilinear-of",
        [IMAGE, "f32[N,3,P,Q]"],
        lambda b, x, y: b.aten.upsample_bilinear2d(
            x, output_size=(symbol("P"), symbol("Q")), align_corners=False
        ),
        ({"N": 1, "H": 4, "W": 6, "P": 8, "Q": 12}, {"N": 2, "H": 3, "W": 5, "P": 7, "Q": 2}),
        4,
    ),
    Case(
        "bilinear-1.5x",
        [IMAGE],
        lambda b, x: b.aten.upsample_bilinear2d.vec(
            x, output_size=None, align_corners=False, scale_factors=(1.5, 0.5)
        ),
        EVEN,
        1,
    ),
    Case(
        "bicubic",
        [IMAGE],
        lambda b, x: b.aten.upsample_bicubic2d(x, output_size=(2 * H, 2 * W), align_corners=False),
        SIZES,
        1,
    ),
    Case(
        "bicubic-fixed",
        [IMAGE],
        lambda b, x: b.aten.upsample_bicubic2d(x, output_size=(13, 7), align_corners=False),
        SIZES,
        3,
    ),
    Case("pixel_shuffle", ["f32[N,8,H,W]"], lambda b, x: b.aten.pixel_shuffle(x, upscale_factor=2), SIZES, 1),
    Case(
        "grid_sampler",
        [IMAGE, "f32[N,P,Q,2]"],
        lambda b, x, g: b.aten.grid_sampler(x, g, interpolation_mode=0, padding_mode=0, align_corners=False),
        ({"N": 2, "H": 5, "W": 6, "P": 3, "Q": 4},),
        1,
    ),
    Case(
        "grid_sampler-border",
        [IMAGE, "f32[N,P,Q,2]"],
        lambda b, x, g: b.aten.grid_sampler(x, g, interpolation_mode=1, padding_mode=1, align_corners=True),
        ({"N": 2, "H": 5, "W": 6, "P": 3, "Q": 4},),
        1,
    ),
]


@pytest.mark.parametrize("case", [*LINEAR, *RESIZING], ids=lambda case: case.name)
def test_lowering_agrees_with_torch(case):
    check(case)
