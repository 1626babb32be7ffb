"""The box head of R-CNN: features of regions to classes and boxes (arXiv 1506.01497)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detc.ir.structures import Instances

from ..errors import InputError
from .box_regression import Box2BoxTransform, Box2BoxTransformRotated
from .layers import Norm, ShapeSpec, add_convs
from .rotated_ops import boxes_of, suppress

Predictions = tuple[Tensor, Tensor]


class FastRCNNConvFCHead(nn.Sequential):
    """3x3 convolutions, then linear layers, each with ReLU."""

    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        conv_dims: Sequence[int],
        fc_dims: Sequence[int],
        conv_norm: Norm = "",
    ) -> None:
        """
        Args:
            input_shape: channels, height and width of the pooled features.
            conv_dims: output channels of each convolution.
            fc_dims: outputs of each linear layer.
            conv_norm: normalization of the convolutions, which then have no bias.
        """
        super().__init__()
        if not conv_dims and not fc_dims:
            raise InputError("ROI_BOX_HEAD needs a layer: set NUM_CONV or NUM_FC above 0")
        channels, height, width = input_shape.channels, input_shape.height, input_shape.width
        if channels is None or height is None or width is None:
            raise InputError("FastRCNNConvFCHead must know its input's channels, height and width")
        channels = add_convs(self, "conv", channels, conv_dims, conv_norm)
        self._output_shape = ShapeSpec(channels=channels, height=height, width=width)
        self.fcs: list[nn.Linear] = []
        size = channels * height * width
        for index, fc_dim in enumerate(fc_dims, start=1):
            if index == 1:
                self.add_module("flatten", nn.Flatten())
            fc = nn.Linear(size, fc_dim)
            self.add_module(f"fc{index}", fc)
            self.add_module(f"fc_relu{index}", nn.ReLU())
            self.fcs.append(fc)
            size = fc_dim
            self._output_shape = ShapeSpec(channels=fc_dim)

    @property
    def output_shape(self) -> ShapeSpec:
        """Channels, and height and width if no linear layer takes them away."""
        return self._output_shape


def fast_rcnn_inference(
    boxes: Sequence[Tensor],
    scores: Sequence[Tensor],
    image_shapes: Sequence[tuple[int, int]],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
    box_dim: int = 4,
) -> tuple[list[Instances], list[Tensor]]:
    """`fast_rcnn_inference_single_image` for each image; the two results in a list each."""
    results = [
        fast_rcnn_inference_single_image(*image, score_thresh, nms_thresh, topk_per_image, box_dim)
        for image in zip(boxes, scores, image_shapes, strict=True)
    ]
    return [instances for instances, _ in results], [index for _, index in results]


def fast_rcnn_inference_single_image(
    boxes: Tensor,
    scores: Tensor,
    image_shape: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
    box_dim: int = 4,
) -> tuple[Instances, Tensor]:
    """Detections from boxes and scores: threshold, suppress within each class, keep the best.

    Args:
        boxes: [R, box_dim * K], or [R, box_dim] if one box serves all classes.
        scores: [R, K + 1], the last for the background.
        image_shape: (height, width) that boxes are clipped to.
        score_thresh: scores must be above this.
        nms_thresh: IoU above which a lower scored box of the same class goes.
        topk_per_image: how many are kept at most; below 0 for all.
        box_dim: 4, or 5 for rotated boxes.

    Returns:
        `Instances` with pred_boxes, scores and pred_classes, best first; and for each the row it came from.
    """
    boxes, scores, rows = _finite_rows(boxes, scores)
    scores = scores[:, :-1]
    clipped = boxes_of(boxes.reshape(-1, box_dim))
    clipped.clip(image_shape)
    per_class = clipped.tensor.view(len(scores), boxes.shape[1] // box_dim, box_dim)
    candidate_boxes, candidate_scores, index = _above_threshold(per_class, scores, score_thresh)
    keep = suppress(candidate_boxes, candidate_scores, index[:, 1], nms_thresh)
    if topk_per_image >= 0:
        keep = keep[:topk_per_image]
    result = Instances(
        image_shape,
        pred_boxes=boxes_of(candidate_boxes[keep]),
        scores=candidate_scores[keep],
        pred_classes=index[keep, 1],
    )
    return result, rows[index[keep, 0]]


def _finite_rows(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The rows whose numbers are all finite, and which they are."""
    finite = torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores).all(dim=1)
    (rows,) = torch.where(finite)
    return boxes[finite], scores[finite], rows


def _above_threshold(boxes: Tensor, scores: Tensor, score_thresh: float) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes and scores above the threshold with their (row, class), from [R, K or 1, box_dim] and [R, K]."""
    chosen = scores > score_thresh
    index = chosen.nonzero()
    candidates = boxes[index[:, 0], 0] if boxes.shape[1] == 1 else boxes[chosen]
    return candidates, scores[chosen], index


class FastRCNNOutputLayers(nn.Module):
    """Two linear layers for the scores and the deltas of regions, and how detections follow from them."""

    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        box2box_transform: Box2BoxTransform | Box2BoxTransformRotated,
        num_classes: int,
        test_score_thresh: float = 0.0,
        test_nms_thresh: float = 0.5,
        test_topk_per_image: int = 100,
        cls_agnostic_bbox_reg: bool = False,
        use_sigmoid_ce: bool = False,
    ) -> None:
        """
        Args:
            input_shape: of the box head's output.
            box2box_transform: how deltas move proposals.
            num_classes: without the background.
            test_score_thresh: see `fast_rcnn_inference_single_image`, as for the next two.
            test_nms_thresh: see there.
            test_topk_per_image: see there.
            cls_agnostic_bbox_reg: whether one box serves all classes.
            use_sigmoid_ce: whether scores are sigmoids instead of a softmax.
        """
        super().__init__()
        input_size = (input_shape.channels or 0) * (input_shape.width or 1) * (input_shape.height or 1)
        self.box_dim = box_dim = len(box2box_transform.weights)
        self.num_classes = num_classes
        self.cls_score = nn.Linear(input_size, num_classes + 1)
        self.bbox_pred = nn.Linear(input_size, (1 if cls_agnostic_bbox_reg else num_classes) * box_dim)
        self.box2box_transform = box2box_transform
        self.test_score_thresh = test_score_thresh
        self.test_nms_thresh = test_nms_thresh
        self.test_topk_per_image = test_topk_per_image
        self.use_sigmoid_ce = use_sigmoid_ce

    def forward(self, x: Tensor) -> Predictions:
        """Scores (logits) [R, K + 1] and deltas [R, box_dim * K or box_dim] of features [R, ...]."""
        if x.dim() > 2:
            x = torch.flatten(x, start_dim=1)
        return self.cls_score(x), self.bbox_pred(x)

    if TYPE_CHECKING:
        __call__ = forward

    def inference(
        self, predictions: Predictions, proposals: list[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        """The detections of each image, and which of its proposals each came from."""
        return fast_rcnn_inference(
            self.predict_boxes(predictions, proposals),
            self.predict_probs(predictions, proposals),
            [instances.image_size for instances in proposals],
            self.test_score_thresh,
            self.test_nms_thresh,
            self.test_topk_per_image,
            self.box_dim,
        )

    def predict_boxes(self, predictions: Predictions, proposals: list[Instances]) -> tuple[Tensor, ...]:
        """For each image the moved proposals, [R_i, box_dim * K or box_dim]."""
        if not proposals:
            return ()
        boxes = torch.cat([instances.proposal_boxes.tensor for instances in proposals])
        moved = self.box2box_transform.apply_deltas(predictions[1], boxes)
        return torch.split(moved, [len(instances) for instances in proposals])

    def predict_probs(self, predictions: Predictions, proposals: list[Instances]) -> tuple[Tensor, ...]:
        """For each image the probabilities [R_i, K + 1]."""
        logits = predictions[0]
        scores = logits.sigmoid() if self.use_sigmoid_ce else F.softmax(logits, dim=-1)
        return torch.split(scores, [len(instances) for instances in proposals])
