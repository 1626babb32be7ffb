"""Semantic and panoptic segmentation (detectron2 modeling/meta_arch/semantic_seg.py and panoptic_fpn.py)."""

from __future__ import annotations

from typing import Any

from detc.ir import Value

from ..capture import Capture, Images, importer
from .rcnn import MASK_THRESHOLD, backbone_features, normalized_images, regions


@importer("SemanticSegmentor", relies_on=("forward", "preprocess_image"))
def semantic_segmentor(capture: Capture, model: Any) -> None:
    """Backbone, segmentation head, postprocessing. The output `sem_seg` is logits f32[N,C,h,w]."""
    images = normalized_images(capture, model)
    features = backbone_features(capture, model.backbone, images)
    logits = _sem_seg_logits(capture, model, features)
    sem_seg = _postprocessed(capture, logits, images, capture.output_size_input())
    capture.graph.metadata["num_classes"] = logits.shape[1]
    capture.graph.set_outputs({"sem_seg": sem_seg})


@importer("PanopticFPN", relies_on=("forward", "inference", "preprocess_image"))
def panoptic_fpn(capture: Capture, model: Any) -> None:
    """Mask R-CNN with a segmentation head, and the two combined.

    The outputs are `instances`, `sem_seg` f32[N,C,h,w], `panoptic` i32[N,h,w] and `segments` i64[S,4].
    """
    images = normalized_images(capture, model)
    features = backbone_features(capture, model.backbone, images)
    logits = _sem_seg_logits(capture, model, features)
    detections = regions(capture, model, images, features)
    build, output_size = capture.build, capture.output_size_input()
    sem_seg = _postprocessed(capture, logits, images, output_size)
    instances = build.det.postprocess(detections, images.im_info, output_size, mask_threshold=MASK_THRESHOLD)
    instances.name = "instances"
    combine = {
        "overlap_threshold": float(model.combine_overlap_thresh),
        "stuff_area_limit": float(model.combine_stuff_area_thresh),
        "score_threshold": float(model.combine_instances_score_thresh),
    }
    fields = [
        build.instances.get(instances, field=name)
        for name in ("pred_masks", "scores", "pred_classes", "batch_index")
    ]
    panoptic, segments = build.det.panoptic_combine(*fields, sem_seg, output_size, **combine)
    panoptic.name, segments.name = "panoptic", "segments"
    capture.graph.metadata.update(
        mask_threshold=MASK_THRESHOLD, num_sem_seg_classes=logits.shape[1], panoptic=combine
    )
    capture.graph.set_outputs(
        {"instances": instances, "sem_seg": sem_seg, "panoptic": panoptic, "segments": segments}
    )


def _sem_seg_logits(capture: Capture, model: Any, features: dict[str, Value]) -> Value:
    """What the segmentation head gives: logits f32[N,C,H,W]."""
    logits, _ = capture.call(model.sem_seg_head, features, None)
    found: Value = logits
    found.name = "sem_seg_logits"
    return found


def _postprocessed(capture: Capture, logits: Value, images: Images, output_size: Value) -> Value:
    """The logits in each image's output size."""
    sem_seg = capture.build.det.sem_seg_postprocess(logits, images.im_info, output_size)
    sem_seg.name = "sem_seg"
    return sem_seg
