"""Resizing of feature maps by Caffe2's operators."""

from __future__ import annotations

from typing import Any

import torch

from detc.ir import Dim, Value
from detc.ir.dims import floor_div
from detc.passes.core.base import NoMatch
from detc.passes.rewrite.lowering_rules import RuleTable

from .builder import Caffe2Builder, whole

TABLE = RuleTable()


def _scales(b: Caffe2Builder, input: Value, scale_factors: Any) -> tuple[float, float]:
    """How many times higher and wider the result is."""
    height, width = scale_factors or (_ratio(b.result.shape[axis], input.shape[axis]) for axis in (2, 3))
    return float(height), float(width)


def _ratio(size: Dim, of: Dim) -> float:
    """size / of, where that is one number."""
    ratio = floor_div(size, of)
    if not isinstance(ratio, int) or of * ratio != size:
        raise NoMatch(f"a resizing from {of} to {size}, which is no fixed whole factor")
    return float(ratio)


@TABLE.rule("aten.upsample_nearest2d.vec")
def upsample_nearest(b: Caffe2Builder, input: Value, output_size: Any, scale_factors: Any) -> Value:
    """ResizeNearest."""
    height, width = _scales(b, input, scale_factors)
    return b.caffe2.ResizeNearest(input, order="NCHW", width_scale=width, height_scale=height)


@TABLE.rule("aten.upsample_bilinear2d.vec")
def upsample_bilinear(
    b: Caffe2Builder, input: Value, output_size: Any, align_corners: bool, scale_factors: Any
) -> Value:
    """UpsampleBilinear keeps the corners' centers in place. Half-pixel centers are a transposed convolution's.

    Each channel is spread by a kernel that falls off linearly over one cell; what lies beyond the outermost cells is
    like them. Source: Long et al., "Fully Convolutional Networks for Semantic Segmentation", 2015, on such kernels.
    """
    height, width = _scales(b, input, scale_factors)
    if align_corners:
        return b.caffe2.UpsampleBilinear(input, width_scale=width, height_scale=height)
    factors = int(height), int(width)
    if factors != (height, width) or min(factors) < 1:
        raise NoMatch(f"a bilinear resizing by {height} and {width}, which are no whole numbers")
    channels = whole(input.shape[1], "the number of channels")
    rows, columns = (_falloff(factor) for factor in factors)
    kernel = torch.outer(rows, columns).expand(channels, 1, -1, -1)
    # A factor of 1 needs no neighbours.
    around = tuple(int(factor > 1) for factor in factors)
    cut = tuple((3 * factor - factor % 2) // 2 * edge for factor, edge in zip(factors, around, strict=True))
    padded = b.caffe2.PadImage(input, pads=around * 2, mode="edge")
    return b.caffe2.ConvTranspose(
        padded,
        b.constant(kernel.contiguous()),
        kernels=(len(rows), len(columns)),
        strides=factors,
        pads=cut * 2,
        group=channels,
    )


def _falloff(factor: int) -> torch.Tensor:
    """f32[k]: how much of a cell each position around it has, `factor` positions being one cell."""
    size = 2 * factor - factor % 2
    return 1 - (torch.arange(size) - (size - 1) / 2).abs() / factor
