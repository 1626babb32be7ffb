"""PointRend (detectron2 projects/PointRend): masks and segmentations refined at their uncertain points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from detc.ir import Builder, Value

from ..capture import Capture, importer
from ..detectron2.point_features import generate_regular_grid_point_coords


@importer(
    "PointRendMaskHead",
    "ImplicitPointRendMaskHead",
    relies_on=("forward", "_roi_pooler", "_point_pooler", "_get_point_logits", "_subdivision_inference"),
)
def point_rend_mask_head(
    capture: Capture, head: Any, features: dict[str, Value], boxes: Value, batch_index: Value, classes: Value
) -> Value:
    """Each detection's mask as probabilities f32[D,1,S,S], S after the last subdivision."""
    build, rows = capture.build, boxes.shape[0]

    def grid(side: int) -> Value:
        points = generate_regular_grid_point_coords(1, side, torch.device("cpu"))
        return build.aten.expand(capture.weight(points, f"grid{side}"), size=(rows, side**2, 2))

    def sample(names: list[str], points: Value) -> Value:
        maps, scales = [features[name] for name in names], tuple(head._feature_scales[name] for name in names)
        return build.det.box_point_sample(maps, boxes, batch_index, points, scales=scales)

    size = int(head.roi_pooler_size)
    pooled = _as_maps(build, sample(head.roi_pooler_in_features, grid(size)), size)
    implicit = not hasattr(head, "coarse_head")
    region = capture.call(head.parameter_head if implicit else head.coarse_head, pooled)
    if not head.mask_point_on:
        return build.det.mask_inference(region, classes)

    def predict(points: Value) -> Value:
        # Of a detection only its own class's logits matter, here and in the end, and no step mixes classes.
        fine = sample(head.mask_point_in_features, points)
        last = (points, region) if implicit else (build.det.point_sample(region, points),)
        return build.det.class_logits(capture.call(head.point_head, fine, *last), classes)

    def uncertainty(logits: Value) -> Value:
        return build.aten.neg(build.aten.abs(logits))

    side = int(head.mask_point_subdivision_init_resolution)
    logits = _as_maps(build, predict(grid(side)), side)
    count = int(head.mask_point_subdivision_num_points)
    for _ in range(int(head.mask_point_subdivision_steps)):
        logits = _subdivide(capture, logits, uncertainty, count, predict)
    return build.aten.sigmoid(logits)


@importer("PointRendSemSegHead", relies_on=("forward",))
def point_rend_sem_seg_head(
    capture: Capture, head: Any, features: dict[str, Value], targets: None
) -> tuple[Value, dict[str, Value]]:
    """Logits [N,K,h,w], after every subdivision twice as high and wide as the coarse head's; and no losses."""
    build = capture.build
    with capture.at(head.coarse_sem_seg_head):
        coarse: Value = capture.trace(
            head.coarse_sem_seg_head.layers, features, module=head.coarse_sem_seg_head
        )

    def predict(points: Value) -> Value:
        fine = [build.det.point_sample(features[name], points) for name in head.in_features]
        sampled = fine[0] if len(fine) == 1 else build.aten.cat(fine, dim=1)
        found: Value = capture.call(head.point_head, sampled, build.det.point_sample(coarse, points))
        return found

    def uncertainty(logits: Value) -> Value:
        found: Value = capture.trace(_semantic_uncertainty, logits)
        return found

    logits = coarse
    for _ in range(int(head.subdivision_steps)):
        logits = _subdivide(capture, logits, uncertainty, int(head.subdivision_num_points), predict)
    return logits, {}


def _as_maps(build: Builder, points: Value, side: int) -> Value:
    """What was found at the points of a grid [R,C,side * side] as maps [R,C,side,side]."""
    return build.aten.view(points, size=(*points.shape[:2], side, side))


def _subdivide(
    capture: Capture,
    logits: Value,
    uncertainty: Callable[[Value], Value],
    count: int,
    predict: Callable[[Value], Value],
) -> Value:
    """Logits [R,K,h,w] at twice the resolution, the `count` most uncertain ones predicted anew."""
    build = capture.build
    doubled = capture.trace(_double, logits)
    indices, points = build.det.uncertain_points(uncertainty(doubled), num_points=count)
    return build.det.put_points(doubled, indices, predict(points))


def _double(logits: torch.Tensor) -> torch.Tensor:
    return F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)


def _semantic_uncertainty(logits: torch.Tensor) -> torch.Tensor:
    """How close the second highest of the logits [N,K,h,w] comes to the highest: [N,1,h,w], at most 0."""
    best = logits.topk(k=2, dim=1).values
    return best[:, 1:2] - best[:, 0:1]
