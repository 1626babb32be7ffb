"""Detections for people and programs: a table, and JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from detc.backends.files import atomic_write
from detc.frontend.structures import Instances

from .terminal import table


def to_json(instances: Instances, class_names: Sequence[str], image: str) -> dict[str, Any]:
    """What was found in an image, for JSON.

    "image", "height", "width", and "detections", each with "class" (number), "name", "score", "box" (x0 y0 x1 y1 in
    pixels) and, where there are masks, "mask": COCO's run-length encoding, uncompressed.
    """
    height, width = instances.image_size
    detections: list[dict[str, Any]] = []
    for i in range(len(instances)):
        category = int(instances.pred_classes[i])
        entry: dict[str, Any] = {
            "class": category,
            "name": class_name(category, class_names),
            "score": round(float(instances.scores[i]), 6),
            "box": [round(x, 3) for x in instances.pred_boxes.tensor[i].tolist()],
        }
        if instances.has("pred_masks"):
            entry["mask"] = {"size": [height, width], "counts": run_lengths(instances.pred_masks[i].numpy())}
        detections.append(entry)
    return {"image": image, "height": height, "width": width, "detections": detections}


def write_json(found: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write what `to_json` gave.

    Errors:
        InputError: the file cannot be written.
    """
    with atomic_write(path) as file:
        file.write(json.dumps(found, indent=2).encode() + b"\n")


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run-length encoding of a mask bool[h,w]: the lengths of runs of zeros and ones in turn, down
    the columns, zeros first."""
    pixels = mask.flatten(order="F")
    ends = np.flatnonzero(np.diff(pixels)) + 1
    lengths: list[int] = np.diff(np.concatenate(([0], ends, [pixels.size]))).tolist()
    return [0, *lengths] if pixels.size and pixels[0] else lengths


def detection_table(shown: Instances, total: int, class_names: Sequence[str], title: str) -> Table:
    """Detections as a table for the terminal, boxes in pixels. `total` is how many there are, shown or not."""
    masks = shown.has("pred_masks")
    numbers = ("score", "x0", "y0", "x1", "y1", *(("mask pixels",) if masks else ()))
    count = f"{len(shown)} of {total} detections" if total else "no detections"
    made = table("class", *numbers, title=f"{title}: {count}", right=numbers)
    for i in range(len(shown)):
        cells = [f"{x:.1f}" for x in shown.pred_boxes.tensor[i].tolist()]
        if masks:
            cells.append(str(int(shown.pred_masks[i].sum())))
        name = class_name(int(shown.pred_classes[i]), class_names)
        made.add_row(name, f"{float(shown.scores[i]):.3f}", *cells)
    return made


def class_name(category: int, class_names: Sequence[str]) -> str:
    """A class's name, its number where it has none."""
    return class_names[category] if category < len(class_names) else str(category)
