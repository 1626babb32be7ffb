"""Semantic segmentation on a feature pyramid (arXiv 1901.02446)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from .backbone import Backbone
from .layers import Conv2d, Norm, ShapeSpec, check_inference, get_norm
from .meta_arch import BatchedInputs, MetaArch, output_size
from .postprocess import sem_seg_postprocess


class SemanticSegmentor(MetaArch):
    """A backbone and a segmentation head."""

    def __init__(
        self,
        *,
        backbone: Backbone,
        sem_seg_head: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        """
        Args:
            backbone: see `Backbone`.
            sem_seg_head: see `SemSegFPNHead`.
            pixel_mean: see `MetaArch`.
            pixel_std: see `MetaArch`.
        """
        super().__init__(backbone=backbone, pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.sem_seg_head = sem_seg_head

    def forward(self, batched_inputs: BatchedInputs) -> list[dict[str, Tensor]]:
        """For each image {"sem_seg": logits [K, height, width]} at the output's size."""
        check_inference(self)
        images = self.preprocess_image(batched_inputs)
        results, _ = self.sem_seg_head(self.backbone(images.tensor), None)
        return [
            {"sem_seg": sem_seg_postprocess(result, image_size, *output_size(inputs, image_size))}
            for result, inputs, image_size in zip(results, batched_inputs, images.image_sizes, strict=True)
        ]


class SemSegFPNHead(nn.Module):
    """Brings every level to one resolution by convolutions and upsampling, adds them up, and classifies."""

    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        num_classes: int,
        conv_dims: int,
        common_stride: int,
        norm: Norm = None,
        ignore_value: int = -1,
    ) -> None:
        """
        Args:
            input_shape: of each feature map to use.
            num_classes: of the logits.
            conv_dims: channels of the hidden convolutions.
            common_stride: the stride at which the levels are added.
            norm: normalization of the convolutions, which then have no bias.
            ignore_value: the label that training leaves out; for callers.
        """
        super().__init__()
        if not input_shape:
            raise InputError("SEM_SEG_HEAD.IN_FEATURES must name features of the backbone")
        self.ignore_value = ignore_value
        self.common_stride = common_stride
        self.in_features = sorted(input_shape, key=lambda name: input_shape[name].stride or 0)
        self.scale_heads: list[nn.Sequential] = []
        for name in self.in_features:
            head = self._scale_head(input_shape[name], conv_dims, norm)
            self.scale_heads.append(head)
            self.add_module(name, head)
        self.predictor = Conv2d(conv_dims, num_classes, kernel_size=1)

    def _scale_head(self, shape: ShapeSpec, conv_dims: int, norm: Norm) -> nn.Sequential:
        stride, channels = shape.stride or 1, shape.channels or 0
        if stride < self.common_stride:
            raise InputError(
                f"SEM_SEG_HEAD.COMMON_STRIDE {self.common_stride} is above a feature's stride, {stride}"
            )
        layers: list[nn.Module] = []
        for _ in range(max(1, int(math.log2(stride) - math.log2(self.common_stride)))):
            layers.append(
                Conv2d(
                    channels,
                    conv_dims,
                    kernel_size=3,
                    padding=1,
                    bias=not norm,
                    norm=get_norm(norm, conv_dims),
                    activation=F.relu,
                )
            )
            if stride != self.common_stride:
                layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            channels = conv_dims
        return nn.Sequential(*layers)

    def forward(self, features: dict[str, Tensor], targets: None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """
        Args:
            features: feature maps by name.
            targets: has no use at inference.

        Returns:
            Logits [N, K, H, W] at the padded input's resolution; and no losses.
        """
        check_inference(self)
        x = self.layers(features)
        x = F.interpolate(x, scale_factor=self.common_stride, mode="bilinear", align_corners=False)
        return x, {}

    def layers(self, features: dict[str, Tensor]) -> Tensor:
        """Logits [N, K, H / common_stride, W / common_stride]."""
        first, *others = zip(self.in_features, self.scale_heads, strict=True)
        x = first[1](features[first[0]])
        for name, head in others:
            x = x + head(features[name])
        return self.predictor(x)
