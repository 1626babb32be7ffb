"""FCOS (arXiv 1904.01355). detectron2 has no YAML config for it: it is built in Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .anchors import DefaultAnchorGenerator
from .backbone import Backbone
from .box_regression import Box2BoxTransform, Box2BoxTransformLinear
from .dense import DenseDetector, RetinaNetHead, permute_to_N_HWA_K


class FCOS(DenseDetector):
    """Scores every class at every cell, and how central the cell is in its object."""

    def __init__(
        self,
        *,
        backbone: Backbone,
        head: nn.Module,
        head_in_features: Sequence[str] | None = None,
        box2box_transform: Box2BoxTransform | Box2BoxTransformLinear | None = None,
        num_classes: int,
        test_score_thresh: float = 0.2,
        test_topk_candidates: int = 1000,
        test_nms_thresh: float = 0.6,
        max_detections_per_image: int = 100,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        """As `RetinaNet`; anchors are the cells themselves, and deltas by default distances to the sides."""
        super().__init__(backbone, head, head_in_features, pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.num_classes = num_classes
        shapes = backbone.output_shape()
        strides = [shapes[name].stride or 0 for name in self.head_in_features]
        # A cell's anchor is a square as long as the stride, about the cell's centre.
        self.anchor_generator = DefaultAnchorGenerator(
            sizes=[[stride] for stride in strides], aspect_ratios=[1.0], strides=strides
        )
        self.box2box_transform = box2box_transform or Box2BoxTransformLinear(normalize_by_size=True)
        self.test_score_thresh = test_score_thresh
        self.test_topk_candidates = test_topk_candidates
        self.test_nms_thresh = test_nms_thresh
        self.max_detections_per_image = max_detections_per_image

    def _scores_and_deltas(self, predictions: Sequence[list[Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas, centerness = predictions
        scores = []
        for level_logits, level_centerness in zip(logits, centerness, strict=True):
            classes = permute_to_N_HWA_K(level_logits, self.num_classes).sigmoid()
            central = permute_to_N_HWA_K(level_centerness, 1).sigmoid()
            scores.append(torch.sqrt(classes * central))
        return scores, [permute_to_N_HWA_K(level, 4) for level in deltas]


class FCOSHead(RetinaNetHead):
    """RetinaNet's head with one anchor per cell, and centerness beside the boxes."""

    def __init__(self, *, conv_dims: Sequence[int], **kwargs: Any) -> None:
        """As `RetinaNetHead`, without num_anchors."""
        super().__init__(conv_dims=conv_dims, num_anchors=1, **kwargs)
        self.ctrness = nn.Conv2d(conv_dims[-1], 1, kernel_size=3, stride=1, padding=1)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], ...]:
        """As `RetinaNetHead`, with logits of centerness [N, 1, H, W] for each level as the third."""
        self._rewind(features)
        hidden = [self.bbox_subnet(feature) for feature in features]
        logits = [self.cls_score(self.cls_subnet(feature)) for feature in features]
        return logits, [self.bbox_pred(x) for x in hidden], [self.ctrness(x) for x in hidden]
