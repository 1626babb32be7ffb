"""What a detector finds in a picture, as the command `run` shows it: a table, JSON, a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from rich.table import Table

from detc.backends.detector import Detector
from detc.ir.instances import Instances

from .detections import detection_table, scores_of, to_json
from .segments import Segment, segment_table, segments_json, segments_of


@dataclass(frozen=True)
class Findings:
    """An image's detections, its segments, or both.

    Attributes:
        image: the picture.
        instances: what is detected; None where the model only segments.
        segments: panoptic ones, or those of classes; none where the model only detects.
        class_names: the classes' names.
        min_score: the least score of detections in the picture and the table.
    """

    image: Image.Image
    instances: Instances | None
    segments: Sequence[Segment]
    class_names: Sequence[str]
    min_score: float

    @classmethod
    def of(cls, detector: Detector, image: Image.Image, min_score: float) -> Findings:
        """Run the detector on a picture."""
        results = detector.results(image)
        instances = next((found for found in results.values() if isinstance(found, Instances)), None)
        segments = segments_of(results, detector.metadata)
        return cls(image, instances, segments, detector.class_names, min_score)

    def picture(self) -> Image.Image:
        """The picture with the segments drawn in or, where there are none, the detections.

        Errors:
            InputError: the extra `pictures` is not installed.
        """
        from .picture import draw, draw_segments  # noqa: PLC0415  (an extra)

        if self.instances is None or self.segments:
            return draw_segments(self.image, self.segments)
        return draw(self.image, self._shown(self.instances), self.class_names)

    def to_json(self, image: str) -> dict[str, Any]:
        """All of it: "image" (as given), "height", "width", "detections" where the model detects, see `to_json`, and
        "segments" where it segments, see `segments_json`."""
        if self.instances is None:
            found: dict[str, Any] = {"image": image, "height": self.image.height, "width": self.image.width}
        else:
            found = to_json(self.instances, self.class_names, image)
        return {**found, "segments": segments_json(self.segments)} if self.segments else found

    def tables(self, name: str) -> Iterator[Table]:
        """Tables for the terminal; `name` is the image's."""
        if self.instances is not None:
            title = f"{name}, score {self.min_score} or more"
            shown = self._shown(self.instances)
            yield detection_table(shown, len(self.instances), self.class_names, title)
        if self.segments:
            yield segment_table(self.segments, name)

    def _shown(self, instances: Instances) -> Instances:
        return instances[scores_of(instances) >= self.min_score]
