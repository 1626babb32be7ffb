"""The operators of a region proposal network against the real Caffe2."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .client import RealCaffe2
from .compare import check, check_refused, operator, run_ours, run_real

BOXES = {"rtol": 1e-4, "atol": 1e-3}
"""Coordinates up to a few hundred pixels, after an exponential whose last bits differ."""

AS_EXPORTED: dict[str, Any] = {
    "spatial_scale": 1 / 16,
    "pre_nms_topN": 60,
    "post_nms_topN": 40,
    "nms_thresh": 0.7,
    "min_size": 0.0,
    "angle_bound_on": 1,
    "angle_bound_lo": -180,
    "angle_bound_hi": 180,
    "clip_angle_thresh": 1.0,
    "legacy_plus_one": 0,
}


def _heads(
    images: int, anchors: int, height: int, width: int, *, dim: int = 4, seed: int = 0, spread: float = 0.5
) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    scores = random.normal(size=(images, anchors, height, width))
    deltas = random.normal(size=(images, anchors * dim, height, width)) * spread
    im_info = [
        [height * 16 - 5 * image, width * 16 - 9 * image, 1.0 + 0.5 * image] for image in range(images)
    ]
    half = random.uniform(8, 40, size=(anchors, 2))
    if dim == 4:
        cell = np.concatenate([-half, half], axis=1)
    else:
        cell = np.concatenate(
            [np.zeros_like(half), half * 2, random.uniform(-90, 90, size=(anchors, 1))], axis=1
        )
    im_info = np.array(im_info).reshape(images, 3)
    return [array.astype(np.float32) for array in (scores, deltas, im_info, cell)]


@pytest.mark.parametrize("dim", [4, 5])
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"legacy_plus_one": 1},
        {"min_size": 20.0},
        {"nms_thresh": 0.3},
        {"pre_nms_topN": 0, "post_nms_topN": 0},
        {"pre_nms_topN": 100000, "post_nms_topN": 1},
        {"post_nms_topN": -1},
        {"spatial_scale": 0.03125, "nms_thresh": 1.0},
    ],
)
def test_proposals(real: RealCaffe2, dim: int, images: int, change: dict[str, Any]) -> None:
    rois, _ = check(
        real, "GenerateProposals", _heads(images, 3, 6, 7, dim=dim), AS_EXPORTED | change, outputs=2, **BOXES
    )
    assert len(rois)


def test_defaults(real: RealCaffe2) -> None:
    check(real, "GenerateProposals", _heads(1, 3, 6, 7), outputs=2, **BOXES)
    check(real, "GenerateProposals", _heads(1, 3, 6, 7, dim=5), outputs=2, **BOXES)
    check(real, "GenerateProposalsCPP", _heads(1, 3, 6, 7), AS_EXPORTED, outputs=2, **BOXES)


@pytest.mark.parametrize("seed", range(5))
def test_many_proposals(real: RealCaffe2, seed: int) -> None:
    arguments = AS_EXPORTED | {"pre_nms_topN": 1000, "post_nms_topN": 1000}
    check(real, "GenerateProposals", _heads(1, 3, 30, 40, seed=seed), arguments, outputs=2, **BOXES)


@pytest.mark.parametrize(
    "change",
    [
        {"angle_bound_on": 0},
        {"angle_bound_lo": -90, "angle_bound_hi": 90},
        {"clip_angle_thresh": 30.0},
        {"clip_angle_thresh": -1.0},
        {"clip_angle_thresh": 180.0, "legacy_plus_one": 1},
    ],
)
def test_angles(real: RealCaffe2, change: dict[str, Any]) -> None:
    arguments = AS_EXPORTED | change
    check(real, "GenerateProposals", _heads(2, 3, 6, 7, dim=5, spread=2.0), arguments, outputs=2, **BOXES)


def test_angle_bounds_that_are_refused(real: RealCaffe2) -> None:
    arguments = AS_EXPORTED | {"angle_bound_lo": -100, "angle_bound_hi": 90}
    check_refused(
        real, "GenerateProposals", _heads(1, 3, 6, 7, dim=5), arguments, outputs=2, match="angle bounds"
    )


@pytest.mark.parametrize("legacy", [0, 1])
def test_boxes_outside_of_the_image(real: RealCaffe2, legacy: int) -> None:
    # Clipped, they have no area: of all those Caffe2 keeps the best one.
    heads = _heads(1, 3, 6, 7, spread=6.0)
    rois, _ = check(
        real, "GenerateProposals", heads, AS_EXPORTED | {"legacy_plus_one": legacy}, outputs=2, **BOXES
    )
    width, height = rois[:, 3] - rois[:, 1], rois[:, 4] - rois[:, 2]
    assert (width * height == 0).sum() == 1 or legacy


def test_nothing_is_large_enough(real: RealCaffe2) -> None:
    rois, _ = check(real, "GenerateProposals", _heads(2, 3, 6, 7), AS_EXPORTED | {"min_size": 1e6}, outputs=2)
    assert rois.shape == (0, 5)


@pytest.mark.parametrize("dim", [4, 5])
def test_no_images(real: RealCaffe2, dim: int) -> None:
    rois, scores = check(real, "GenerateProposals", _heads(0, 3, 6, 7, dim=dim), AS_EXPORTED, outputs=2)
    assert (rois.shape, scores.shape) == ((0, dim + 1), (0,))


def test_a_single_cell(real: RealCaffe2) -> None:
    check(real, "GenerateProposals", _heads(1, 1, 1, 1), AS_EXPORTED, outputs=2, **BOXES)


def test_equal_scores_of_few_anchors(real: RealCaffe2) -> None:
    scores, deltas, im_info, anchors = _heads(1, 2, 2, 4)
    scores = np.round(scores)
    check(real, "GenerateProposals", [scores, deltas, im_info, anchors], AS_EXPORTED, outputs=2, **BOXES)


def test_equal_scores_of_many_anchors(real: RealCaffe2) -> None:
    # Caffe2's sort does not say which of equal scores comes first, so the order is not compared, only what is
    # there.
    scores, deltas, im_info, anchors = _heads(1, 3, 20, 20, spread=0.0)
    scores = np.round(scores * 2) / 2
    arguments = AS_EXPORTED | {"pre_nms_topN": 0, "post_nms_topN": 0, "nms_thresh": 1.0}
    op = operator("GenerateProposals", [scores, deltas, im_info, anchors], 2, arguments)
    results = []
    for rois, probabilities in (
        run_real(real, op, [scores, deltas, im_info, anchors]),
        run_ours(op, [scores, deltas, im_info, anchors]),
    ):
        rows = np.concatenate([rois, probabilities[:, None]], axis=1)
        assert (np.diff(probabilities) <= 0).all()
        results.append(rows[np.lexsort(rows.T)])
    np.testing.assert_allclose(results[1], results[0], **BOXES)


def test_shapes_that_are_refused(real: RealCaffe2) -> None:
    scores, deltas, im_info, anchors = _heads(2, 3, 6, 7)
    for inputs, match in (
        ([scores, deltas[:, :8], im_info, anchors], "do not fit"),
        ([scores, deltas, im_info, anchors[:2]], "do not fit"),
        ([scores, deltas, im_info[:1], anchors], "im_info"),
        ([scores[0], deltas, im_info, anchors], "N, A, H, W"),
    ):
        check_refused(real, "GenerateProposals", inputs, AS_EXPORTED, outputs=2, match=match)


def _levels(counts: list[int], images: int = 1, seed: int = 0, tied: bool = False) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    rois, scores = [], []
    for count in counts:
        corner = random.uniform(0, 500, size=(count, 2))
        side = np.exp(random.uniform(0, 7, size=(count, 2)))
        image = np.sort(random.integers(0, images, size=(count, 1)), axis=0)
        rois.append(np.concatenate([image, corner, corner + side], axis=1).astype(np.float32))
        score = random.normal(size=count)
        scores.append((np.round(score) if tied else score).astype(np.float32))
    return rois + scores


COUNTS = [[20, 10, 5, 3, 1], [0, 0, 0, 0, 0], [0, 4, 0, 1, 0], [1, 0, 0, 0, 0], [300, 200, 100, 50, 20]]


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("limit", [10, 0, 100000])
@pytest.mark.parametrize("tied", [False, True])
def test_collecting(real: RealCaffe2, counts: list[int], limit: int, tied: bool) -> None:
    arguments = {"rpn_max_level": 6, "rpn_min_level": 2, "rpn_post_nms_topN": limit}
    check(real, "CollectRpnProposals", _levels(counts, images=2, tied=tied), arguments, rtol=0, atol=0)


def test_collecting_what_does_not_fit(real: RealCaffe2) -> None:
    levels = _levels([3, 2])
    check_refused(real, "CollectRpnProposals", levels, {"rpn_max_level": 4}, match="2 for each of 3")
    check_refused(real, "CollectRpnProposals", levels, {"rpn_max_level": 1}, match="rpn_max_level")
    levels[2] = levels[2][:2]
    check_refused(real, "CollectRpnProposals", levels, {"rpn_max_level": 3}, match="with scores")


DISTRIBUTION = {"roi_canonical_scale": 224, "roi_canonical_level": 4, "roi_max_level": 5, "roi_min_level": 2}


@pytest.mark.parametrize("count", [0, 1, 20, 500])
@pytest.mark.parametrize("columns", [4, 5])
@pytest.mark.parametrize("legacy", [0, 1])
def test_distributing(real: RealCaffe2, count: int, columns: int, legacy: int) -> None:
    rois = _levels([count])[0][:, 5 - columns :]
    arguments = DISTRIBUTION | {"legacy_plus_one": legacy}
    check(real, "DistributeFpnProposals", [rois], arguments, outputs=5, rtol=0, atol=0)


def test_distributing_between_levels(real: RealCaffe2) -> None:
    sides = np.array([0.0, 1.0, 28.0, 56.0, 111.99, 112.0, 112.01, 223.99, 224.0, 224.01, 448.0, 5000.0])
    corner = np.zeros((len(sides), 3))
    rois = np.concatenate([corner, sides[:, None], sides[:, None]], axis=1).astype(np.float32)
    for legacy in (0, 1):
        arguments = DISTRIBUTION | {"legacy_plus_one": legacy}
        check(real, "DistributeFpnProposals", [rois], arguments, outputs=5, rtol=0, atol=0)
    arguments = {"roi_max_level": 3, "roi_min_level": 3, "legacy_plus_one": 0}
    check(real, "DistributeFpnProposals", [rois], arguments, outputs=2, rtol=0, atol=0)


def test_distributing_what_is_refused(real: RealCaffe2) -> None:
    rois = np.array([[0, 10, 10, 5, 20]], dtype=np.float32)
    arguments = DISTRIBUTION | {"legacy_plus_one": 0}
    check_refused(real, "DistributeFpnProposals", [rois], arguments, outputs=5, match="area")
    rotated = np.zeros((3, 6), np.float32)
    check_refused(real, "DistributeFpnProposals", [rotated], arguments, outputs=5, match="4 or 5")


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("legacy", [0, 1])
def test_collecting_and_distributing(real: RealCaffe2, counts: list[int], legacy: int) -> None:
    arguments = DISTRIBUTION | {
        "rpn_max_level": 6,
        "rpn_min_level": 2,
        "rpn_post_nms_topN": 100,
        "legacy_plus_one": legacy,
    }
    levels = _levels(counts, images=2)
    check(real, "CollectAndDistributeFpnRpnProposals", levels, arguments, outputs=6, rtol=0, atol=0)
