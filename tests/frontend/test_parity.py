"""The comparison itself: it must see every kind of difference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests import parity

Detections = dict[str, np.ndarray]


def base() -> Detections:
    masks = np.zeros((3, 20, 20), bool)
    masks[:, 5:15, 5:15] = True
    return {
        "boxes": np.array([[0, 0, 50, 50], [100, 0, 140, 60], [10, 10, 12, 90]], np.float32),
        "scores": np.array([0.9, 0.5, 0.0502], np.float32),
        "classes": np.array([0, 1, 0]),
        "masks": masks,
        "keypoints": np.ones((3, 2, 3), np.float32) * 0.5,
    }


def changed(field: str, index: Any, value: Any) -> Detections:
    detections = base()
    detections[field][index] = value
    return detections


def without(row: int) -> Detections:
    return {name: np.delete(values, row, axis=0) for name, values in base().items()}


def reversed_rows() -> Detections:
    return {name: values[::-1] for name, values in base().items()}


@pytest.mark.parametrize(
    "actual",
    [
        base(),
        reversed_rows(),
        changed("boxes", (0, 0), 0.2),
        changed("scores", 1, 0.5009),
        changed("masks", (0, 5, 5), False),
        changed("keypoints", (0, 0, 0), 0.9),
        changed("scores", 2, 0.0498),
    ],
)
def test_what_is_alike_passes(actual: Detections) -> None:
    parity.assert_detections_match(actual, base())
    parity.assert_detections_match(base(), actual)


@pytest.mark.parametrize(
    ("actual", "message"),
    [
        (lambda: changed("boxes", (0, 0), 0.6), "missing row 0"),
        (lambda: changed("scores", 1, 0.502), "extra   row 1: class 1, score 0.50200"),
        (lambda: changed("classes", 1, 2), "2 match"),
        (lambda: without(1), "2 rows, expected 3"),
        (lambda: changed("masks", (2, slice(5, 6)), False), "IoU below 0.98: 0.9000 of pair 2"),
        (lambda: changed("keypoints", (1, 1, 0), 1.1), "off by 0.600 pixels"),
        (lambda: changed("keypoints", (1, 1, 2), 0.51), "scores off by 0.01"),
        (lambda: {k: v for k, v in base().items() if k != "masks"}, "only one side has masks"),
        (lambda: base() | {"boxes": np.zeros((3, 5), np.float32)}, r"boxes of shape \(3, 5\)"),
    ],
)
def test_what_differs_fails(actual: Callable[[], Detections], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        parity.assert_detections_match(actual(), base())


def test_rows_near_a_threshold_may_be_missing() -> None:
    with pytest.raises(AssertionError, match="missing row 2"):
        parity.match_detections(without(2), base(), thresholds=[0.05])  # 0.0502 is too far from it
    assert parity.match_detections(without(2), base(), thresholds=[0.05015]) == [(0, 0), (1, 1)]
    assert parity.match_detections(base(), without(2), limit=3) == [(0, 0), (1, 1)]
    with pytest.raises(AssertionError):
        parity.match_detections(base(), without(1), limit=3)


def test_crowds_are_matched_one_to_one() -> None:
    """A greedy choice would leave a row over: the first row suits both, the second only one."""
    want = {"boxes": np.array([[0, 0, 100, 100], [0, 0, 100, 100.9]]), "scores": np.array([0.5, 0.5])}
    got = {"boxes": np.array([[0, 0, 100, 100.5], [0, 0, 100, 101.8]]), "scores": np.array([0.5, 0.5])}
    assert parity.match_detections(got, want) == [(0, 0), (1, 1)]


def test_rotated_boxes_must_point_the_same_way() -> None:
    one = {"boxes": np.array([[50, 50, 20, 20, 10]], np.float32), "scores": np.array([0.5])}
    parity.match_detections(one, one | {"boxes": one["boxes"] + [[0, 0, 0, 0, 360]]})
    with pytest.raises(AssertionError):  # the same square, turned
        parity.match_detections(one, one | {"boxes": one["boxes"] + [[0, 0, 0, 0, 90]]})


def test_labels_may_differ_where_logits_are_equal() -> None:
    logits = np.array([[[1.0, 1.0]], [[1.0, 0.5]]])
    parity.assert_labels_match([[1, 0]], [[0, 0]], logits)
    with pytest.raises(AssertionError, match="1 of 2 pixels"):
        parity.assert_labels_match([[0, 1]], [[0, 0]], logits)


def test_panoptic_segments() -> None:
    ids = np.zeros((10, 10), np.int32)
    ids[:5], ids[5:] = 1, 2
    thing = {"id": 1, "isthing": True, "category_id": 3, "score": 0.9}
    stuff = {"id": 2, "isthing": False, "category_id": 1, "area": 50}
    renamed = (3 - ids, [stuff | {"id": 1}, thing | {"id": 2}])
    parity.assert_panoptic_match(renamed, (ids, [thing, stuff]))
    for wrong in ([thing], [thing | {"category_id": 0}, stuff], [thing | {"score": 0.8}, stuff]):
        with pytest.raises(AssertionError, match="segment"):
            parity.assert_panoptic_match((ids, wrong), (ids, [thing, stuff]))
    with pytest.raises(AssertionError, match="no segment matches"):
        parity.assert_panoptic_match((3 - ids, [thing, stuff]), (ids, [thing, stuff]))


def test_tensors() -> None:
    parity.assert_tensors_close([1.0, 1e-6], [1.0009, 0.0])
    with pytest.raises(AssertionError):
        parity.assert_tensors_close([1.0], [1.002])
    with pytest.raises(AssertionError, match="shape"):
        parity.assert_tensors_close([1.0], [[1.0]])
