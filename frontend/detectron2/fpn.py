"""Feature pyramid network (arXiv 1612.03144)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from .backbone import Backbone
from .layers import Conv2d, ShapeSpec, get_norm


class TopBlock(Protocol):
    """Makes further, coarser levels from the feature map `in_feature`."""

    num_levels: int
    in_feature: str

    def __call__(self, x: Tensor) -> list[Tensor]: ...


class FPN(Backbone):
    """A top-down pyramid p2, p3, ... over the features of `bottom_up`; level k has stride 2**k."""

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: list[str],
        out_channels: int,
        norm: str = "",
        top_block: nn.Module | None = None,
        fuse_type: str = "sum",
        square_pad: int = 0,
    ) -> None:
        """
        Args:
            bottom_up: the network below.
            in_features: names of its features, from fine to coarse; each stride is twice the one before.
            out_channels: channels of every level.
            norm: normalization after each convolution, which then has no bias.
            top_block: makes levels above the coarsest, see `TopBlock`.
            fuse_type: "sum", or "avg" for the mean of lateral and top-down features.
            square_pad: if above 0, inputs are padded to squares of so many pixels.
        """
        super().__init__()
        if fuse_type not in ("sum", "avg"):
            raise InputError(f"FPN.FUSE_TYPE '{fuse_type}' is not known; there are sum and avg")
        shapes = bottom_up.output_shape()
        strides = _checked_strides(shapes, in_features)
        levels = [int(math.log2(stride)) for stride in strides]
        laterals, outputs = [], []
        for name, level in zip(in_features, levels, strict=True):
            laterals.append(_conv(shapes[name].channels or 0, out_channels, norm, kernel_size=1))
            outputs.append(_conv(out_channels, out_channels, norm, kernel_size=3, padding=1))
            self.add_module(f"fpn_lateral{level}", laterals[-1])
            self.add_module(f"fpn_output{level}", outputs[-1])
        # Plain lists, from coarse to fine, in the order of the forward; the modules are registered above.
        self.lateral_convs = laterals[::-1]
        self.output_convs = outputs[::-1]
        self.top_block = top_block
        self.in_features = tuple(in_features)
        self.bottom_up = bottom_up
        extra = int(cast(TopBlock, top_block).num_levels) if top_block is not None else 0
        if top_block is not None and top_block.in_feature not in (
            *shapes,
            *(f"p{level}" for level in levels),
        ):
            raise InputError(
                f"FPN's top block needs '{top_block.in_feature}', which neither it nor its backbone makes"
            )
        all_levels = [*levels, *range(levels[-1] + 1, levels[-1] + 1 + extra)]
        self._out_features = [f"p{level}" for level in all_levels]
        self._out_feature_strides = {f"p{level}": 2**level for level in all_levels}
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)
        self._size_divisibility = strides[-1]
        self._square_pad = square_pad
        self._fuse_type = fuse_type

    @property
    def size_divisibility(self) -> int:
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        return {"square_size": self._square_pad}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """
        Args:
            x: [N, C, H, W], H and W multiples of `size_divisibility`.

        Returns:
            [N, out_channels, H / stride, W / stride] for each level, from fine to coarse.
        """
        features = self.bottom_up(x)
        merged: Tensor | None = None
        results: list[Tensor] = []
        for name, lateral, output in zip(
            reversed(self.in_features), self.lateral_convs, self.output_convs, strict=True
        ):
            lateral_features = lateral(features[name])
            if merged is None:
                merged = lateral_features
            else:
                merged = lateral_features + F.interpolate(merged, scale_factor=2.0, mode="nearest")
                if self._fuse_type == "avg":
                    merged = merged / 2
            results.insert(0, output(merged))
        if self.top_block is not None:
            source = str(self.top_block.in_feature)
            below = features[source] if source in features else results[self._out_features.index(source)]
            results.extend(self.top_block(below))
        return dict(zip(self._out_features, results, strict=True))


def _checked_strides(shapes: Mapping[str, ShapeSpec], in_features: Sequence[str]) -> list[int]:
    """The strides of the features that the pyramid stands on; InputError where it cannot."""
    if not in_features or any(name not in shapes for name in in_features):
        raise InputError(f"FPN.IN_FEATURES {list(in_features)} must be among the backbone's {list(shapes)}")
    strides = [shapes[name].stride or 0 for name in in_features]
    if any(coarse != 2 * fine for fine, coarse in itertools.pairwise(strides)):
        raise InputError(f"FPN needs each feature's stride to be twice the one before, not {strides}")
    return strides


def _conv(
    channels: int | None, out_channels: int, norm: str, *, kernel_size: int, padding: int = 0
) -> Conv2d:
    return Conv2d(
        channels,
        out_channels,
        kernel_size=kernel_size,
        padding=padding,
        bias=norm == "",
        norm=get_norm(norm, out_channels),
    )


class LastLevelMaxPool(nn.Module):
    """p6 from p5: every second pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.num_levels = 1
        self.in_feature = "p5"

    def forward(self, x: Tensor) -> list[Tensor]:
        return [F.max_pool2d(x, kernel_size=1, stride=2, padding=0)]


class LastLevelP6P7(nn.Module):
    """RetinaNet's p6 and p7, two convolutions of stride 2 above `in_feature`."""

    def __init__(self, in_channels: int, out_channels: int, in_feature: str = "res5") -> None:
        super().__init__()
        self.num_levels = 2
        self.in_feature = in_feature
        self.p6 = nn.Conv2d(in_channels, out_channels, 3, 2, 1)
        self.p7 = nn.Conv2d(out_channels, out_channels, 3, 2, 1)

    def forward(self, c5: Tensor) -> list[Tensor]:
        p6 = self.p6(c5)
        return [p6, self.p7(F.relu(p6))]
