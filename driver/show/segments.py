"""Segments for people and programs: a table, and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from detc.backends.arrays import to_array

from .detections import class_name, run_lengths
from .terminal import table


@dataclass(frozen=True)
class Segment:
    """A part of an image, for tables, JSON and pictures.

    Attributes:
        id: its number in the image: of a panoptic segment its id, else its class.
        category: its class's number, among things or among the classes of semantic segmentation.
        name: its class's name.
        isthing: whether it is an instance of a thing; None where things and stuff are not told apart.
        score: of a thing.
        mask: bool[height,width].
    """

    id: int
    category: int
    name: str
    isthing: bool | None
    score: float | None
    mask: np.ndarray

    @property
    def kind(self) -> str:
        """What it is a segment of: a thing, stuff, or a class."""
        return "class" if self.isthing is None else "thing" if self.isthing else "stuff"


def segments_of(results: Mapping[str, Any], metadata: Mapping[str, Any]) -> list[Segment]:
    """The segments in an image's results: the panoptic ones, or else a segment for each class that has pixels; none
    where nothing is segmented. `metadata` is the artifact's."""
    things = metadata.get("class_names") or []
    if "panoptic_seg" in results:
        ids, segments = results["panoptic_seg"]
        stuff = metadata.get("stuff_class_names") or []
        found: list[Segment] = []
        for entry in segments:
            category, isthing = entry["category_id"], entry["isthing"]
            unnamed = str(category) if isthing else f"stuff {category}"
            names = things if isthing else stuff
            name = names[category] if category < len(names) else unnamed
            mask = to_array(ids == entry["id"])
            found.append(Segment(entry["id"], category, name, isthing, entry.get("score"), mask))
        return found
    if "sem_seg" not in results:
        return []
    labels = to_array(results["sem_seg"]).argmax(axis=0)
    return [
        Segment(label, label, class_name(label, things), None, None, labels == label)
        for label in np.unique(labels).tolist()
    ]


def segments_json(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    """The segments for JSON: each with "id", "class" (number), "name", "kind", "pixels", "mask" (COCO's run-length
    encoding, uncompressed) and, where it is a thing, "score"."""
    described: list[dict[str, Any]] = []
    for segment in segments:
        entry = {"id": segment.id, "class": segment.category, "name": segment.name, "kind": segment.kind}
        if segment.score is not None:
            entry["score"] = round(segment.score, 6)
        mask = {"size": list(segment.mask.shape), "counts": run_lengths(segment.mask)}
        described.append({**entry, "pixels": int(segment.mask.sum()), "mask": mask})
    return described


def segment_table(segments: Sequence[Segment], title: str) -> Table:
    """Segments as a table for the terminal."""
    numbers = ("id", "score", "pixels", "of the image")
    made = table("segment", "kind", *numbers, title=f"{title}: {len(segments)} segments", right=numbers)
    for segment in segments:
        score = "" if segment.score is None else f"{segment.score:.3f}"
        cells = [str(segment.id), score, str(int(segment.mask.sum())), f"{segment.mask.mean():.1%}"]
        made.add_row(segment.name, segment.kind, *cells)
    return made
