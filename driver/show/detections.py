"""Detections for people and programs: a table, and JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from detc.backends.arrays import as_arrays, to_array
from detc.ir.files import atomic_write
from detc.ir.instances import BOX_FIELDS, Instances

from .terminal import table

KEYPOINT_SCORE = 0.05
"""Keypoints of a lower score are counted and drawn by nobody: what is not to be seen has a flat heatmap."""
_EXTRA = {"pred_keypoints": "keypoints", "pred_masks": "mask pixels"}
"""Further fields of detections -> the heading of their column."""


def boxes_of(instances: Instances) -> np.ndarray:
    """The boxes f32[D,4] (x0 y0 x1 y1) or, rotated, f32[D,5] of detections, or of proposals."""
    boxes = instances.get(next(name for name in BOX_FIELDS if instances.has(name)))
    return to_array(getattr(boxes, "tensor", boxes))


def scores_of(instances: Instances) -> np.ndarray:
    """The scores f32[D] of detections, the objectness logits of proposals."""
    return to_array(instances.scores if instances.has("scores") else instances.objectness_logits)


def names_of(instances: Instances, class_names: Sequence[str]) -> list[str]:
    """What each detection is: its class's name, its number where it has none; proposals are just that."""
    if not instances.has("pred_classes"):
        return ["proposal"] * len(instances)
    return [class_name(category, class_names) for category in instances.pred_classes.tolist()]


def to_json(instances: Instances, class_names: Sequence[str], image: str) -> dict[str, Any]:
    """What was found in an image, for JSON.

    "image", "height", "width", and "detections", each with "class" (number), "name", "score", "box" (x0 y0 x1 y1 in
    pixels) or "rotated_box" (centre x, centre y, width, height in pixels, degrees counter-clockwise) and, where there
    are such, "keypoints" (x, y, score) and "mask": COCO's run-length encoding, uncompressed. Proposals have no class.
    """
    instances = as_arrays(instances)
    height, width = instances.image_size
    boxes, scores = boxes_of(instances), scores_of(instances)
    shape = "box" if boxes.shape[1] == 4 else "rotated_box"
    detections: list[dict[str, Any]] = []
    for i, name in enumerate(names_of(instances, class_names)):
        entry: dict[str, Any] = {}
        if instances.has("pred_classes"):
            entry["class"] = int(instances.pred_classes[i])
        entry |= {"name": name, "score": round(float(scores[i]), 6), shape: _rounded(boxes[i])}
        if instances.has("pred_keypoints"):
            entry["keypoints"] = [_rounded(point) for point in instances.pred_keypoints[i]]
        if instances.has("pred_masks"):
            entry["mask"] = {"size": [height, width], "counts": run_lengths(instances.pred_masks[i])}
        detections.append(entry)
    return {"image": image, "height": height, "width": width, "detections": detections}


def _rounded(row: Any) -> list[float]:
    return [round(x, 3) for x in row.tolist()]


def write_json(found: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write what `to_json` gave.

    Errors:
        InputError: the file cannot be written.
    """
    with atomic_write(path) as file:
        file.write(json.dumps(found, indent=2).encode() + b"\n")


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run-length encoding of a mask bool[h,w]: the lengths of runs of zeros and ones in turn, down
    the columns, zeros first. (supervision has this too, but is an extra that only drawing needs.)"""
    pixels = mask.flatten(order="F")
    ends = np.flatnonzero(np.diff(pixels)) + 1
    lengths: list[int] = np.diff(np.concatenate(([0], ends, [pixels.size]))).tolist()
    return [0, *lengths] if pixels.size and pixels[0] else lengths


def detection_table(shown: Instances, total: int, class_names: Sequence[str], title: str) -> Table:
    """Detections as a table for the terminal, boxes in pixels. `total` is how many there are, shown or not."""
    boxes = boxes_of(shown)
    sides = ("x0", "y0", "x1", "y1") if boxes.shape[1] == 4 else ("x", "y", "width", "height", "angle")
    extra = [name for field, name in _EXTRA.items() if shown.has(field)]
    numbers = ("score", *sides, *extra)
    count = f"{len(shown)} of {total} detections" if total else "no detections"
    made = table("class", *numbers, title=f"{title}: {count}", right=numbers)
    for i, name in enumerate(names_of(shown, class_names)):
        cells = [f"{x:.1f}" for x in boxes[i].tolist()]
        if shown.has("pred_keypoints"):
            cells.append(str(int((shown.pred_keypoints[i, :, 2] >= KEYPOINT_SCORE).sum())))
        if shown.has("pred_masks"):
            cells.append(str(int(shown.pred_masks[i].sum())))
        made.add_row(name, f"{float(scores_of(shown)[i]):.3f}", *cells)
    return made


def class_name(category: int, class_names: Sequence[str]) -> str:
    """A class's name, its number where it has none."""
    return class_names[category] if category < len(class_names) else str(category)
