"""ROI heads and their parts (detectron2 modeling/roi_heads, modeling/poolers.py)."""

from __future__ import annotations

from typing import Any

from detc.ir import UnsupportedError, Value

from ..capture import Capture, Images, importer


@importer("ROIPooler", relies_on=("forward",))
def roi_pooler(
    capture: Capture, pooler: Any, features: list[Value], boxes: Value, batch_index: Value
) -> Value:
    """Each box's features [R,C,oh,ow]."""
    levels = list(pooler.level_poolers)
    kind, build = type(levels[0]).__name__, capture.build
    options: dict[str, Any] = {
        "output_size": tuple(int(s) for s in pooler.output_size),
        "scales": tuple(float(level.spatial_scale) for level in levels),
        "sampling_ratio": int(getattr(levels[0], "sampling_ratio", 0)),
        "canonical_box_size": int(pooler.canonical_box_size),
        "canonical_level": int(pooler.canonical_level),
    }
    if kind == "ROIAlignRotated":
        pooler_type = kind
    elif kind == "ROIAlign":
        pooler_type = "ROIAlignV2" if levels[0].aligned else "ROIAlign"
    elif kind in ("RoIPool", "ROIPool"):
        pooler_type = "ROIPool"
    else:
        raise UnsupportedError(f"{capture.path(pooler)}: pooling by {kind} is not supported")
    return build.det.roi_pool(features, boxes, batch_index, pooler_type=pooler_type, **options)


@importer(
    "FastRCNNOutputLayers",
    "RotatedFastRCNNOutputLayers",
    relies_on=("inference", "predict_boxes", "predict_probs"),
)
def fast_rcnn_output_layers(
    capture: Capture, predictor: Any, features: Value, boxes: Value, batch_index: Value, im_info: Value
) -> Value:
    """Detections as instances: pred_boxes f32[D,4] or, rotated, f32[D,5]; scores, pred_classes, batch_index."""
    decoded, scores = _predict(capture, predictor, features, boxes)
    return _infer_boxes(capture, predictor, decoded, scores, batch_index, im_info)


def _predict(capture: Capture, predictor: Any, features: Value, boxes: Value) -> tuple[Value, Value]:
    """The predictor's decoded boxes f32[R,K*4] and probabilities f32[R,K+1]."""
    logits, deltas = capture.trace(predictor, features)
    aten, transform = capture.build.aten, predictor.box2box_transform
    scores = aten.sigmoid(logits) if predictor.use_sigmoid_ce else aten.softmax.int(logits, dim=-1)
    decoded = capture.build.det.apply_deltas(
        deltas,
        boxes,
        weights=[float(w) for w in transform.weights],
        scale_clamp=float(transform.scale_clamp),
    )
    return decoded, scores


def _infer_boxes(
    capture: Capture, predictor: Any, boxes: Value, scores: Value, batch_index: Value, im_info: Value
) -> Value:
    """Detections by the predictor's thresholds."""
    found = capture.build.det.box_inference(
        boxes,
        scores,
        batch_index,
        im_info,
        score_thresh=float(predictor.test_score_thresh),
        nms_thresh=float(predictor.test_nms_thresh),
        topk_per_image=int(predictor.test_topk_per_image),
    )
    return make_detections(capture, found, num_classes=int(predictor.num_classes))


def make_detections(capture: Capture, found: tuple[Value, ...], *, num_classes: int) -> Value:
    """What an inference op gave (boxes, scores, classes, batch_index) as instances; the metadata holds its
    thresholds."""
    boxes, scores, classes, batch_index = found
    node = boxes.producer
    assert node is not None
    capture.graph.metadata.update(
        num_classes=num_classes,
        score_thresh=node.attributes["score_thresh"],
        nms_thresh=node.attributes["nms_thresh"],
        detections_per_image=node.attributes["topk_per_image"],
    )
    made = capture.build.instances.make(
        [batch_index, boxes, scores, classes], names=("batch_index", "pred_boxes", "scores", "pred_classes")
    )
    made.name = "detections"
    return made


@importer("BaseMaskRCNNHead", relies_on=("forward",))
def mask_head(capture: Capture, head: Any, features: Value, classes: Value) -> Value:
    """Each detection's mask as probabilities f32[D,1,S,S]."""
    logits = capture.trace(head.layers, features, module=head)
    return capture.build.det.mask_inference(logits, classes)


@importer(
    "StandardROIHeads",
    relies_on=("forward", "_forward_box", "_forward_mask", "_forward_keypoint", "forward_with_given_boxes"),
)
def standard_roi_heads(
    capture: Capture, heads: Any, images: Images, features: dict[str, Value], proposals: Value
) -> Value:
    """Detections as instances, with pred_masks f32[D,1,S,S] where the model predicts masks."""
    get, maps = capture.build.instances.get, [features[name] for name in heads.box_in_features]
    boxes, batch_index = get(proposals, field="proposal_boxes"), get(proposals, field="batch_index")
    pooled = capture.call(heads.box_pooler, maps, boxes, batch_index)
    box_features = capture.call(heads.box_head, pooled)
    detections = capture.call(heads.box_predictor, box_features, boxes, batch_index, images.im_info)
    return _given_boxes(capture, heads, features, detections)


@importer(
    "CascadeROIHeads",
    relies_on=(
        "forward",
        "_forward_box",
        "_run_stage",
        "_create_proposals_from_boxes",
        "_forward_mask",
        "_forward_keypoint",
        "forward_with_given_boxes",
    ),
)
def cascade_roi_heads(
    capture: Capture, heads: Any, images: Images, features: dict[str, Value], proposals: Value
) -> Value:
    """Each stage refines the boxes of the one before; the scores are the mean over the stages."""
    build, maps = capture.build, [features[name] for name in heads.box_in_features]
    boxes = build.instances.get(proposals, field="proposal_boxes")
    batch_index = build.instances.get(proposals, field="batch_index")
    total: Value | None = None
    for stage, (head, predictor) in enumerate(zip(heads.box_head, heads.box_predictor, strict=True)):
        if stage > 0:
            boxes = build.det.clip_boxes(boxes, batch_index, images.im_info)
        pooled = capture.call(heads.box_pooler, maps, boxes, batch_index)
        box_features = capture.call(head, pooled)
        with capture.at(predictor):
            boxes, scores = _predict(capture, predictor, box_features, boxes)
        total = scores if total is None else build.aten.add.Tensor(total, scores)
    mean = build.aten.mul.Tensor(total, other=1.0 / len(heads.box_predictor))
    detections = _infer_boxes(capture, heads.box_predictor[-1], boxes, mean, batch_index, images.im_info)
    return _given_boxes(capture, heads, features, detections)


@importer(
    "Res5ROIHeads",
    relies_on=("forward", "_shared_roi_transform", "forward_with_given_boxes"),
)
def res5_roi_heads(
    capture: Capture, heads: Any, images: Images, features: dict[str, Value], proposals: Value
) -> Value:
    """The "C4" heads: ResNet's last stage runs on each region, for boxes and for masks alike."""
    get, maps = capture.build.instances.get, [features[name] for name in heads.in_features]

    def regions(boxes: Value, batch_index: Value) -> Value:
        found: Value = capture.call(heads.res5, capture.call(heads.pooler, maps, boxes, batch_index))
        return found

    boxes, batch_index = get(proposals, field="proposal_boxes"), get(proposals, field="batch_index")
    mean = capture.build.aten.mean.dim(regions(boxes, batch_index), dim=(2, 3))
    detections: Value = capture.call(heads.box_predictor, mean, boxes, batch_index, images.im_info)
    if not getattr(heads, "mask_on", False):
        return detections
    pooled = regions(get(detections, field="pred_boxes"), get(detections, field="batch_index"))
    return _set_masks(capture, heads.mask_head, detections, pooled)


@importer("BaseKeypointRCNNHead", relies_on=("forward",))
def keypoint_head(capture: Capture, head: Any, features: Value, boxes: Value) -> Value:
    """Each detection's keypoints f32[D,K,3], rows (x, y, score)."""
    heatmaps = capture.trace(head.layers, features, module=head)
    heatmaps.name = "heatmaps"
    return capture.build.det.keypoint_inference(heatmaps, boxes)


def _given_boxes(capture: Capture, heads: Any, features: dict[str, Value], detections: Value) -> Value:
    """The heads that take the detected boxes."""
    if getattr(heads, "mask_on", False):
        detections = _with_masks(capture, heads, features, detections)
    if getattr(heads, "keypoint_on", False):
        detections = _with_keypoints(capture, heads, features, detections)
    return detections


def _with_masks(capture: Capture, heads: Any, features: dict[str, Value], detections: Value) -> Value:
    get, names = capture.build.instances.get, heads.mask_in_features
    boxes, batch_index = get(detections, field="pred_boxes"), get(detections, field="batch_index")
    if heads.mask_pooler is None:
        # A head that samples the maps itself, such as PointRend's.
        return _set_masks(
            capture, heads.mask_head, detections, {n: features[n] for n in names}, boxes, batch_index
        )
    pooled = capture.call(heads.mask_pooler, [features[name] for name in names], boxes, batch_index)
    return _set_masks(capture, heads.mask_head, detections, pooled)


def _with_keypoints(capture: Capture, heads: Any, features: dict[str, Value], detections: Value) -> Value:
    if heads.keypoint_pooler is None:
        raise UnsupportedError(f"{capture.path(heads)}: a keypoint head without a pooler is not supported")
    get, maps = capture.build.instances.get, [features[name] for name in heads.keypoint_in_features]
    boxes, batch_index = get(detections, field="pred_boxes"), get(detections, field="batch_index")
    pooled = capture.call(heads.keypoint_pooler, maps, boxes, batch_index)
    keypoints = capture.call(heads.keypoint_head, pooled, boxes)
    result = capture.build.instances.set(detections, keypoints, field="pred_keypoints")
    result.name = "detections"
    return result


def _set_masks(capture: Capture, mask_head: Any, detections: Value, *sources: Any) -> Value:
    classes = capture.build.instances.get(detections, field="pred_classes")
    masks = capture.call(mask_head, *sources, classes)
    result = capture.build.instances.set(detections, masks, field="pred_masks")
    result.name = "detections"
    return result
