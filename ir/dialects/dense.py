"""`det.dense_inference`: detections from a head that predicts at every position.

Conventions are detectron2's (modeling/meta_arch/dense_detector.py, retinanet.py, fcos.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import IRError
from ..lazy import torchvision
from ..ops import Fresh, op
from ..types import TensorType, Type
from .boxes import decode, parts, tensor

REGRESSIONS = ("deltas", "distances", "scaled_distances")
"""How a box is predicted: see `det.dense_inference`."""


def _dense_inference_type(
    scores: tuple[Type, ...], deltas: tuple[Type, ...], anchors: tuple[Type, ...], **rest: object
) -> tuple[Type, ...]:
    if not len(scores) == len(deltas) == len(anchors) or not scores:
        raise IRError(f"{len(scores)} levels of scores, {len(deltas)} of deltas, {len(anchors)} of anchors")
    if rest["regression"] not in REGRESSIONS:
        raise IRError(f"regression is one of {', '.join(REGRESSIONS)}, not {rest['regression']!r}")
    for i, maps in enumerate(zip(scores, deltas, anchors, strict=True)):
        scored, moved, placed = (
            tensor(given, rank, what)
            for given, rank, what in zip(maps, (4, 4, 2), ("scores", "deltas", "anchors"), strict=True)
        )
        cells = moved.shape[1]
        fits = moved.shape[2:] == scored.shape[2:] and placed.shape[1] == 4
        if isinstance(cells, int) and isinstance(scored.shape[1], int):
            fits = fits and cells % 4 == 0 and scored.shape[1] % max(cells // 4, 1) == 0
        if not fits:
            raise IRError(f"level {i}: the scores {scored}, deltas {moved} and anchors {placed} do not fit")
    first, found = tensor(scores[0], 4, "scores"), Fresh("detections")
    index = TensorType(torch.int64, (found,))
    boxes = tensor(anchors[0], 2, "anchors")
    return (TensorType(boxes.dtype, (found, 4)), TensorType(first.dtype, (found,)), index, index)


@op("det.dense_inference", infer=_dense_inference_type)
def dense_inference(
    scores: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    *,
    regression: str = "deltas",
    weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0),
    scale_clamp: float = math.inf,
    score_thresh: float,
    topk_candidates: int,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """From maps of class scores and box regressions to detections.

    A candidate is a pair of an anchor and a class whose score is greater than `score_thresh`; each level of each
    image gives its `topk_candidates` best. Their boxes are decoded, one suppresses those of its image and class that
    it overlaps with an IoU greater than `nms_thresh`, and each image keeps its `topk_per_image` best. Boxes are
    not clipped. Among equal scores the earlier candidate comes first, by level, row, column, anchor and class.

    `regression` says what is predicted for an anchor: "deltas" as `det.apply_deltas` takes them, with its `weights`
    and `scale_clamp`; "distances" from the anchor's centre to the left, top, right and bottom sides in pixels,
    negative ones counting as zero; "scaled_distances" the same in sides of the anchor.

    Shapes, per level: scores f32[N,A*K,h,w], K classes for each of A anchors, the classes of one anchor together;
    deltas f32[N,A*4,h,w]; anchors f32[h*w*A,4].
    Results: boxes f32[D,4], scores f32[D], classes i64[D], batch_index i64[D], by image, then by falling score.
    """
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for image in range(len(scores[0])):
        candidates: list[tuple[Tensor, Tensor, Tensor]] = []
        for score, delta, anchor in zip(scores, deltas, anchors, strict=True):
            cells = delta.shape[1] // 4
            classes_last, sides_last = score[image].permute(1, 2, 0), delta[image].permute(1, 2, 0)
            per_class = classes_last.reshape(-1, score.shape[1] // max(cells, 1))
            per_anchor = sides_last.reshape(-1, 4)
            rows, classes = torch.nonzero(per_class > score_thresh, as_tuple=True)
            values, best = per_class[rows, classes].sort(descending=True, stable=True)
            best = best[:topk_candidates]
            rows, classes = rows[best], classes[best]
            boxes = decode_dense(
                per_anchor[rows],
                anchor[rows],
                regression=regression,
                weights=weights,
                scale_clamp=scale_clamp,
            )
            candidates.append((boxes, values[:topk_candidates], classes))
        boxes, values, classes = (torch.cat(parts) for parts in zip(*candidates, strict=True))
        keep = torchvision.ops.batched_nms(boxes.float(), values.float(), classes, nms_thresh)
        if topk_per_image >= 0:
            keep = keep[:topk_per_image]
        found.append((boxes[keep], values[keep], classes[keep], torch.full_like(keep, image)))
    joined = tuple(torch.cat(parts) for parts in zip(*found, strict=True))
    return joined[0], joined[1], joined[2], joined[3]


def decode_dense(
    deltas: Tensor, anchors: Tensor, *, regression: str, weights: tuple[float, ...], scale_clamp: float
) -> Tensor:
    """Boxes [...,4] from what is predicted for anchors, both [...,4], as `det.dense_inference` says."""
    centre, size = parts(anchors)
    if regression == "deltas":
        return decode(deltas, centre, size, weights=weights, scale_clamp=scale_clamp)
    before, after = torch.split(deltas.clamp(min=0), 2, dim=-1)
    if regression == "scaled_distances":
        before, after = before * size, after * size
    return torch.cat((centre - before, centre + after), dim=-1)
