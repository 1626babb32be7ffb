"""Cascade R-CNN (arXiv 1712.00726): box heads in a row, each refining the boxes of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from detc.ir.structures import Boxes, Instances

from .box_head import FastRCNNOutputLayers, Predictions, fast_rcnn_inference
from .poolers import ROIPooler
from .roi_heads import Features, StandardROIHeads


class CascadeROIHeads(StandardROIHeads):
    """Several stages of box head and box predictor; scores are the stages' mean, boxes the last stage's.

    `box_head` and `box_predictor` are lists with an entry for each stage.
    """

    box_head: nn.ModuleList
    box_predictor: nn.ModuleList  # type: ignore[assignment]  # a list in the place of one, as in detectron2

    def __init__(
        self,
        *,
        num_classes: int,
        box_in_features: Sequence[str],
        box_pooler: ROIPooler,
        box_heads: Sequence[nn.Module],
        box_predictors: Sequence[FastRCNNOutputLayers],
        **kwargs: Any,
    ) -> None:
        """
        Args:
            num_classes: without the background.
            box_in_features: see `StandardROIHeads`.
            box_pooler: pools the boxes of every stage.
            box_heads: one for each stage.
            box_predictors: one for each stage, with boxes that serve all classes.
            kwargs: the mask and keypoint heads, see `StandardROIHeads`.
        """
        super().__init__(
            num_classes=num_classes,
            box_in_features=box_in_features,
            box_pooler=box_pooler,
            box_head=nn.ModuleList(box_heads),
            box_predictor=nn.ModuleList(box_predictors),  # type: ignore[arg-type]  # as above
            **kwargs,
        )
        self.num_cascade_stages = len(box_heads)

    def _forward_box(self, features: Features, proposals: list[Instances]) -> list[Instances]:
        inputs = [features[name] for name in self.box_in_features]
        image_sizes = [instances.image_size for instances in proposals]
        predictors = cast(Sequence[FastRCNNOutputLayers], self.box_predictor)
        stage_scores: list[tuple[Tensor, ...]] = []
        boxes: tuple[Tensor, ...] = ()
        for stage, predictor in enumerate(predictors):
            if stage > 0:
                proposals = self._create_proposals_from_boxes(boxes, image_sizes)
            predictions = self._run_stage(inputs, proposals, stage)
            boxes = predictor.predict_boxes(predictions, proposals)
            stage_scores.append(predictor.predict_probs(predictions, proposals))
        scores = [sum(image) * (1.0 / self.num_cascade_stages) for image in zip(*stage_scores, strict=True)]
        detections, _ = fast_rcnn_inference(
            boxes,
            scores,
            image_sizes,
            predictors[-1].test_score_thresh,
            predictors[-1].test_nms_thresh,
            predictors[-1].test_topk_per_image,
        )
        return detections

    def _run_stage(self, features: list[Tensor], proposals: list[Instances], stage: int) -> Predictions:
        pooled = self.box_pooler(features, [instances.proposal_boxes for instances in proposals])
        predictions: Predictions = self.box_predictor[stage](self.box_head[stage](pooled))
        return predictions

    @staticmethod
    def _create_proposals_from_boxes(
        boxes: Sequence[Tensor], image_sizes: Sequence[tuple[int, int]]
    ) -> list[Instances]:
        """Boxes of a stage as the next one's proposals: clipped, the empty ones kept so that scores stay
        aligned.
        """
        proposals = []
        for image_boxes, image_size in zip(boxes, image_sizes, strict=True):
            clipped = Boxes(image_boxes)
            clipped.clip(image_size)
            proposals.append(Instances(image_size, proposal_boxes=clipped))
        return proposals
