"""Layers with detectron2's names, attributes and parameters, for inference only.

Weights come from a checkpoint, so that no layer here reproduces detectron2's initialization.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detc.ir.lazy import torchvision

from ..errors import InputError

# By torch's annotations a call of any module gives Any. Where more is known, an attribute is a `Layer`, or a class has
# `__call__ = forward` for the type checker.
Layer = Callable[[Tensor], Tensor]
Activation = Callable[[Tensor], Tensor]
Norm = str | Callable[[int], nn.Module] | None


def check_inference(module: nn.Module) -> None:
    """Refuse to run a module in training mode.

    Raises:
        RuntimeError: `module.training` is set.
    """
    if module.training:
        raise RuntimeError(f"{type(module).__name__} is for inference only: call .eval() on the model first")


@dataclass
class ShapeSpec:
    """What is known of a feature map's shape; `stride` is relative to the input image."""

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None


def common_channels(shapes: Iterable[ShapeSpec], what: str) -> int:
    """The channels that all feature maps have.

    Raises:
        InputError: they differ; `what` says whose they are.
    """
    channels = {shape.channels for shape in shapes}
    if len(channels) != 1:
        raise InputError(f"{what} must have the same number of channels, not {sorted(map(str, channels))}")
    (count,) = channels
    if count is None:
        raise InputError(f"{what} have an unknown number of channels")
    return count


class Conv2d(nn.Conv2d):
    """A convolution, followed by `norm` and `activation` if given."""

    def __init__(
        self, *args: Any, norm: nn.Module | None = None, activation: Activation | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.norm = norm
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        if self.norm is not None:
            x = self.norm(x)
        if self.activation is not None:
            x = self.activation(x)
        return x

    if TYPE_CHECKING:
        __call__ = forward


class FrozenBatchNorm2d(nn.Module):
    """Batch normalization with fixed statistics and a fixed affine map, all of them buffers."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor | None

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features) - eps)
        self.register_buffer("num_batches_tracked", None)

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )

    def extra_repr(self) -> str:
        return f"num_features={self.num_features}, eps={self.eps}"

    @classmethod
    def convert_frozen_batchnorm(cls, module: nn.Module) -> nn.Module:
        """`module` with its batch norms frozen: a new module for a batch norm, else changed in place."""
        if not isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
            for name, child in module.named_children():
                converted = cls.convert_frozen_batchnorm(child)
                if converted is not child:
                    module.add_module(name, converted)
            return module
        frozen = cls(module.num_features, module.eps)
        if module.affine:
            frozen.weight, frozen.bias = module.weight.detach(), module.bias.detach()
        assert module.running_mean is not None and module.running_var is not None
        frozen.running_mean, frozen.running_var = module.running_mean, module.running_var
        frozen.num_batches_tracked = module.num_batches_tracked
        return frozen


class NaiveSyncBatchNorm(nn.BatchNorm2d):
    """detectron2's synchronized batch norm; at inference it is a batch norm."""

    def __init__(self, *args: Any, stats_mode: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stats_mode = stats_mode


class LayerNorm(nn.Module):
    """Layer normalization over the channels of an NCHW tensor, as ConvNeXt has it."""

    def __init__(self, normalized_shape: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(normalized_shape))
        self.bias = nn.Parameter(torch.zeros(normalized_shape))
        self.eps = eps
        self.normalized_shape = (normalized_shape,)

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        variance = centred.pow(2).mean(1, keepdim=True)
        normalized = centred / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * normalized + self.bias[:, None, None]


class CycleBatchNormList(nn.ModuleList):
    """One batch norm per feature level with one affine map for all; call number i uses norm i, then around
    again.

    Of "Rethinking 'Batch' in BatchNorm" (arXiv 2105.07576), section 5.2.
    """

    def __init__(self, length: int, bn_class: type[nn.Module] = nn.BatchNorm2d, **kwargs: Any) -> None:
        self._affine = kwargs.pop("affine", True)
        super().__init__([bn_class(**kwargs, affine=False) for _ in range(length)])
        if self._affine:
            channels = kwargs["num_features"]
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))
        self._pos = 0

    def rewind(self) -> None:
        """Let the next call be that of the first level."""
        self._pos = 0

    def forward(self, x: Tensor) -> Tensor:
        normalized: Tensor = self[self._pos](x)
        self._pos = (self._pos + 1) % len(self)
        if not self._affine:
            return normalized
        return normalized * self.weight.reshape(1, -1, 1, 1) + self.bias.reshape(1, -1, 1, 1)


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BN": nn.BatchNorm2d,
    "SyncBN": nn.SyncBatchNorm,
    "FrozenBN": FrozenBatchNorm2d,
    "GN": lambda channels: nn.GroupNorm(32, channels),
    "nnSyncBN": nn.SyncBatchNorm,
    "naiveSyncBN": NaiveSyncBatchNorm,
    "naiveSyncBN_N": lambda channels: NaiveSyncBatchNorm(channels, stats_mode="N"),
    "LN": LayerNorm,
}


def get_norm(norm: Norm, out_channels: int) -> nn.Module | None:
    """A normalization layer by detectron2's name for it, or from a function of the channels; None for "" and
    None.

    Raises:
        InputError: an unknown name, or channels that the layer cannot have.
    """
    if norm is None or norm == "":
        return None
    if isinstance(norm, str):
        if norm not in _NORMS:
            raise InputError(f"NORM '{norm}' is not known; there are {', '.join(_NORMS)} and ''")
        if norm == "GN" and out_channels % 32:
            raise InputError(f"NORM 'GN' has 32 groups and cannot normalize {out_channels} channels")
        norm = _NORMS[norm]
    return norm(out_channels)


class CNNBlockBase(nn.Module):
    """A block of a backbone: `stride` is the factor between its input's and its output's height and width."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride

    def freeze(self) -> CNNBlockBase:
        """Turn batch norms into frozen ones, which is what decides their buffers' names in a checkpoint."""
        for parameter in self.parameters():
            parameter.requires_grad = False
        FrozenBatchNorm2d.convert_frozen_batchnorm(self)
        return self


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


class DeformConv(nn.Module):
    """A deformable convolution (arXiv 1703.06211), followed by `norm` and `activation` if given."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = False,
        norm: nn.Module | None = None,
        activation: Activation | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _pair(kernel_size)
        self.stride = _pair(stride)
        self.padding = _pair(padding)
        self.dilation = _pair(dilation)
        self.groups = groups
        self.deformable_groups = deformable_groups
        self.norm = norm
        self.activation = activation
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        """
        Args:
            x: [N, C, H, W].
            offset: [N, 2 * deformable_groups * kernel area, H', W']: for each tap its shift in y and in x, in
                pixels.
        """
        return self._convolve(x, offset, None)

    def _convolve(self, x: Tensor, offset: Tensor, mask: Tensor | None) -> Tensor:
        x = torchvision.ops.deform_conv2d(
            x, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask
        )
        if self.norm is not None:
            x = self.norm(x)
        if self.activation is not None:
            x = self.activation(x)
        return x

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}, "
            f"deformable_groups={self.deformable_groups}, bias={self.bias is not None}"
        )


class ModulatedDeformConv(DeformConv):
    """A deformable convolution whose taps are also weighted (arXiv 1811.11168)."""

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]  # as in detectron2
        """As `DeformConv`; `mask` [N, deformable_groups * kernel area, H', W'] is the weight of each tap."""
        return self._convolve(x, offset, mask)


class ROIAlign(nn.Module):
    """Average of bilinear samples in each bin of each region (arXiv 1703.06870).

    `aligned` shifts the regions by half a pixel, so that pixel centres lie at .5 (detectron2's "ROIAlignV2").
    `sampling_ratio` 0 takes as many samples per bin as it is pixels wide and high, rounded up.
    """

    def __init__(
        self, output_size: tuple[int, int], spatial_scale: float, sampling_ratio: int, aligned: bool = True
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """
        Args:
            input: [N, C, H, W].
            rois: [R, 5], each row the image's index and x0, y0, x1, y1 in the input image's pixels.

        Returns:
            [R, C, *output_size].
        """
        return torchvision.ops.roi_align(
            input,
            rois.to(dtype=input.dtype),
            self.output_size,
            self.spatial_scale,
            self.sampling_ratio,
            self.aligned,
        )

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        )


def add_convs(module: nn.Module, name: str, channels: int, conv_dims: Sequence[int], norm: Norm) -> int:
    """Add 3x3 convolutions with normalization and ReLU, `name` and a number from 1. Returns the last one's channels."""
    for index, conv_dim in enumerate(conv_dims, start=1):
        conv = Conv2d(
            channels,
            conv_dim,
            kernel_size=3,
            padding=1,
            bias=not norm,
            norm=get_norm(norm, conv_dim),
            activation=nn.ReLU(),
        )
        module.add_module(f"{name}{index}", conv)
        channels = conv_dim
    return channels
