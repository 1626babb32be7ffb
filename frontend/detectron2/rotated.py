"""R-CNN with rotated boxes (arXiv 1703.01086)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from detc.ir.structures import Boxes, Instances, RotatedBoxes

from .box_head import FastRCNNOutputLayers, Predictions, above_threshold, finite_rows
from .roi_heads import StandardROIHeads
from .rotated_ops import batched_nms_rotated
from .rpn import RPN, top_proposals_per_level


def find_top_rrpn_proposals(
    proposals: Sequence[Tensor],
    pred_objectness_logits: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
) -> list[Instances]:
    """As `find_top_rpn_proposals`, with rotated boxes [N, A_l, 5] for each level."""
    all_boxes, all_scores, levels = top_proposals_per_level(proposals, pred_objectness_logits, pre_nms_topk)
    results = []
    for image_boxes, image_scores, image_size in zip(all_boxes, all_scores, image_sizes, strict=True):
        finite = torch.isfinite(image_boxes).all(dim=1) & torch.isfinite(image_scores)
        boxes = RotatedBoxes(image_boxes[finite])
        boxes.clip(image_size)
        large = boxes.nonempty(threshold=min_box_size)
        boxes, scores, image_levels = boxes[large], image_scores[finite][large], levels[finite][large]
        keep = batched_nms_rotated(boxes.tensor, scores, image_levels, nms_thresh)[:post_nms_topk]
        results.append(Instances(image_size, proposal_boxes=boxes[keep], objectness_logits=scores[keep]))
    return results


class RRPN(RPN):
    """A region proposal network whose anchors and proposals are rotated boxes."""

    def predict_proposals(
        self,
        anchors: Sequence[Boxes] | Sequence[RotatedBoxes],
        pred_objectness_logits: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        return find_top_rrpn_proposals(
            self._decode_proposals(anchors, pred_anchor_deltas),
            pred_objectness_logits,
            image_sizes,
            self.nms_thresh,
            self.pre_nms_topk[False],
            self.post_nms_topk[False],
            self.min_box_size,
        )


def fast_rcnn_inference_rotated(
    boxes: Sequence[Tensor],
    scores: Sequence[Tensor],
    image_shapes: Sequence[tuple[int, int]],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[list[Instances], list[Tensor]]:
    """`fast_rcnn_inference_single_image_rotated` for each image; the two results in a list each."""
    results = [
        fast_rcnn_inference_single_image_rotated(*image, score_thresh, nms_thresh, topk_per_image)
        for image in zip(boxes, scores, image_shapes, strict=True)
    ]
    return [instances for instances, _ in results], [index for _, index in results]


def fast_rcnn_inference_single_image_rotated(
    boxes: Tensor,
    scores: Tensor,
    image_shape: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[Instances, Tensor]:
    """As `fast_rcnn_inference_single_image`, with rotated boxes [R, 5 * K] or [R, 5]."""
    boxes, scores, rows = finite_rows(boxes, scores)
    scores = scores[:, :-1]
    clipped = RotatedBoxes(boxes.reshape(-1, 5))
    clipped.clip(image_shape)
    per_class = clipped.tensor.view(len(scores), boxes.shape[1] // 5, 5)
    candidate_boxes, candidate_scores, index = above_threshold(per_class, scores, score_thresh)
    keep = batched_nms_rotated(candidate_boxes, candidate_scores, index[:, 1], nms_thresh)
    if topk_per_image >= 0:
        keep = keep[:topk_per_image]
    result = Instances(
        image_shape,
        pred_boxes=RotatedBoxes(candidate_boxes[keep]),
        scores=candidate_scores[keep],
        pred_classes=index[keep, 1],
    )
    return result, rows[index[keep, 0]]


class RotatedFastRCNNOutputLayers(FastRCNNOutputLayers):
    """Scores and five deltas for each region."""

    def inference(
        self, predictions: Predictions, proposals: list[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        return fast_rcnn_inference_rotated(
            self.predict_boxes(predictions, proposals),
            self.predict_probs(predictions, proposals),
            [instances.image_size for instances in proposals],
            self.test_score_thresh,
            self.test_nms_thresh,
            self.test_topk_per_image,
        )


class RROIHeads(StandardROIHeads):
    """A box head on regions that are pooled along their own axes; there are no masks or keypoints."""

    def __init__(self, **kwargs: Any) -> None:
        """As `StandardROIHeads`."""
        super().__init__(**kwargs)
        if self.mask_on or self.keypoint_on:
            raise ValueError("RROIHeads has no masks or keypoints")
