"""PointRend (arXiv 1912.08193): masks and segmentations refined at their uncertain points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detc.ir.structures import Boxes, Instances

from ..errors import InputError
from .layers import Conv2d, Layer, ShapeSpec, check_inference
from .mask_head import mask_rcnn_inference
from .point_features import (
    generate_regular_grid_point_coords,
    get_uncertain_point_coords_on_grid,
    point_sample,
    point_sample_fine_grained_features,
)
from .point_head import ImplicitPointHead, StandardPointHead
from .roi_heads import StandardROIHeads
from .semantic import SemSegFPNHead

Features = Mapping[str, Tensor]


def mask_uncertainty(logits: Tensor, classes: Tensor) -> Tensor:
    """[R, 1, ...]: how close to 0 the logits [R, K or 1, ...] of the given classes [R] are, as a negative
    distance.
    """
    if logits.shape[1] > 1:
        logits = logits[torch.arange(len(logits), device=logits.device), classes][:, None]
    return -logits.abs()


def semantic_uncertainty(logits: Tensor) -> Tensor:
    """[N, 1, ...]: how close the second highest of the logits [N, K, ...] comes to the highest, as a negative
    distance.
    """
    best = logits.topk(k=2, dim=1).values
    return best[:, 1:2] - best[:, 0:1]


def _with_points(logits: Tensor, indices: Tensor, point_logits: Tensor) -> Tensor:
    """Logits [R, K, H, W] with those at the flat indices [R, P] replaced by [R, K, P]."""
    index = indices[:, None].expand(-1, logits.shape[1], -1)
    return logits.flatten(2).scatter(2, index, point_logits).view_as(logits)


class ConvFCHead(nn.Module):
    """A strided convolution and linear layers: a coarse mask, or parameters, for a whole region."""

    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        conv_dim: int,
        fc_dims: Sequence[int],
        output_shape: Sequence[int],
    ) -> None:
        """
        Args:
            input_shape: channels, height and width of a region's features; height and width are even.
            conv_dim: channels after the convolution. More input channels are reduced to so many first.
            fc_dims: outputs of each hidden linear layer.
            output_shape: of each region's output.
        """
        super().__init__()
        channels, height, width = input_shape.channels, input_shape.height, input_shape.width
        if channels is None or height is None or width is None or not fc_dims:
            raise InputError("ConvFCHead needs channels, height and width, and ROI_MASK_HEAD.NUM_FC above 0")
        if channels < conv_dim:
            raise InputError(
                f"ROI_MASK_HEAD.CONV_DIM {conv_dim} is above the {channels} channels of its features"
            )
        self.output_shape = tuple(output_shape)
        self.conv_layers: list[Conv2d] = []
        if channels > conv_dim:
            self.reduce_channel_dim_conv = Conv2d(channels, conv_dim, kernel_size=1, activation=F.relu)
            self.conv_layers.append(self.reduce_channel_dim_conv)
        self.reduce_spatial_dim_conv = Conv2d(conv_dim, conv_dim, kernel_size=2, stride=2, activation=F.relu)
        self.conv_layers.append(self.reduce_spatial_dim_conv)
        self.fcs: list[nn.Linear] = []
        size = conv_dim * height * width // 4
        for index, fc_dim in enumerate(fc_dims, start=1):
            fc = nn.Linear(size, fc_dim)
            self.add_module(f"fc{index}", fc)
            self.fcs.append(fc)
            size = fc_dim
        self.prediction: Layer = nn.Linear(size, math.prod(self.output_shape))

    def forward(self, x: Tensor) -> Tensor:
        """[R, *output_shape] from features [R, C, H, W]."""
        for layer in self.conv_layers:
            x = layer(x)
        x = torch.flatten(x, start_dim=1)
        for fc in self.fcs:
            x = F.relu(fc(x))
        return self.prediction(x).view(x.shape[0], *self.output_shape)


class PointRendMaskHead(nn.Module):
    """A coarse mask per region, upsampled in steps; each step predicts the uncertain points anew."""

    point_head: nn.Module

    def __init__(
        self,
        *,
        feature_scales: Mapping[str, float],
        in_features: Sequence[str],
        pooler_size: int,
        coarse_head: nn.Module,
        point_head: nn.Module | None,
        point_in_features: Sequence[str],
        init_resolution: int,
        subdivision_steps: int,
        subdivision_num_points: int,
    ) -> None:
        """
        Args:
            feature_scales: 1 / stride of each feature map by name.
            in_features: feature maps that the coarse head takes.
            pooler_size: side of the grid of samples it takes of a region.
            coarse_head: see `ConvFCHead`.
            point_head: see `StandardPointHead`; None to leave masks coarse.
            point_in_features: feature maps that the point head takes.
            init_resolution: side of the coarse mask.
            subdivision_steps: how often it is doubled.
            subdivision_num_points: how many points of a mask are predicted anew in each step.
        """
        super().__init__()
        self._feature_scales = dict(feature_scales)
        self.roi_pooler_in_features = list(in_features)
        self.roi_pooler_size = pooler_size
        self._set_region_head(coarse_head)
        self.mask_point_on = point_head is not None
        if point_head is not None:
            self.point_head = point_head
        self.mask_point_in_features = list(point_in_features)
        self.mask_point_subdivision_init_resolution = init_resolution
        self.mask_point_subdivision_steps = subdivision_steps
        self.mask_point_subdivision_num_points = subdivision_num_points
        self._skip_whole_steps()

    def _set_region_head(self, head: nn.Module) -> None:
        self.coarse_head: Layer = head

    def _skip_whole_steps(self) -> None:
        """Where a step would predict all points, start at its resolution instead."""
        if self.mask_point_subdivision_init_resolution <= 0:
            raise InputError("ROI_MASK_HEAD.OUTPUT_SIDE_RESOLUTION must be above 0")
        while 4 * self.mask_point_subdivision_init_resolution**2 <= self.mask_point_subdivision_num_points:
            self.mask_point_subdivision_init_resolution *= 2
            self.mask_point_subdivision_steps -= 1

    def forward(self, features: Features, instances: list[Instances]) -> list[Instances]:
        """The instances with the field pred_masks [R_i, 1, S, S], probabilities.

        Args:
            features: feature maps by name.
            instances: with pred_boxes and pred_classes.
        """
        check_inference(self)
        region = self._region_outputs(features, [image.pred_boxes for image in instances])
        if self.mask_point_on:
            return self._subdivision_inference(features, region, instances)
        mask_rcnn_inference(region, instances)
        return instances

    def _region_outputs(self, features: Features, boxes: list[Boxes]) -> Tensor:
        return self.coarse_head(self._roi_pooler(features, boxes))

    def _roi_pooler(self, features: Features, boxes: list[Boxes]) -> Tensor:
        """[R, C, pooler size, pooler size]: single bilinear samples on a grid over each box."""
        count, size = sum(len(image) for image in boxes), self.roi_pooler_size
        grid = generate_regular_grid_point_coords(count, size, boxes[0].device)
        sampled = self._sample(features, self.roi_pooler_in_features, boxes, grid)
        return sampled.view(count, sampled.shape[1], size, size)

    def _sample(self, features: Features, names: list[str], boxes: list[Boxes], points: Tensor) -> Tensor:
        sampled, _ = point_sample_fine_grained_features(
            [features[name] for name in names], [self._feature_scales[name] for name in names], boxes, points
        )
        return sampled

    def _get_point_logits(self, fine_features: Tensor, point_coords: Tensor, region: Tensor) -> Tensor:
        """Logits [R, K, P] of points, from their features and what was predicted for their region."""
        logits: Tensor = self.point_head(fine_features, point_sample(region, point_coords))
        return logits

    def _subdivision_inference(
        self, features: Features, region: Tensor, instances: list[Instances]
    ) -> list[Instances]:
        boxes = [image.pred_boxes for image in instances]
        classes = torch.cat([image.pred_classes for image in instances])
        side = self.mask_point_subdivision_init_resolution
        points = generate_regular_grid_point_coords(len(classes), side, classes.device)
        logits = torch.unflatten(self._point_logits(features, boxes, points, region), 2, (side, side))
        for _ in range(self.mask_point_subdivision_steps if len(classes) else 0):
            logits = F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
            indices, points = get_uncertain_point_coords_on_grid(
                mask_uncertainty(logits, classes), self.mask_point_subdivision_num_points
            )
            logits = _with_points(logits, indices, self._point_logits(features, boxes, points, region))
        mask_rcnn_inference(logits, instances)
        return instances

    def _point_logits(self, features: Features, boxes: list[Boxes], points: Tensor, region: Tensor) -> Tensor:
        fine = self._sample(features, self.mask_point_in_features, boxes, points)
        return self._get_point_logits(fine, points, region)


class ImplicitPointRendMaskHead(PointRendMaskHead):
    """PointRend without coarse masks: for each region the weights of its point head are predicted
    (2104.06404).
    """

    point_head: ImplicitPointHead

    def _set_region_head(self, head: nn.Module) -> None:
        self.parameter_head: Layer = head

    def _skip_whole_steps(self) -> None:
        """The first mask has as many points as each step predicts."""
        side = math.isqrt(self.mask_point_subdivision_num_points)
        if side**2 != self.mask_point_subdivision_num_points:
            raise InputError(
                "POINT_HEAD.SUBDIVISION_NUM_POINTS must be a square for ImplicitPointRendMaskHead"
            )
        self.mask_point_subdivision_init_resolution = side

    def _region_outputs(self, features: Features, boxes: list[Boxes]) -> Tensor:
        return self.parameter_head(self._roi_pooler(features, boxes))

    def _get_point_logits(self, fine_features: Tensor, point_coords: Tensor, region: Tensor) -> Tensor:
        return self.point_head(fine_features, point_coords, region)


class PointRendROIHeads(StandardROIHeads):
    """`StandardROIHeads` under the name that PointRend's first configs have."""


class PointRendSemSegHead(nn.Module):
    """A coarse segmentation, upsampled step by step; in each step its uncertain points are predicted anew."""

    def __init__(
        self,
        *,
        coarse_sem_seg_head: SemSegFPNHead,
        point_head: StandardPointHead,
        in_features: Sequence[str],
        subdivision_steps: int,
        subdivision_num_points: int,
    ) -> None:
        """
        Args:
            coarse_sem_seg_head: only its `layers` are used.
            point_head: predicts the points.
            in_features: feature maps that the point head takes.
            subdivision_steps: how often the coarse segmentation is doubled.
            subdivision_num_points: how many points of an image are predicted anew in each step.
        """
        super().__init__()
        self.ignore_value = coarse_sem_seg_head.ignore_value
        self.coarse_sem_seg_head = coarse_sem_seg_head
        self.point_head = point_head
        self.in_features = list(in_features)
        self.subdivision_steps = subdivision_steps
        self.subdivision_num_points = subdivision_num_points

    def forward(self, features: dict[str, Tensor], targets: None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits [N, K, H * 2**steps, W * 2**steps] of the coarse head's H and W; and no losses."""
        check_inference(self)
        coarse = logits = self.coarse_sem_seg_head.layers(features)
        for _ in range(self.subdivision_steps):
            logits = F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
            indices, points = get_uncertain_point_coords_on_grid(
                semantic_uncertainty(logits), self.subdivision_num_points
            )
            fine = torch.cat([point_sample(features[name], points) for name in self.in_features], dim=1)
            point_logits = self.point_head(fine, point_sample(coarse, points))
            logits = _with_points(logits, indices, point_logits)
        return logits, {}
