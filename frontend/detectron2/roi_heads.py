"""The second stage of R-CNN: from features and proposals to detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from detc.ir.structures import ImageList, Instances

from .box_head import FastRCNNOutputLayers
from .layers import Layer, check_inference
from .poolers import BoxLists, ROIPooler

Features = dict[str, Tensor]
RegionHead = Callable[[Tensor | Features, list[Instances]], list[Instances]]


class ROIHeads(nn.Module):
    """The interface of the second stage."""

    def __init__(self, *, num_classes: int) -> None:
        """`num_classes` is without the background."""
        super().__init__()
        self.num_classes = num_classes

    def forward(
        self, images: ImageList | None, features: Features, proposals: list[Instances], targets: None = None
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """
        Args:
            images: has no use here.
            features: feature maps by name.
            proposals: for each image `Instances` with proposal_boxes.
            targets: has no use at inference.

        Returns:
            For each image `Instances` with pred_boxes, scores, pred_classes and what further heads add; no
            losses.
        """
        check_inference(self)
        return self.forward_with_given_boxes(features, self._forward_box(features, proposals)), {}

    def forward_with_given_boxes(self, features: Features, instances: list[Instances]) -> list[Instances]:
        """Add to instances, which have pred_boxes and pred_classes, what the heads beside the box head
        predict.
        """
        raise NotImplementedError

    def _forward_box(self, features: Features, proposals: list[Instances]) -> list[Instances]:
        raise NotImplementedError


class StandardROIHeads(ROIHeads):
    """Heads for boxes and, where there are such, masks and keypoints, with a pooler each."""

    def __init__(
        self,
        *,
        num_classes: int,
        box_in_features: Sequence[str],
        box_pooler: ROIPooler,
        box_head: nn.Module,
        box_predictor: FastRCNNOutputLayers,
        mask_in_features: Sequence[str] | None = None,
        mask_pooler: ROIPooler | None = None,
        mask_head: nn.Module | None = None,
        keypoint_in_features: Sequence[str] | None = None,
        keypoint_pooler: ROIPooler | None = None,
        keypoint_head: nn.Module | None = None,
    ) -> None:
        """
        Args:
            num_classes: without the background.
            box_in_features: names of the feature maps that boxes are pooled from.
            box_pooler: for the box head.
            box_head: see `FastRCNNConvFCHead`.
            box_predictor: see `FastRCNNOutputLayers`.
            mask_in_features: as for boxes; None for no masks.
            mask_pooler: for the mask head; None if the head samples the feature maps itself, as PointRend's
                does.
            mask_head: see `BaseMaskRCNNHead`.
            keypoint_in_features: as for boxes; None for no keypoints.
            keypoint_pooler: for the keypoint head.
            keypoint_head: see `BaseKeypointRCNNHead`.
        """
        super().__init__(num_classes=num_classes)
        self.in_features = self.box_in_features = list(box_in_features)
        self.box_pooler = box_pooler
        self.box_head = box_head
        self.box_predictor = box_predictor
        self.mask_on = mask_in_features is not None
        if mask_in_features is not None:
            self.mask_in_features = list(mask_in_features)
            self.mask_pooler = mask_pooler
            self.mask_head: RegionHead | None = mask_head
        self.keypoint_on = keypoint_in_features is not None
        if keypoint_in_features is not None:
            self.keypoint_in_features = list(keypoint_in_features)
            self.keypoint_pooler = keypoint_pooler
            self.keypoint_head: RegionHead | None = keypoint_head

    def forward_with_given_boxes(self, features: Features, instances: list[Instances]) -> list[Instances]:
        check_inference(self)
        return self._forward_keypoint(features, self._forward_mask(features, instances))

    def _forward_box(self, features: Features, proposals: list[Instances]) -> list[Instances]:
        pooled = self.box_pooler(
            [features[name] for name in self.box_in_features],
            [instances.proposal_boxes for instances in proposals],
        )
        predictions = self.box_predictor(self.box_head(pooled))
        detections, _ = self.box_predictor.inference(predictions, proposals)
        return detections

    def _forward_mask(self, features: Features, instances: list[Instances]) -> list[Instances]:
        if not self.mask_on:
            return instances
        assert self.mask_head is not None
        return self.mask_head(_pool(self.mask_pooler, features, self.mask_in_features, instances), instances)

    def _forward_keypoint(self, features: Features, instances: list[Instances]) -> list[Instances]:
        if not self.keypoint_on:
            return instances
        assert self.keypoint_head is not None
        pooled = _pool(self.keypoint_pooler, features, self.keypoint_in_features, instances)
        return self.keypoint_head(pooled, instances)


def _pool(
    pooler: ROIPooler | None, features: Features, names: list[str], instances: list[Instances]
) -> Tensor | Features:
    """The features of predicted boxes; without a pooler the named feature maps."""
    if pooler is None:
        return {name: features[name] for name in names}
    return pooler([features[name] for name in names], [image.pred_boxes for image in instances])


class Res5ROIHeads(ROIHeads):
    """The "C4" heads: ResNet's last stage runs on pooled res4 features, for boxes and for masks alike."""

    def __init__(
        self,
        *,
        num_classes: int,
        in_features: Sequence[str],
        pooler: ROIPooler,
        res5: nn.Module,
        box_predictor: FastRCNNOutputLayers,
        mask_head: nn.Module | None = None,
    ) -> None:
        """
        Args:
            num_classes: without the background.
            in_features: the one feature map to pool from.
            pooler: pools it.
            res5: the stage that runs on each region.
            box_predictor: see `FastRCNNOutputLayers`; takes the mean over a region.
            mask_head: see `BaseMaskRCNNHead`; None for no masks.
        """
        super().__init__(num_classes=num_classes)
        self.in_features = list(in_features)
        self.pooler = pooler
        self.res5: Layer = res5
        self.box_predictor = box_predictor
        self.mask_on = mask_head is not None
        if mask_head is not None:
            self.mask_head: RegionHead = mask_head

    def _shared_roi_transform(self, features: Features, boxes: BoxLists) -> Tensor:
        return self.res5(self.pooler([features[name] for name in self.in_features], boxes))

    def _forward_box(self, features: Features, proposals: list[Instances]) -> list[Instances]:
        pooled = self._shared_roi_transform(features, [instances.proposal_boxes for instances in proposals])
        predictions = self.box_predictor(pooled.mean(dim=[2, 3]))
        detections, _ = self.box_predictor.inference(predictions, proposals)
        return detections

    def forward_with_given_boxes(self, features: Features, instances: list[Instances]) -> list[Instances]:
        check_inference(self)
        if not self.mask_on:
            return instances
        pooled = self._shared_roi_transform(features, [image.pred_boxes for image in instances])
        return self.mask_head(pooled, instances)
