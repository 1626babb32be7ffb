"""One-stage detectors: RetinaNet and FCOS (detectron2 modeling/meta_arch/dense_detector.py, retinanet.py, fcos.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detc.ir import UnsupportedError, Value

from ..capture import Capture, importer
from .rcnn import backbone_features, normalized_images, set_postprocessed
from .roi_heads import make_detections

_RELIES_ON = (
    "forward",
    "preprocess_image",
    "forward_inference",
    "inference_single_image",
    "_decode_per_level_predictions",
)


@importer("RetinaNet", relies_on=_RELIES_ON)
def retinanet(capture: Capture, model: Any) -> None:
    """Backbone, head, the best of each level, postprocessing. The output `instances` has detectron2's fields."""
    _dense_detector(capture, model, _class_scores)


@importer("FCOS", relies_on=_RELIES_ON)
def fcos(capture: Capture, model: Any) -> None:
    """As RetinaNet; a cell's scores are weighted by how central it is in its object."""
    _dense_detector(capture, model, _central_scores)


def _class_scores(capture: Capture, logits: Value) -> Value:
    return capture.build.aten.sigmoid(logits)


def _central_scores(capture: Capture, logits: Value, centerness: Value) -> Value:
    """The geometric mean of both; one anchor per cell, so that centerness broadcasts over the classes."""
    aten = capture.build.aten
    product = aten.mul.Tensor(aten.sigmoid(logits), aten.sigmoid(centerness))
    return aten.sqrt(product)


def _dense_detector(capture: Capture, model: Any, score: Any) -> None:
    """`score` makes a level's scores from its logits and whatever the head predicts beside logits and deltas."""
    images = normalized_images(capture, model)
    features = backbone_features(capture, model.backbone, images)
    maps = [features[name] for name in model.head_in_features]
    anchors = capture.call(model.anchor_generator, maps)
    logits, deltas, *rest = capture.call(model.head, maps)
    found = capture.build.det.dense_inference(
        [score(capture, *level) for level in zip(logits, *rest, strict=True)],
        deltas,
        anchors,
        **_regression(model.box2box_transform),
        score_thresh=float(model.test_score_thresh),
        topk_candidates=int(model.test_topk_candidates),
        nms_thresh=float(model.test_nms_thresh),
        topk_per_image=int(model.max_detections_per_image),
    )
    detected = make_detections(capture, found, num_classes=int(model.num_classes))
    set_postprocessed(capture, images, detected)


def _regression(transform: Any) -> Mapping[str, str | float | Sequence[float]]:
    """How the transform decodes, as attributes of `det.dense_inference`."""
    kind = type(transform).__name__
    if kind == "Box2BoxTransform":
        weights = [float(w) for w in transform.weights]
        return {"regression": "deltas", "weights": weights, "scale_clamp": float(transform.scale_clamp)}
    if kind == "Box2BoxTransformLinear":
        return {"regression": "scaled_distances" if transform.normalize_by_size else "distances"}
    raise UnsupportedError(f"boxes that {kind} decodes are not supported")
