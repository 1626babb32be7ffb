"""Region proposal network (arXiv 1506.01497)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detc.ir.structures import Boxes, ImageList, Instances, RotatedBoxes

from ..errors import InputError
from .anchors import DefaultAnchorGenerator, RotatedAnchorGenerator
from .box_regression import Box2BoxTransform, Box2BoxTransformRotated
from .layers import Conv2d, check_inference
from .rotated_ops import boxes_of, suppress


class StandardRPNHead(nn.Module):
    """3x3 convolutions with ReLU, then 1x1 ones for objectness and deltas; the same for all levels."""

    conv: nn.Module

    def __init__(
        self, *, in_channels: int, num_anchors: int, box_dim: int = 4, conv_dims: Sequence[int] = (-1,)
    ) -> None:
        """
        Args:
            in_channels: channels of every feature map.
            num_anchors: anchors per cell.
            box_dim: deltas per anchor: 4, or 5 for rotated boxes.
            conv_dims: channels of the hidden convolutions; -1 for as many as go in.
        """
        super().__init__()
        convs, channels = [], in_channels
        for conv_dim in conv_dims:
            out_channels = channels if conv_dim == -1 else conv_dim
            if out_channels <= 0:
                raise InputError(f"RPN.CONV_DIMS must be -1 or above 0, not {list(conv_dims)}")
            convs.append(Conv2d(channels, out_channels, kernel_size=3, padding=1, activation=nn.ReLU()))
            channels = out_channels
        if len(convs) == 1:
            self.conv = convs[0]
        else:
            self.conv = nn.Sequential()
            for index, conv in enumerate(convs):
                self.conv.add_module(f"conv{index}", conv)
        self.objectness_logits = nn.Conv2d(channels, num_anchors, kernel_size=1)
        self.anchor_deltas = nn.Conv2d(channels, num_anchors * box_dim, kernel_size=1)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """
        Args:
            features: [N, C, H, W] for each level.

        Returns:
            For each level logits [N, anchors, H, W] and deltas [N, anchors * box_dim, H, W].
        """
        hidden = [self.conv(feature) for feature in features]
        return [self.objectness_logits(x) for x in hidden], [self.anchor_deltas(x) for x in hidden]


class RPN(nn.Module):
    """Makes proposals from features: the best scored boxes of each image after non-maximum suppression."""

    box2box_transform: Box2BoxTransform | Box2BoxTransformRotated

    def __init__(
        self,
        *,
        in_features: Sequence[str],
        head: nn.Module,
        anchor_generator: DefaultAnchorGenerator | RotatedAnchorGenerator,
        box2box_transform: Box2BoxTransform | Box2BoxTransformRotated,
        pre_nms_topk: tuple[int, int],
        post_nms_topk: tuple[int, int],
        nms_thresh: float = 0.7,
        min_box_size: float = 0.0,
    ) -> None:
        """
        Args:
            in_features: names of the feature maps to use.
            head: see `StandardRPNHead`.
            anchor_generator: makes the anchors of those feature maps.
            box2box_transform: how the head's deltas move the anchors.
            pre_nms_topk: proposals kept per level and image before NMS, in (training, inference).
            post_nms_topk: proposals kept per image after NMS, in (training, inference).
            nms_thresh: IoU above which, within a level, the lower scored proposal goes.
            min_box_size: proposals with a side of at most so many pixels of the input go.
        """
        super().__init__()
        self.in_features = list(in_features)
        self.rpn_head = head
        self.anchor_generator = anchor_generator
        self.box2box_transform = box2box_transform
        # Keyed by `training`, as in detectron2.
        self.pre_nms_topk = {True: pre_nms_topk[0], False: pre_nms_topk[1]}
        self.post_nms_topk = {True: post_nms_topk[0], False: post_nms_topk[1]}
        self.nms_thresh = nms_thresh
        self.min_box_size = float(min_box_size)

    def forward(
        self, images: ImageList, features: dict[str, Tensor], gt_instances: None = None
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """
        Args:
            images: only the true sizes are used.
            features: feature maps by name.
            gt_instances: has no use at inference.

        Returns:
            For each image `Instances` with proposal_boxes and objectness_logits, best first; and no losses.
        """
        check_inference(self)
        inputs = [features[name] for name in self.in_features]
        anchors = self.anchor_generator(inputs)
        logits, deltas = self.rpn_head(inputs)
        box_dim = self.anchor_generator.box_dim
        # Both in the order of the anchors: [N, H * W * anchors] and [N, H * W * anchors, box_dim].
        logits = [x.permute(0, 2, 3, 1).flatten(1) for x in logits]
        deltas = [x.unflatten(1, (-1, box_dim)).permute(0, 3, 4, 1, 2).flatten(1, 3) for x in deltas]
        return self.predict_proposals(anchors, logits, deltas, images.image_sizes), {}

    def predict_proposals(
        self,
        anchors: Sequence[Boxes] | Sequence[RotatedBoxes],
        pred_objectness_logits: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Decode all deltas and keep each image's best proposals.

        Args:
            anchors: for each level A_l boxes.
            pred_objectness_logits: for each level [N, A_l].
            pred_anchor_deltas: for each level [N, A_l, box_dim].
            image_sizes: (height, width) of each image.
        """
        return find_top_rpn_proposals(
            self._decode_proposals(anchors, pred_anchor_deltas),
            pred_objectness_logits,
            image_sizes,
            self.nms_thresh,
            self.pre_nms_topk[False],
            self.post_nms_topk[False],
            self.min_box_size,
        )

    def _decode_proposals(
        self, anchors: Sequence[Boxes] | Sequence[RotatedBoxes], pred_anchor_deltas: list[Tensor]
    ) -> list[Tensor]:
        """For each level the boxes [N, A_l, box_dim] that the deltas make of the anchors."""
        proposals = []
        for level_anchors, deltas in zip(anchors, pred_anchor_deltas, strict=True):
            count, _, box_dim = deltas.shape
            boxes = level_anchors.tensor.expand(count, -1, -1).reshape(-1, box_dim)
            moved = self.box2box_transform.apply_deltas(deltas.reshape(-1, box_dim), boxes)
            proposals.append(moved.view(count, -1, box_dim))
        return proposals


def top_proposals_per_level(
    proposals: Sequence[Tensor], logits: Sequence[Tensor], pre_nms_topk: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The best `pre_nms_topk` proposals of each level.

    Args:
        proposals: for each level [N, A_l, box_dim].
        logits: for each level [N, A_l].

    Returns:
        Boxes [N, K, box_dim], logits [N, K], and the level [K] of each: level by level, in each the best
        first.
    """
    boxes, scores, levels = [], [], []
    for level, (level_boxes, level_logits) in enumerate(zip(proposals, logits, strict=True)):
        count = min(level_logits.shape[1], pre_nms_topk)
        top, index = level_logits.topk(count, dim=1)
        batch = torch.arange(level_logits.shape[0], device=index.device)[:, None]
        boxes.append(level_boxes[batch, index])
        scores.append(top)
        levels.append(torch.full((count,), level, dtype=torch.int64, device=index.device))
    return torch.cat(boxes, dim=1), torch.cat(scores, dim=1), torch.cat(levels)


def find_top_rpn_proposals(
    proposals: Sequence[Tensor],
    pred_objectness_logits: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
) -> list[Instances]:
    """Per level the best proposals; then, over all levels, clip, drop small ones, suppress within levels,
    keep the best.

    Args:
        proposals: for each level [N, A_l, 4] or, rotated, [N, A_l, 5].
        pred_objectness_logits: for each level [N, A_l].
        image_sizes: (height, width) of each image, which boxes are clipped to.
        nms_thresh: IoU above which a lower scored proposal of the same level goes.
        pre_nms_topk: proposals kept per level before all this.
        post_nms_topk: proposals kept per image after it.
        min_box_size: both sides must be longer than this, in pixels.

    Returns:
        For each image `Instances` with proposal_boxes and objectness_logits, best first.
    """
    all_boxes, all_scores, levels = top_proposals_per_level(proposals, pred_objectness_logits, pre_nms_topk)
    results = []
    for image_boxes, image_scores, image_size in zip(all_boxes, all_scores, image_sizes, strict=True):
        finite = torch.isfinite(image_boxes).all(dim=1) & torch.isfinite(image_scores)
        boxes = boxes_of(image_boxes[finite])
        boxes.clip(image_size)
        large = boxes.nonempty(threshold=min_box_size)
        boxes, scores, image_levels = boxes[large], image_scores[finite][large], levels[finite][large]
        keep = suppress(boxes.tensor, scores, image_levels, nms_thresh)[:post_nms_topk]
        results.append(Instances(image_size, proposal_boxes=boxes[keep], objectness_logits=scores[keep]))
    return results
