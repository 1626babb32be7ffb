"""Reports on two sets of detections: each difference alone, and what is no difference."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from detc.passes import compare_detections

Detections = dict[str, Tensor]


def detections() -> Detections:
    masks = torch.zeros(3, 20, 20, dtype=torch.bool)
    masks[:, 2:12, 2:12] = True
    return {
        "boxes": torch.tensor([[0.0, 0.0, 100.0, 100.0], [50.0, 50.0, 90.0, 80.0], [0.0, 0.0, 100.0, 100.0]]),
        "scores": torch.tensor([0.9, 0.5, 0.05]),
        "classes": torch.tensor([0, 1, 1]),
        "batch_index": torch.tensor([0, 0, 0]),
        "masks": masks,
    }


def test_equal_up_to_the_order() -> None:
    there = {role: tensor[[2, 0, 1]] for role, tensor in detections().items()}
    report = compare_detections(detections(), there)
    assert report.agrees
    assert (report.expected, report.actual, report.matched) == (3, 3, 3)
    assert (report.score, report.box_iou, report.mask_iou) == (0.0, 1.0, 1.0)


def test_nothing_on_both_sides() -> None:
    nothing = {role: tensor[:0] for role, tensor in detections().items()}
    report = compare_detections(nothing, nothing)
    assert report.agrees
    assert (report.expected, report.matched, report.score, report.box_iou, report.mask_iou) == (
        0,
        0,
        None,
        None,
        None,
    )


def test_how_far_apart() -> None:
    there = detections()
    there["boxes"][0, 2] = 99.5
    there["scores"][1] += 5e-4
    there["masks"][2, 2, 2] = False
    report = compare_detections(detections(), there)
    assert report.agrees
    assert report.box_iou == pytest.approx(0.995)
    assert report.score == pytest.approx(5e-4, rel=1e-3)
    assert report.mask_iou == pytest.approx(0.99)


def changed(role: str, row: int, by: float) -> Detections:
    there = detections()
    there[role][row] += by
    return there


@pytest.mark.parametrize(
    ("there", "problem"),
    [
        (changed("boxes", 0, 2.0), r"boxes: a detection is missing: image 0, class 0, score 0.9"),
        (changed("scores", 1, 2e-3), r"boxes: a detection is missing: image 0, class 1, score 0.5"),
        (changed("classes", 1, 1), r"boxes: a detection is missing: image 0, class 1, score 0.5"),
        ({r: t[:2] for r, t in detections().items()}, r"a detection is missing: image 0, class 1, score 0.05"),
        ({r: t[:2] for r, t in detections().items() if r != "masks"}, r"masks: it is missing"),
        ({**detections(), "masks": detections()["masks"].roll(1, 1)}, r"masks: two masks of one detection .* 0.8182"),
        ({**detections(), "masks": detections()["masks"][:2]}, r"masks: 2 rows for 3 boxes"),
    ],
)  # fmt: skip
def test_differences(there: Detections, problem: str) -> None:
    report = compare_detections(detections(), there)
    assert not report.agrees
    assert re.search(problem, report.problem), report.problem


def test_a_detection_too_many() -> None:
    fewer = {role: tensor[:2] for role, tensor in detections().items()}
    report = compare_detections(fewer, detections())
    assert report.problem.startswith("boxes: a detection should not be there: image 0, class 1, score 0.05")
    assert (report.expected, report.actual, report.matched) == (2, 3, 2)


def test_at_a_threshold_a_detection_may_be_missing() -> None:
    fewer = {role: tensor[:2] for role, tensor in detections().items()}
    assert compare_detections(detections(), fewer, score_thresholds=[0.05005]).agrees
    assert compare_detections(fewer, detections(), score_thresholds=[0.05005]).agrees
    assert not compare_detections(detections(), fewer, score_thresholds=[0.0502]).agrees


def test_at_the_threshold_of_suppression_a_detection_may_be_missing() -> None:
    # The second overlaps with the first by 0.5, the third is of another class.
    boxes = torch.tensor([[0.0, 0, 20, 10], [0, 0, 10, 10], [0, 0, 10, 10]])
    found = {
        "boxes": boxes,
        "scores": torch.tensor([0.9, 0.8, 0.7]),
        "classes": torch.tensor([1, 1, 2]),
        "batch_index": torch.zeros(3, dtype=torch.int64),
    }
    without = {
        row: {role: tensor[[i for i in range(3) if i != row]] for role, tensor in found.items()}
        for row in range(3)
    }
    for threshold in (0.49995, 0.50005):
        assert compare_detections(found, without[1], nms_thresholds=[threshold]).agrees
        assert compare_detections(without[1], found, nms_thresholds=[threshold]).agrees
    assert not compare_detections(found, without[1], nms_thresholds=[0.502]).agrees
    # What suppresses, and what is of another class, must be there.
    for row in (0, 2):
        assert not compare_detections(found, without[row], nms_thresholds=[0.5]).agrees
