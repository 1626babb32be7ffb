"""Panoptic FPN (arXiv 1901.02446): instances and semantic segmentation in one model, and combined."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from detc.ir.structures import Instances

from .layers import check_inference
from .meta_arch import BatchedInputs, GeneralizedRCNN, output_size
from .postprocess import detector_postprocess, sem_seg_postprocess


class PanopticFPN(GeneralizedRCNN):
    """Mask R-CNN with a segmentation head on the same features."""

    def __init__(
        self,
        *,
        sem_seg_head: nn.Module,
        combine_overlap_thresh: float = 0.5,
        combine_stuff_area_thresh: float = 4096,
        combine_instances_score_thresh: float = 0.5,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            sem_seg_head: see `SemSegFPNHead`.
            combine_overlap_thresh: see `combine_semantic_and_instance_outputs`, as for the next two.
            combine_stuff_area_thresh: see there.
            combine_instances_score_thresh: see there.
            kwargs: see `GeneralizedRCNN`.
        """
        super().__init__(**kwargs)
        self.sem_seg_head = sem_seg_head
        self.combine_overlap_thresh = combine_overlap_thresh
        self.combine_stuff_area_thresh = combine_stuff_area_thresh
        self.combine_instances_score_thresh = combine_instances_score_thresh

    def inference(self, batched_inputs: BatchedInputs, do_postprocess: bool = True) -> Any:  # type: ignore[override]  # as in detectron2
        """Detect and segment.

        Args:
            batched_inputs: see `BatchedInputs`.
            do_postprocess: whether to scale the results to the size asked for, and combine them.

        Returns:
            For each image {"sem_seg": logits [K, height, width], "instances": Instances, "panoptic_seg":
            (int32 map [height, width] of segment ids, segments)}; without postprocessing the raw `Instances`
            of each image, and the logits [N, K, H, W] of the padded batch.
        """
        check_inference(self)
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        sem_seg_results, _ = self.sem_seg_head(features, None)
        proposals = self._proposals(batched_inputs, images, features)
        detector_results, _ = self.roi_heads(images, features, proposals, None)
        if not do_postprocess:
            return detector_results, sem_seg_results
        outputs = []
        for logits, detected, inputs, image_size in zip(
            sem_seg_results, detector_results, batched_inputs, images.image_sizes, strict=True
        ):
            size = output_size(inputs, image_size)
            sem_seg = sem_seg_postprocess(logits, image_size, *size)
            instances = detector_postprocess(detected, *size)
            panoptic = combine_semantic_and_instance_outputs(
                instances,
                sem_seg.argmax(dim=0),
                self.combine_overlap_thresh,
                self.combine_stuff_area_thresh,
                self.combine_instances_score_thresh,
            )
            outputs.append({"sem_seg": sem_seg, "instances": instances, "panoptic_seg": panoptic})
        return outputs


def combine_semantic_and_instance_outputs(
    instance_results: Instances,
    semantic_results: Tensor,
    overlap_threshold: float,
    stuff_area_thresh: float,
    instances_score_thresh: float,
) -> tuple[Tensor, list[dict[str, Any]]]:
    """One label per pixel: instances by falling score, then the classes of stuff where nothing is yet.

    Args:
        instance_results: with scores, pred_classes and pred_masks [N, H, W].
        semantic_results: int64[H, W], classes; 0 stands for all things and makes no segment.
        overlap_threshold: an instance with more than this share of it already covered is left out.
        stuff_area_thresh: stuff on fewer pixels is left out.
        instances_score_thresh: instances below this score are left out.

    Returns:
        int32[H, W] with the id of each pixel's segment, 0 for none; and the segments, each a dict of id,
        isthing, category_id, and score and instance_id for things, area for stuff.
    """
    panoptic = torch.zeros_like(semantic_results, dtype=torch.int32)
    segments: list[dict[str, Any]] = []
    masks = instance_results.pred_masks.to(dtype=torch.bool, device=panoptic.device)
    for index in torch.argsort(-instance_results.scores).tolist():
        score = instance_results.scores[index].item()
        if score < instances_score_thresh:
            break
        mask = masks[index]
        area = int(mask.sum())
        free = mask & (panoptic == 0)
        covered = area - int(free.sum())
        if area == 0 or covered / area > overlap_threshold:
            continue
        panoptic[free] = len(segments) + 1
        segments.append(
            {
                "id": len(segments) + 1,
                "isthing": True,
                "score": score,
                "category_id": int(instance_results.pred_classes[index]),
                "instance_id": index,
            }
        )
    for label in torch.unique(semantic_results).tolist():
        free = (semantic_results == label) & (panoptic == 0)
        area = int(free.sum())
        if label == 0 or area < stuff_area_thresh:
            continue
        panoptic[free] = len(segments) + 1
        segments.append({"id": len(segments) + 1, "isthing": False, "category_id": label, "area": area})
    return panoptic, segments
