"""The keypoint head of Mask R-CNN (arXiv 1703.06870, section 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detc.ir.structures import Instances

from ..errors import InputError
from .layers import Conv2d, ShapeSpec, check_inference


def heatmaps_to_keypoints(maps: Tensor, rois: Tensor) -> Tensor:
    """Where each keypoint's heatmap is highest, at the resolution of the image.

    Each region's maps are resized (bicubic) to the region's size in pixels, rounded up. A pixel's coordinate
    is that of its centre, at .5. Scores are a softmax over the map's own cells, so that large and small
    regions compare.

    Args:
        maps: [R, K, H, W], logits.
        rois: [R, 4], the regions x0, y0, x1, y1 in pixels.

    Returns:
        [R, K, 4]: x, y, logit, score.
    """
    keypoints = maps.new_zeros((*maps.shape[:2], 4))
    sides = (rois[:, 2:] - rois[:, :2]).clamp(min=1)
    pixels = sides.ceil()
    # From the coordinates of the rounded size back to those of the region.
    corrections = sides / pixels
    for row, (width, height) in enumerate(pixels.int().tolist()):
        (resized,) = F.interpolate(maps[row, None], size=(height, width), mode="bicubic", align_corners=False)
        logit, position = resized.flatten(1).max(dim=1)
        # The highest logit is the softmax's numerator: exp(logit - logit) = 1.
        score = 1.0 / (maps[row] - logit[:, None, None]).exp().sum((1, 2))
        cell = torch.stack((position % width, position // width), dim=1).to(rois.dtype)
        xy = (cell + 0.5) * corrections[row] + rois[row, :2]
        keypoints[row] = torch.cat((xy.to(maps.dtype), logit[:, None], score[:, None]), dim=1)
    return keypoints


def keypoint_rcnn_inference(pred_keypoint_logits: Tensor, pred_instances: list[Instances]) -> None:
    """Give each image's instances pred_keypoints [R_i, K, 3] (x, y, score) and pred_keypoint_heatmaps.

    Args:
        pred_keypoint_logits: [R, K, H, W] over the instances of all images.
        pred_instances: with the field pred_boxes.
    """
    boxes = torch.cat([instances.pred_boxes.tensor for instances in pred_instances])
    counts = [len(instances) for instances in pred_instances]
    keypoints = heatmaps_to_keypoints(pred_keypoint_logits, boxes)[:, :, [0, 1, 3]]
    for instances, found, heatmaps in zip(
        pred_instances, torch.split(keypoints, counts), torch.split(pred_keypoint_logits, counts), strict=True
    ):
        instances.pred_keypoints = found
        instances.pred_keypoint_heatmaps = heatmaps


class BaseKeypointRCNNHead(nn.Module):
    """A keypoint head; `layers` makes heatmaps from pooled features."""

    def __init__(self, *, num_keypoints: int) -> None:
        super().__init__()
        self.num_keypoints = num_keypoints

    def forward(self, x: Tensor, instances: list[Instances]) -> list[Instances]:
        """The instances with their keypoints, from the features [R, C, H, W] of all of them."""
        check_inference(self)
        keypoint_rcnn_inference(self.layers(x), instances)
        return instances

    def layers(self, x: Tensor) -> Tensor:
        """Logits [R, K, H', W'] from features [R, C, H, W]."""
        raise NotImplementedError


class KRCNNConvDeconvUpsampleHead(BaseKeypointRCNNHead, nn.Sequential):  # type: ignore[misc]  # both have `forward`
    """3x3 convolutions with ReLU, a deconvolution that doubles the size, and a bilinear resize that doubles
    it again.
    """

    def __init__(self, input_shape: ShapeSpec, *, num_keypoints: int, conv_dims: Sequence[int]) -> None:
        """
        Args:
            input_shape: of the pooled features.
            num_keypoints: heatmaps per region.
            conv_dims: output channels of each convolution.
        """
        super().__init__(num_keypoints=num_keypoints)
        if input_shape.channels is None:
            raise InputError("KRCNNConvDeconvUpsampleHead must know its input's channels")
        channels = input_shape.channels
        for index, conv_dim in enumerate(conv_dims, start=1):
            self.add_module(f"conv_fcn{index}", Conv2d(channels, conv_dim, 3, stride=1, padding=1))
            self.add_module(f"conv_fcn_relu{index}", nn.ReLU())
            channels = conv_dim
        self.score_lowres = nn.ConvTranspose2d(channels, num_keypoints, 4, stride=2, padding=1)
        self.up_scale = 2.0

    def layers(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return F.interpolate(x, scale_factor=self.up_scale, mode="bilinear", align_corners=False)
