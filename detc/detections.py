"""Detections for people and programs: a table, and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from detc.frontend.structures import Instances


def to_json(instances: Instances, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """One entry per detection: class (number), name, score, box (x0 y0 x1 y1 in pixels), mask_area (pixels)."""
    entries: list[dict[str, Any]] = []
    for i in range(len(instances)):
        category = int(instances.pred_classes[i])
        entry: dict[str, Any] = {
            "class": category,
            "name": _name(category, class_names),
            "score": round(float(instances.scores[i]), 6),
            "box": [round(x, 3) for x in instances.pred_boxes.tensor[i].tolist()],
        }
        if instances.has("pred_masks"):
            entry["mask_area"] = int(instances.pred_masks[i].sum())
        entries.append(entry)
    return entries


def detection_table(instances: Instances, class_names: Sequence[str], title: str) -> Table:
    """The detections as a table for the terminal."""
    table = Table(title=f"{title}: {len(instances)} detections", title_justify="left")
    masks = instances.has("pred_masks")
    for heading in ("class", "score", "x0", "y0", "x1", "y1", *(("mask pixels",) if masks else ())):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for entry in to_json(instances, class_names):
        row = [entry["name"], f"{entry['score']:.3f}", *(f"{x:.1f}" for x in entry["box"])]
        table.add_row(*row, *((str(entry["mask_area"]),) if masks else ()))
    return table


def _name(category: int, class_names: Sequence[str]) -> str:
    return class_names[category] if category < len(class_names) else str(category)
