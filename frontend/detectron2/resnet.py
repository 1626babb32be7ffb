"""ResNet and ResNeXt (arXiv 1512.03385, 1611.05431), with dilated and deformable stages."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from .backbone import Backbone
from .layers import CNNBlockBase, Conv2d, DeformConv, ModulatedDeformConv, Norm, get_norm

BLOCKS_PER_STAGE: dict[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Residual blocks in res2, res3, res4, res5 by depth."""


def _conv(in_channels: int, out_channels: int, kernel_size: int, norm: Norm, **kwargs: Any) -> Conv2d:
    return Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        bias=False,
        norm=get_norm(norm, out_channels),
        **kwargs,
    )


class _ResidualBlock(CNNBlockBase):
    """The frame of a residual block: a branch added to a shortcut, then ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: Norm) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.shortcut = (
            _conv(in_channels, out_channels, 1, norm, stride=stride) if in_channels != out_channels else None
        )

    def branch(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x) if self.shortcut is not None else x
        return F.relu(self.branch(x) + shortcut)


class BasicBlock(_ResidualBlock):
    """Two 3x3 convolutions: the block of ResNet-18 and -34."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, norm: Norm = "BN") -> None:
        super().__init__(in_channels, out_channels, stride, norm)
        self.conv1 = _conv(in_channels, out_channels, 3, norm, stride=stride, padding=1)
        self.conv2 = _conv(out_channels, out_channels, 3, norm, padding=1)

    def branch(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(x)))


class BottleneckBlock(_ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions: the block of ResNet-50 and deeper.

    `stride_in_1x1` puts the stride in the first convolution, as in the MSRA models, instead of in the 3x3
    one.
    """

    conv2: nn.Module

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: Norm = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, norm)
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = _conv(in_channels, bottleneck_channels, 1, norm, stride=stride_1x1)
        self.conv2 = _conv(
            bottleneck_channels,
            bottleneck_channels,
            3,
            norm,
            stride=stride_3x3,
            padding=dilation,
            groups=num_groups,
            dilation=dilation,
        )
        self.conv3 = _conv(bottleneck_channels, out_channels, 1, norm)

    def branch(self, x: Tensor) -> Tensor:
        return self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))


class DeformBottleneckBlock(_ResidualBlock):
    """A bottleneck block whose 3x3 convolution is deformable, with offsets from a convolution beside it."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: Norm = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
        deform_modulated: bool = False,
        deform_num_groups: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, norm)
        self.deform_modulated = deform_modulated
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = _conv(in_channels, bottleneck_channels, 1, norm, stride=stride_1x1)
        # For each of the 9 taps its shift in y and in x, and its weight where modulated.
        offset_channels = 27 if deform_modulated else 18
        self.conv2_offset = Conv2d(
            bottleneck_channels,
            offset_channels * deform_num_groups,
            kernel_size=3,
            stride=stride_3x3,
            padding=dilation,
            dilation=dilation,
        )
        deform_conv = ModulatedDeformConv if deform_modulated else DeformConv
        self.conv2 = deform_conv(
            bottleneck_channels,
            bottleneck_channels,
            kernel_size=3,
            stride=stride_3x3,
            padding=dilation,
            bias=False,
            groups=num_groups,
            dilation=dilation,
            deformable_groups=deform_num_groups,
            norm=get_norm(norm, bottleneck_channels),
        )
        self.conv3 = _conv(bottleneck_channels, out_channels, 1, norm)

    def branch(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        offset = self.conv2_offset(x)
        if self.deform_modulated:
            first, second, mask = torch.chunk(offset, 3, dim=1)
            x = self.conv2(x, torch.cat((first, second), dim=1), mask.sigmoid())
        else:
            x = self.conv2(x, offset)
        return self.conv3(F.relu(x))


class BasicStem(CNNBlockBase):
    """A 7x7 convolution, ReLU and max pooling: stride 4."""

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: Norm = "BN") -> None:
        super().__init__(in_channels, out_channels, 4)
        self.conv1 = _conv(in_channels, out_channels, 7, norm, stride=2, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(self.conv1(x)), kernel_size=3, stride=2, padding=1)


class ResNet(Backbone):
    """A stem and stages res2, res3, ...; each can be an output."""

    def __init__(
        self,
        stem: CNNBlockBase,
        stages: list[list[CNNBlockBase]],
        num_classes: int | None = None,
        out_features: list[str] | None = None,
        freeze_at: int = 0,
    ) -> None:
        """
        Args:
            stem: the layers before the stages.
            stages: the blocks of each stage; stages that no output needs are dropped.
            num_classes: with a number, a classifier "linear" of so many classes follows the last stage.
            out_features: names among "stem", "res2", ..., "linear"; by default the last.
            freeze_at: how many of the stem and the stages, from the front, have frozen batch norms.
        """
        super().__init__()
        self.stem = stem
        self.num_classes = num_classes
        stride, channels = stem.stride, stem.out_channels
        self._out_feature_strides = {"stem": stride}
        self._out_feature_channels = {"stem": channels}
        names = [f"res{index}" for index in range(2, 2 + len(stages))]
        if out_features is not None and "linear" not in out_features:
            needed = max((names.index(name) + 1 for name in out_features if name in names), default=0)
            names, stages = names[:needed], stages[:needed]
        self.stage_names = tuple(names)
        self.stages: list[nn.Sequential] = []
        for name, blocks in zip(names, stages, strict=True):
            stage = nn.Sequential(*blocks)
            self.add_module(name, stage)
            self.stages.append(stage)
            for block in blocks:
                stride, channels = stride * block.stride, block.out_channels
            self._out_feature_strides[name], self._out_feature_channels[name] = stride, channels
        last = names[-1] if names else "stem"
        if num_classes is not None:
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            self.linear = nn.Linear(channels, num_classes)
            last = "linear"
        self._out_features = list(out_features) if out_features is not None else [last]
        known = ["stem", *names, *(["linear"] if num_classes is not None else [])]
        for name in self._out_features:
            if name not in known:
                raise InputError(f"a ResNet has no feature '{name}'; there are {', '.join(known)}")
        self.freeze(freeze_at)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """
        Args:
            x: [N, C, H, W].

        Returns:
            [N, C', H / stride, W / stride] for each of the output features.
        """
        outputs = {}
        x = self.stem(x)
        if "stem" in self._out_features:
            outputs["stem"] = x
        for name, stage in zip(self.stage_names, self.stages, strict=True):
            x = stage(x)
            if name in self._out_features:
                outputs[name] = x
        if "linear" in self._out_features:
            outputs["linear"] = self.linear(torch.flatten(self.avgpool(x), 1))
        return outputs

    def freeze(self, freeze_at: int = 0) -> ResNet:
        """Freeze the stem if `freeze_at` is at least 1, res2 if at least 2, and so on."""
        if freeze_at >= 1:
            self.stem.freeze()
        for index, stage in enumerate(self.stages, start=2):
            if freeze_at >= index:
                for block in stage.children():
                    assert isinstance(block, CNNBlockBase)
                    block.freeze()
        return self

    @staticmethod
    def make_stage(
        block_class: type[CNNBlockBase],
        num_blocks: int,
        *,
        first_stride: int,
        in_channels: int,
        out_channels: int,
        **kwargs: Any,
    ) -> list[CNNBlockBase]:
        """Blocks in a row; the first one has the stride and changes the channels."""
        blocks = []
        for index in range(num_blocks):
            stride = first_stride if index == 0 else 1
            blocks.append(block_class(in_channels, out_channels, stride=stride, **kwargs))
            in_channels = out_channels
        return blocks
