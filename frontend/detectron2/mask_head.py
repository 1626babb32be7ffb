"""The mask head of Mask R-CNN (arXiv 1703.06870)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detc.ir.structures import Instances

from ..errors import InputError
from .layers import Conv2d, Norm, ShapeSpec, add_convs, check_inference


def mask_rcnn_inference(pred_mask_logits: Tensor, pred_instances: list[Instances]) -> None:
    """Give each image's instances the field pred_masks, [R_i, 1, H, W]: probabilities for the predicted
    class.

    Args:
        pred_mask_logits: [R, K, H, W] over the instances of all images, or [R, 1, H, W] for any class.
        pred_instances: with the field pred_classes.
    """
    if pred_mask_logits.shape[1] > 1:
        classes = torch.cat([instances.pred_classes for instances in pred_instances])
        rows = torch.arange(len(classes), device=classes.device)
        pred_mask_logits = pred_mask_logits[rows, classes][:, None]
    masks = torch.split(pred_mask_logits.sigmoid(), [len(instances) for instances in pred_instances])
    for image_masks, instances in zip(masks, pred_instances, strict=True):
        instances.pred_masks = image_masks


class BaseMaskRCNNHead(nn.Module):
    """A mask head; `layers` makes logits from pooled features."""

    def forward(self, x: Tensor, instances: list[Instances]) -> list[Instances]:
        """The instances with the field pred_masks, from the features [R, C, H, W] of all of them."""
        check_inference(self)
        mask_rcnn_inference(self.layers(x), instances)
        return instances

    def layers(self, x: Tensor) -> Tensor:
        """Logits [R, K or 1, H', W'] from features [R, C, H, W]."""
        raise NotImplementedError


class MaskRCNNConvUpsampleHead(BaseMaskRCNNHead, nn.Sequential):  # type: ignore[misc]  # both have `forward`
    """3x3 convolutions, a deconvolution that doubles height and width, and a 1x1 convolution."""

    def __init__(
        self, input_shape: ShapeSpec, *, num_classes: int, conv_dims: Sequence[int], conv_norm: Norm = ""
    ) -> None:
        """
        Args:
            input_shape: of the pooled features.
            num_classes: 1 if one mask serves all classes.
            conv_dims: channels of the convolutions, and last of the deconvolution.
            conv_norm: normalization of the convolutions, which then have no bias.
        """
        super().__init__()
        if not conv_dims or input_shape.channels is None:
            raise InputError("MaskRCNNConvUpsampleHead needs input channels and conv_dims")
        channels = add_convs(self, "mask_fcn", input_shape.channels, conv_dims[:-1], conv_norm)
        self.deconv = nn.ConvTranspose2d(channels, conv_dims[-1], kernel_size=2, stride=2)
        self.add_module("deconv_relu", nn.ReLU())
        self.predictor = Conv2d(conv_dims[-1], num_classes, kernel_size=1)

    def layers(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return x
