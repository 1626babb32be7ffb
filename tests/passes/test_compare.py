"""What counts as the same result, and what does not."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from detc.passes import Mismatch, Reference, Tolerances, compare

BOXES = torch.tensor([[0.0, 0.0, 100.0, 100.0], [200.0, 0.0, 300.0, 50.0], [0.0, 0.0, 100.0, 100.0]])
DETECTIONS = {
    "boxes": BOXES,
    "scores": torch.tensor([0.9, 0.8, 0.5]),
    "classes": torch.tensor([1, 1, 2]),
    "batch_index": torch.tensor([0, 0, 1]),
    "masks": torch.ones(3, 10, 10, dtype=torch.bool),
    "keypoints": torch.zeros(3, 2, 3),
}
GROUP = {name: name for name in DETECTIONS}


def differences(**changed: torch.Tensor) -> Mapping[str, float]:
    expected = Reference(DETECTIONS, [GROUP], [0.5])
    return compare(expected, {**DETECTIONS, **changed}, Tolerances())


def rows(order: list[int]) -> dict[str, torch.Tensor]:
    return {name: tensor[order] for name, tensor in DETECTIONS.items()}


def test_equal_detections_differ_by_nothing() -> None:
    assert set(differences().values()) == {0.0}


def test_the_order_does_not_matter() -> None:
    assert set(differences(**rows([2, 0, 1])).values()) == {0.0}


def test_small_differences_are_measured() -> None:
    found = differences(boxes=BOXES + 0.1, scores=DETECTIONS["scores"] + 5e-4)
    assert found["boxes"] == pytest.approx(0.1, rel=1e-3)
    assert found["scores"] == pytest.approx(5e-4, rel=1e-2)


FAULTS = {
    "a box that moved": ({"boxes": BOXES + 1.0}, "a detection is missing: image 0, class 1, score 0.9000"),
    "another score": ({"scores": torch.tensor([0.9, 0.798, 0.5])}, "a detection is missing"),
    "another class": ({"classes": torch.tensor([1, 0, 2])}, "a detection is missing"),
    "another image": ({"batch_index": torch.tensor([0, 1, 1])}, "a detection is missing"),
    "one too few": (rows([0, 2]), "a detection is missing: image 0, class 1"),
    "one too many": (rows([0, 0, 1, 2]), "a detection should not be there"),
    "fewer scores than boxes": ({"scores": torch.tensor([0.9])}, "1 rows for 3 boxes"),
    "another mask": ({"masks": torch.eye(10).bool().expand(3, 10, 10)}, "have an IoU of 0.1000"),
    "another keypoint": ({"keypoints": torch.full((3, 2, 3), 0.6)}, "0.600 px apart"),
    "masks of another size": ({"masks": torch.ones(3, 9, 9).bool()}, r"torch.bool\[3, 9, 9\], not"),
}


@pytest.mark.parametrize(("changed", "message"), FAULTS.values(), ids=FAULTS)
def test_what_is_not_the_same(changed: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(Mismatch, match=message):
        differences(**changed)


def test_a_detection_at_the_threshold_may_be_there_or_not() -> None:
    # The last score is the threshold itself.
    differences(**rows([0, 1]))
    far = Reference(DETECTIONS, [GROUP], [0.4])
    with pytest.raises(Mismatch):
        compare(far, rows([0, 1]), Tolerances())


def test_no_detections_at_all() -> None:
    none = rows([])
    assert set(compare(Reference(none, [GROUP]), none, Tolerances()).values()) == {0.0}


def test_two_detections_are_not_paired_with_one() -> None:
    twice = {name: torch.cat([tensor, tensor]) for name, tensor in DETECTIONS.items()}
    expected = Reference(twice, [GROUP])
    with pytest.raises(Mismatch, match="missing"):
        compare(expected, DETECTIONS, Tolerances())
    assert set(compare(expected, twice, Tolerances()).values()) == {0.0}


def test_rotated_boxes_and_proposals_without_classes() -> None:
    rotated = {
        "boxes": torch.tensor([[10.0, 10.0, 5.0, 5.0, 30.0]]),
        "scores": torch.tensor([3.0]),
        "batch_index": torch.tensor([0]),
    }
    expected = Reference(rotated, [{name: name for name in rotated}])
    compare(expected, rotated, Tolerances())
    with pytest.raises(Mismatch, match=r"image 0, score 3\.0000"):
        compare(expected, {**rotated, "boxes": rotated["boxes"] + 0.2}, Tolerances())


TENSORS = {
    "another value": (torch.tensor([1.0, 2.1]), "1 of 2 elements, such as 2.1 for 2"),
    "not a number": (torch.tensor([1.0, float("nan")]), "1 of 2 elements, such as nan for 2"),
    "infinite": (torch.tensor([1.0, float("inf")]), "1 of 2 elements"),
    "another shape": (torch.tensor([[1.0, 2.0]]), r"the shape is \[1, 2\], not \[2\]"),
    "another dtype": (torch.tensor([1, 2]), "the dtype is torch.int64, not torch.float32"),
}


@pytest.mark.parametrize(("actual", "message"), TENSORS.values(), ids=TENSORS)
def test_plain_tensors_that_differ(actual: torch.Tensor, message: str) -> None:
    expected = Reference({"out": torch.tensor([1.0, 2.0])}, [])
    with pytest.raises(Mismatch, match=message):
        compare(expected, {"out": actual}, Tolerances())


def test_plain_tensors_that_agree() -> None:
    special = torch.tensor([float("nan"), float("inf"), -1.0])
    assert compare(Reference({"out": special}, []), {"out": special.clone()}, Tolerances()) == {"out": 0.0}
    near = compare(Reference({"out": torch.tensor([2.0])}, []), {"out": torch.tensor([2.001])}, Tolerances())
    assert near["out"] == pytest.approx(1e-3, rel=1e-2)


def test_integers_must_be_equal() -> None:
    with pytest.raises(Mismatch):
        compare(
            Reference({"out": torch.tensor([1000])}, []), {"out": torch.tensor([1001])}, Tolerances(rtol=1)
        )


def test_a_missing_output() -> None:
    with pytest.raises(Mismatch, match="out: it is missing"):
        compare(Reference({"out": torch.zeros(1)}, []), {}, Tolerances())


def test_maps_of_segments_compare_by_their_pixels() -> None:
    ids = torch.zeros(1, 20, 20, dtype=torch.int32)
    ids[:, 10:] = 1
    near, far = ids.clone(), ids.clone()
    near[0, 9, 0], far[0, 9] = 1, 1
    found = compare(Reference({"panoptic": ids}, []), {"panoptic": near}, Tolerances())
    assert found["panoptic"] == pytest.approx(1 / 200)
    with pytest.raises(Mismatch, match=r"the segment 0 of image 0 has an IoU of 0\.9000"):
        compare(Reference({"panoptic": ids}, []), {"panoptic": far}, Tolerances())


def test_rounding_goes_by_the_largest_element() -> None:
    """A sum of terms near 1000 that comes out near 0 has their rounding."""
    expected = torch.tensor([1000.0, 0.0])
    assert compare(Reference({"y": expected}, []), {"y": expected + 0.0018}, Tolerances())["y"] > 0.0017
    with pytest.raises(Mismatch, match="1 of 2 elements"):
        compare(Reference({"y": expected}, []), {"y": expected + 0.002}, Tolerances())
    with pytest.raises(Mismatch, match="1 of 2 elements"):
        compare(Reference({"y": expected / 1000}, []), {"y": expected / 1000 + 2e-5}, Tolerances())
