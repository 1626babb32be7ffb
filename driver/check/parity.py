"""Checking a compiled detector against the model that it was compiled from, on real images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import RenderableType
from rich.table import Table
from torch import Tensor

from detc.backends.detector import Detector
from detc.ir.structures import Instances
from detc.passes import FLAT_NAMES, DetectionReport, Tolerances, compare_detections

from ..show.terminal import table
from .segmentation import SegmentationReport, compare_segmentations


@dataclass(frozen=True)
class Parity:
    """How the detector compares with the model on one image.

    Attributes:
        image: the image's name.
        batch: how many images ran together.
        report: how the detections of the two compare.
    """

    image: str
    batch: int
    report: DetectionReport | SegmentationReport


def check_parity(
    model: Callable[[Sequence[Mapping[str, Any]]], Sequence[Mapping[str, Any]]],
    detector: Detector,
    inputs: Mapping[str, Mapping[str, Any]],
    tolerances: Tolerances | None = None,
) -> list[Parity]:
    """Run both on each image alone and on all as one batch, and compare what they detect and segment.

    `inputs` maps names to inputs as the model takes them: {"image": tensor or array [C,h,w], "height", "width"}.
    """
    batches = [[name] for name in inputs]
    if len(inputs) > 1:
        batches.append(list(inputs))
    suppressing = [float(detector.metadata["nms_thresh"])] if "nms_thresh" in detector.metadata else []
    found: list[Parity] = []
    for names in batches:
        batch = [{**inputs[name], "image": torch.as_tensor(inputs[name]["image"])} for name in names]
        with torch.no_grad():
            expected = model(batch)
        actual = detector(batch)
        for name, left, right in zip(names, expected, actual, strict=True):
            for output, instances in right.items():
                if isinstance(instances, Instances):
                    mine, theirs = _tensors(left[output]), _tensors(instances)
                    thresholds = _thresholds(detector, mine, theirs)
                    report = compare_detections(mine, theirs, tolerances, thresholds, suppressing)
                    found.append(Parity(name, len(names), report))
            if "sem_seg" in right:
                found.append(Parity(name, len(names), compare_segmentations(left, right, tolerances)))
    return found


def _tensors(instances: Instances) -> dict[str, Tensor]:
    # Whatever else a model leaves in its instances, such as heatmaps, is no result.
    fields = {
        FLAT_NAMES[name]: getattr(value, "tensor", value)
        for name, value in instances.get_fields().items()
        if name in FLAT_NAMES
    }
    return {**fields, "batch_index": torch.zeros(len(instances), dtype=torch.int64)}


def _thresholds(detector: Detector, *sides: Mapping[str, Tensor]) -> list[float]:
    """The scores near which a detection may be there or not: the threshold, and, where only the best were kept, the
    worst of them."""
    said = detector.metadata.get("score_thresh")
    thresholds = [] if said is None else [float(said)]
    most = int(detector.metadata.get("detections_per_image", 0))
    for side in sides:
        if 0 < most <= len(side["scores"]):
            thresholds.append(float(side["scores"].min()))
    return thresholds


def parity_blocks(rows: Sequence[Parity], runtime: str) -> list[RenderableType]:
    """Tables with a line per image (how many images ran together, detections or segments on both sides, the largest
    difference of a score, the least overlaps), and, where the two differ, what the differences are."""
    detected = [(row, row.report) for row in rows if isinstance(row.report, DetectionReport)]
    segmented = [(row, row.report) for row in rows if isinstance(row.report, SegmentationReport)]
    blocks: list[RenderableType] = []
    if detected:
        blocks.append(_detection_table(detected, runtime))
    if segmented:
        blocks.append(_segmentation_table(segmented, runtime))
    problems = [
        f"{row.image}, batch of {row.batch}: {row.report.problem}" for row in rows if not row.report.agrees
    ]
    return [*blocks, *(["\n".join(problems)] if problems else [])]


def _detection_table(rows: Sequence[tuple[Parity, DetectionReport]], runtime: str) -> Table:
    masks = any(report.mask_iou is not None for _, report in rows)
    numbers = ("batch", "eager", runtime, "score diff", "box IoU", *(("mask IoU",) if masks else ()))
    made = table("image", *numbers, "verdict", title=f"the model and {runtime}", right=numbers)
    for row, report in rows:
        cells = [str(row.batch), str(report.expected), str(report.actual), _number(report.score, ".1e")]
        overlaps = (report.box_iou, *((report.mask_iou,) if masks else ()))
        cells += [_number(overlap, ".4f") for overlap in overlaps]
        made.add_row(row.image, *cells, _verdict(report.agrees))
    return made


def _segmentation_table(rows: Sequence[tuple[Parity, SegmentationReport]], runtime: str) -> Table:
    numbers = ("batch", "eager", runtime, "logit diff", "segment IoU")
    made = table("image", *numbers, "verdict", title=f"segments of the model and {runtime}", right=numbers)
    for row, report in rows:
        cells = [str(row.batch), str(report.expected), str(report.actual)]
        cells += [_number(report.logits, ".1e"), _number(report.iou, ".4f")]
        made.add_row(row.image, *cells, _verdict(report.agrees))
    return made


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _verdict(agrees: bool) -> str:
    return "agrees" if agrees else "DIFFERS"
