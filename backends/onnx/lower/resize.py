"""Resizing and sampling of images in aten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from detc.ir import Dim, Value

from .builder import OnnxBuilder
from .rules import RuleTable

TABLE = RuleTable()


def _resize(
    b: OnnxBuilder,
    x: Value,
    factors: Sequence[float | None] | None,
    output_size: Sequence[Dim] | None,
    **how: Any,
) -> Value:
    """Resize the axes after the first two, by factors where torch is told factors, to sizes elsewhere."""
    if factors is None or None in factors:
        target = tuple(output_size) if output_size is not None else b.result.shape[2:]
        factors = _whole_factors(x, target)
        if factors is None:
            sizes = b.shape((*x.shape[:2], *target), x)
            return b.onnx.Resize(x, None, None, sizes, **how)
    scales = b.constant(torch.tensor([1.0, 1.0, *factors], dtype=torch.float32))
    return b.onnx.Resize(x, None, scales, **how)


def _whole_factors(x: Value, target: Sequence[Dim]) -> list[float] | None:
    """The factors by which `x` grows to the target, if they are whole numbers whatever the sizes are."""
    factors = []
    for size, wanted in zip(x.shape[2:], target, strict=True):
        factor = next((k for k in range(1, 65) if size * k == wanted), None)
        if factor is None:
            return None
        factors.append(float(factor))
    return factors


def _given(scale_factors: Any, scales: Any, scales_h: Any, scales_w: Any) -> list[float | None] | None:
    if scale_factors is not None:
        return list(scale_factors)
    if scales is not None:
        return [scales]
    return None if scales_h is None and scales_w is None else [scales_h, scales_w]


def _interpolation(name: str, **how: Any) -> None:
    @TABLE.rule(f"aten.{name}", f"aten.{name}.vec")
    def upsample(
        b: OnnxBuilder,
        output_size: Any,
        self: Value | None = None,
        input: Value | None = None,
        align_corners: bool = False,
        scale_factors: Any = None,
        scales: float | None = None,
        scales_h: float | None = None,
        scales_w: float | None = None,
    ) -> Value:
        x = self if input is None else input
        assert x is not None
        # torch's pixels have their centres at a half, also where one pixel is left: half_pixel, not
        # pytorch_half_pixel, which describes an older torch.
        mode = {"coordinate_transformation_mode": "align_corners" if align_corners else "half_pixel"}
        return _resize(
            b, x, _given(scale_factors, scales, scales_h, scales_w), output_size, **{**mode, **how}
        )


for axes in ("1d", "2d"):
    _interpolation(
        f"upsample_nearest{axes}",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
        mode="nearest",
    )
    _interpolation(f"_upsample_nearest_exact{axes}", nearest_mode="round_prefer_ceil", mode="nearest")
_interpolation("upsample_linear1d", mode="linear")
_interpolation("upsample_bilinear2d", mode="linear")
_interpolation("upsample_bicubic2d", mode="cubic", cubic_coeff_a=-0.75)


@TABLE.rule("aten.pixel_shuffle")
def pixel_shuffle(b: OnnxBuilder, self: Value, upscale_factor: int) -> Value:
    return b.onnx.DepthToSpace(self, blocksize=upscale_factor, mode="CRD")


@TABLE.rule("aten.grid_sampler", "aten.grid_sampler_2d")
def grid_sampler(
    b: OnnxBuilder, input: Value, grid: Value, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Value:
    return b.onnx.GridSample(
        input,
        grid,
        mode=("linear", "nearest", "cubic")[interpolation_mode],
        padding_mode=("zeros", "border", "reflection")[padding_mode],
        align_corners=int(align_corners),
    )
