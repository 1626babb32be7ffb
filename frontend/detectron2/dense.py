"""One-stage detectors: RetinaNet (arXiv 1708.02002), and what it shares with FCOS."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from detc.ir.lazy import torchvision
from detc.ir.structures import Boxes, ImageList, Instances

from .anchors import DefaultAnchorGenerator
from .backbone import Backbone
from .box_regression import Box2BoxTransform, Box2BoxTransformLinear
from .layers import CycleBatchNormList, Norm, ShapeSpec, check_inference, common_channels, get_norm
from .meta_arch import BatchedInputs, MetaArch, output_size
from .postprocess import detector_postprocess


def permute_to_N_HWA_K(tensor: Tensor, K: int) -> Tensor:
    """[N, A * K, H, W] to [N, H * W * A, K], the order of anchors."""
    return torch.unflatten(tensor, 1, (-1, K)).permute(0, 3, 4, 1, 2).flatten(1, 3)


class DenseDetector(MetaArch):
    """Predicts at every cell of every level; subclasses turn the predictions into detections."""

    anchor_generator: DefaultAnchorGenerator
    box2box_transform: Box2BoxTransform | Box2BoxTransformLinear
    num_classes: int
    test_score_thresh: float
    test_topk_candidates: int
    test_nms_thresh: float
    max_detections_per_image: int

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        head_in_features: Sequence[str] | None = None,
        *,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        """
        Args:
            backbone: see `Backbone`.
            head: makes lists of predictions, one per level, from a list of feature maps.
            head_in_features: names of those feature maps; by default all, from fine to coarse.
            pixel_mean: see `MetaArch`.
            pixel_std: see `MetaArch`.
        """
        super().__init__(backbone=backbone, pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.head = head
        shapes = backbone.output_shape()
        by_stride = sorted(shapes, key=lambda name: shapes[name].stride or 0)
        self.head_in_features = list(head_in_features) if head_in_features is not None else by_stride

    def forward(self, batched_inputs: BatchedInputs) -> list[dict[str, Instances]]:
        """For each image {"instances": Instances} with pred_boxes, scores and pred_classes, at the output's
        size.
        """
        check_inference(self)
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        features = [features[name] for name in self.head_in_features]
        results = self.forward_inference(images, features, self.head(features))
        return [
            {"instances": detector_postprocess(result, *output_size(inputs, image_size))}
            for result, inputs, image_size in zip(results, batched_inputs, images.image_sizes, strict=True)
        ]

    def forward_inference(
        self, images: ImageList, features: list[Tensor], predictions: Sequence[list[Tensor]]
    ) -> list[Instances]:
        """The raw detections of each image.

        Args:
            images: only the true sizes are used.
            features: [N, C, H, W] for each level.
            predictions: what the head made of them.
        """
        scores, deltas = self._scores_and_deltas(predictions)
        anchors = self.anchor_generator(features)
        return [
            self.inference_single_image(
                anchors, [level[index] for level in scores], [level[index] for level in deltas], image_size
            )
            for index, image_size in enumerate(images.image_sizes)
        ]

    def _scores_and_deltas(self, predictions: Sequence[list[Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
        """For each level scores [N, A_l, classes] between 0 and 1, and deltas [N, A_l, 4]."""
        raise NotImplementedError

    def inference_single_image(
        self,
        anchors: Sequence[Boxes],
        box_cls: Sequence[Tensor],
        box_delta: Sequence[Tensor],
        image_size: tuple[int, int],
    ) -> Instances:
        """One image's detections: the best of each level, suppressed within each class over all levels.

        Args:
            anchors: for each level A_l boxes.
            box_cls: for each level scores [A_l, classes].
            box_delta: for each level deltas [A_l, 4].
            image_size: (height, width); boxes are not clipped to it.
        """
        candidates = Instances.cat(
            [
                self._decode_per_level_predictions(*level, image_size)
                for level in zip(anchors, box_cls, box_delta, strict=True)
            ]
        )
        keep = torchvision.ops.batched_nms(
            candidates.pred_boxes.tensor,
            candidates.scores.float(),
            candidates.pred_classes,
            self.test_nms_thresh,
        )
        return candidates[keep[: self.max_detections_per_image]]

    def _decode_per_level_predictions(
        self, anchors: Boxes, pred_scores: Tensor, pred_deltas: Tensor, image_size: tuple[int, int]
    ) -> Instances:
        """One level's best pairs of anchor and class, with scores above the threshold."""
        above = pred_scores > self.test_score_thresh
        scores, pairs = pred_scores[above], above.nonzero()
        scores, best = scores.topk(min(len(scores), self.test_topk_candidates))
        rows, classes = pairs[best].unbind(dim=1)
        boxes = self.box2box_transform.apply_deltas(pred_deltas[rows], anchors.tensor[rows])
        return Instances(image_size, pred_boxes=Boxes(boxes), scores=scores, pred_classes=classes)


class RetinaNet(DenseDetector):
    """Scores every class for every anchor."""

    def __init__(
        self,
        *,
        backbone: Backbone,
        head: nn.Module,
        head_in_features: Sequence[str],
        anchor_generator: DefaultAnchorGenerator,
        box2box_transform: Box2BoxTransform,
        num_classes: int,
        test_score_thresh: float = 0.05,
        test_topk_candidates: int = 1000,
        test_nms_thresh: float = 0.5,
        max_detections_per_image: int = 100,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str = "BGR",
    ) -> None:
        """
        Args:
            backbone: see `Backbone`.
            head: see `RetinaNetHead`.
            head_in_features: names of the feature maps that the head takes.
            anchor_generator: makes the anchors of those feature maps.
            box2box_transform: how deltas move anchors.
            num_classes: there is no background class.
            test_score_thresh: scores must be above this.
            test_topk_candidates: how many are kept per level before NMS.
            test_nms_thresh: IoU above which a lower scored box of the same class goes.
            max_detections_per_image: how many are kept after NMS.
            pixel_mean: see `MetaArch`.
            pixel_std: see `MetaArch`.
            input_format: the order of the channels; for callers, the model does not use it.
        """
        super().__init__(backbone, head, head_in_features, pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.num_classes = num_classes
        self.anchor_generator = anchor_generator
        self.box2box_transform = box2box_transform
        self.test_score_thresh = test_score_thresh
        self.test_topk_candidates = test_topk_candidates
        self.test_nms_thresh = test_nms_thresh
        self.max_detections_per_image = max_detections_per_image
        self.input_format = input_format

    def _scores_and_deltas(self, predictions: Sequence[list[Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = predictions
        return (
            [permute_to_N_HWA_K(level, self.num_classes).sigmoid() for level in logits],
            [permute_to_N_HWA_K(level, 4) for level in deltas],
        )


def _subnet(channels: int, conv_dims: Sequence[int], norm: Norm) -> nn.Sequential:
    layers: list[nn.Module] = []
    for out_channels in conv_dims:
        layers.append(nn.Conv2d(channels, out_channels, kernel_size=3, stride=1, padding=1))
        normalization = get_norm(norm, out_channels)
        if normalization is not None:
            layers.append(normalization)
        layers.append(nn.ReLU())
        channels = out_channels
    return nn.Sequential(*layers)


class RetinaNetHead(nn.Module):
    """Two subnets of 3x3 convolutions, for classes and for boxes; the same for all levels."""

    def __init__(
        self,
        *,
        input_shape: Sequence[ShapeSpec],
        num_classes: int,
        num_anchors: int,
        conv_dims: Sequence[int],
        norm: Norm = "",
    ) -> None:
        """
        Args:
            input_shape: of each level's feature map.
            num_classes: there is no background class.
            num_anchors: anchors per cell.
            conv_dims: output channels of each hidden convolution.
            norm: normalization of these; "BN" and "SyncBN" have statistics of their own for each level.
        """
        super().__init__()
        self._num_features = len(input_shape)
        channels = common_channels(input_shape, "the features of RETINANET.IN_FEATURES")
        level_norm: Callable[[int], nn.Module] | Norm = norm
        if norm in ("BN", "SyncBN"):
            bn_class = nn.BatchNorm2d if norm == "BN" else nn.SyncBatchNorm

            def level_norm(c: int) -> nn.Module:
                return CycleBatchNormList(len(input_shape), bn_class, num_features=c)

        self.cls_subnet = _subnet(channels, conv_dims, level_norm)
        self.bbox_subnet = _subnet(channels, conv_dims, level_norm)
        last = conv_dims[-1] if conv_dims else channels
        self.cls_score = nn.Conv2d(last, num_anchors * num_classes, kernel_size=3, stride=1, padding=1)
        self.bbox_pred = nn.Conv2d(last, num_anchors * 4, kernel_size=3, stride=1, padding=1)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], ...]:
        """
        Args:
            features: [N, C, H, W] for each level.

        Returns:
            For each level logits [N, anchors * classes, H, W] and deltas [N, anchors * 4, H, W].
        """
        self._rewind(features)
        logits = [self.cls_score(self.cls_subnet(feature)) for feature in features]
        deltas = [self.bbox_pred(self.bbox_subnet(feature)) for feature in features]
        return logits, deltas

    def _rewind(self, features: Sequence[Tensor]) -> None:
        """Check the number of levels, and start the per-level norms at the first one."""
        if len(features) != self._num_features:
            raise ValueError(f"the head is for {self._num_features} levels, but got {len(features)}")
        for module in self.modules():
            if isinstance(module, CycleBatchNormList):
                module.rewind()
