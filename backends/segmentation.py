"""Segmentations of a batch, as a compiled file gives them, turned into detectron2's results for each image.

On arrays. What a file leaves to its caller is the same as `det.sem_seg_postprocess` and `det.panoptic_combine`, which
are written for tensors; tests hold them equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from detc.ir.instances import Instances

Panoptic: TypeAlias = tuple[Any, list[dict[str, Any]]]
"""detectron2's panoptic result: the id of each pixel's segment i32[h,w], 0 for none, and the segments, each with
"id", "isthing", "category_id", for things "score" and "instance_id", for stuff "area"."""


def add_segmentations(
    results: Sequence[dict[str, Any]],
    outputs: Mapping[str, np.ndarray],
    metadata: Mapping[str, Any],
    im_info: np.ndarray,
    output_size: np.ndarray,
    *,
    raw: bool,
) -> None:
    """Add to each image's results "sem_seg" and, for a panoptic model, "panoptic_seg".

    `outputs` are the artifact's, by name; with `raw` it leaves postprocessing to its caller. The panoptic model's
    instances are among the results already, with pred_masks in the output image.
    """
    thresholds = metadata.get("panoptic")
    for image, (result, (height, width)) in enumerate(zip(results, output_size.tolist(), strict=True)):
        logits = outputs["sem_seg"][image]
        if raw:
            own_height, own_width = im_info[image, :2].astype(int)
            result["sem_seg"] = resize(logits[:, :own_height, :own_width], height, width)
        else:
            result["sem_seg"] = logits[:, :height, :width]
        if thresholds is None:
            continue
        if "panoptic" in outputs:
            ids = outputs["panoptic"][image, :height, :width]
            mine = outputs["segments"][outputs["segments"][:, 0] == image, 1:]
        else:
            ids, mine = panoptic_combine(result["instances"], result["sem_seg"], **thresholds)
        result["panoptic_seg"] = (ids, _described(ids, mine, result["instances"], thresholds))


def resize(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Maps f32[C,h,w] at another size: bilinear, half-pixel centres, no antialiasing."""
    for axis, size in ((1, height), (2, width)):
        cells = maps.shape[axis]
        place = ((np.arange(size, dtype=np.float32) + 0.5) * np.float32(cells / size) - 0.5).clip(0)
        low = np.minimum(place.astype(np.int64), cells - 1)
        share = (place - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        low_rows, high_rows = maps.take(low, axis), maps.take(np.minimum(low + 1, cells - 1), axis)
        maps = low_rows * (1 - share) + high_rows * share
    return maps


def panoptic_combine(
    instances: Instances,
    sem_seg: np.ndarray,
    *,
    overlap_threshold: float,
    stuff_area_limit: float,
    score_threshold: float,
) -> tuple[np.ndarray, np.ndarray]:
    """One segment per pixel: the image's instances by falling score, then stuff where nothing is yet.

    See `det.panoptic_combine`. Shapes: pred_masks bool[D,h,w] of the instances; sem_seg f32[C,h,w]. Returns the ids
    i32[h,w], 0 for none, and the segments i64[S,3], rows (id, isthing, category_id).
    """
    kept, ids = place_instances(instances.pred_masks, instances.scores, overlap_threshold, score_threshold)
    labels, free = sem_seg.argmax(axis=0), ids == 0
    areas = np.bincount(labels[free], minlength=len(sem_seg))
    present = np.bincount(labels.ravel(), minlength=len(sem_seg)) > 0
    stuff = [label for label in np.flatnonzero(present & (areas >= stuff_area_limit)).tolist() if label]
    for number, label in enumerate(stuff, len(kept) + 1):
        ids[free & (labels == label)] = number
    categories = [*instances.pred_classes[kept].tolist(), *stuff]
    rows = [(i + 1, int(i < len(kept)), category) for i, category in enumerate(categories)]
    return ids, np.array(rows, np.int64).reshape(-1, 3)


def place_instances(
    masks: np.ndarray, scores: np.ndarray, overlap_threshold: float, score_threshold: float
) -> tuple[list[int], np.ndarray]:
    """The instances of one image that make segments: their rows by falling score, and whose each pixel is i32[h,w],
    the first one's 1, nobody's 0.

    Shapes: masks bool[D,h,w]; scores f32[D]. The thresholds are those of `det.panoptic_combine`.
    """
    canvas = np.zeros(masks.shape[1:], np.int32)
    kept: list[int] = []
    for row in np.argsort(-scores, kind="stable").tolist():
        # In float64, as detectron2 compares them.
        if float(scores[row]) < score_threshold:
            break
        free = masks[row] & (canvas == 0)
        area, left = int(np.count_nonzero(masks[row])), int(np.count_nonzero(free))
        if area > 0 and (area - left) / area <= overlap_threshold:
            kept.append(row)
            canvas[free] = len(kept)
    return kept, canvas


def _described(
    ids: np.ndarray, segments: np.ndarray, instances: Instances, thresholds: Mapping[str, float]
) -> list[dict[str, Any]]:
    """The segments i64[S,3], rows (id, isthing, category_id), as detectron2 describes them."""
    kept, _ = place_instances(
        instances.pred_masks, instances.scores, thresholds["overlap_threshold"], thresholds["score_threshold"]
    )
    things = iter(kept)
    described: list[dict[str, Any]] = []
    for segment, isthing, category in segments.tolist():
        entry = {"id": segment, "isthing": bool(isthing), "category_id": category}
        if not isthing:
            entry["area"] = int(np.count_nonzero(ids == segment))
        elif (row := next(things, None)) is not None:
            entry |= {"score": float(instances.scores[row]), "instance_id": row}
        described.append(entry)
    return described
