"""Compares a detector's results with those of the reference, at the tolerances the project holds itself to.

Tensors before NMS agree at rtol 1e-3, atol 1e-5. Detections match one to one by class and IoU >= 0.99 with
scores within 1e-3, in equal number; only a row whose score lies within 1e-4 of a threshold may be on one side
alone. Masks agree by IoU >= 0.98, keypoints within half a pixel.

Detections are dicts of arrays, numpy's or torch's: "boxes" [N, 4] x0 y0 x1 y1 or [N, 5] rotated, "scores"
[N], "classes" [N] (absent: one class), and, where there are such, "masks" [N, ...] and "keypoints" [N, K, 2
or 3].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

RTOL, ATOL = 1e-3, 1e-5
BOX_IOU = 0.99
SCORE_TOLERANCE = 1e-3
THRESHOLD_MARGIN = 1e-4
MASK_IOU = 0.98
KEYPOINT_PIXELS = 0.5
SAME_CORNER = 1e-3
"""Pixels; for any box but the thinnest it is less than what its overlap may lack."""
ANGLE_DEGREES = 1.0

Arrays = Mapping[str, Any]

_FIELDS = {
    "boxes": ("pred_boxes", "proposal_boxes"),
    "scores": ("scores", "objectness_logits"),
    "classes": ("pred_classes",),
    "masks": ("pred_masks",),
    "keypoints": ("pred_keypoints",),
}


def to_numpy(value: Any) -> np.ndarray:
    value = getattr(value, "tensor", value)
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def detections(instances: Any) -> dict[str, np.ndarray]:
    """The dict of arrays for `Instances`, or for a dict with detectron2's field names."""
    fields = instances if isinstance(instances, Mapping) else instances.get_fields()
    found = {}
    for name, sources in _FIELDS.items():
        for source in sources:
            if source in fields:
                found[name] = to_numpy(fields[source])
    return found


def assert_tensors_close(actual: Any, expected: Any, name: str = "tensor") -> None:
    """Compare tensors from before NMS."""
    got, want = to_numpy(actual), to_numpy(expected)
    assert got.shape == want.shape, f"{name}: shape {got.shape}, expected {want.shape}"
    np.testing.assert_allclose(got, want, rtol=RTOL, atol=ATOL, err_msg=name)


def assert_logits_close(actual: Any, expected: Any, name: str = "logits") -> None:
    """Compare maps of logits as tensors from before NMS; 16 times float32's rounding of the largest is let through too:
    a logit near zero is a sum of terms that are not, and is rounded as they are.
    """
    got, want = to_numpy(actual), to_numpy(expected)
    assert got.shape == want.shape, f"{name}: shape {got.shape}, expected {want.shape}"
    rounding = 16 * np.finfo(np.float32).eps * float(np.abs(want).max(initial=0.0))
    np.testing.assert_allclose(got, want, rtol=RTOL, atol=max(ATOL, rounding), err_msg=name)


def box_iou(boxes1: np.ndarray, boxes2: np.ndarray) -> np.ndarray:
    """[N, M]: intersection over union of upright boxes, in double precision."""
    a, b = boxes1.astype(np.float64).T[:, :, None], boxes2.astype(np.float64).T[:, None, :]
    width = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0])
    height = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1])
    shared = np.clip(width, 0, None) * np.clip(height, 0, None)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / np.maximum(union, 1e-12)


def _similar_boxes(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """[N, M]: IoU, or 0 for rotated boxes that point in different directions."""
    if got.shape[1] == 4:
        # What a box thinner than rounding shares with itself is rounding: corners in the same place are the same box.
        apart = np.abs(got.astype(np.float64).T[:, :, None] - want.T[:, None, :]).max(axis=0)
        return np.where(apart <= SAME_CORNER, 1.0, box_iou(got, want))
    from detc.frontend.detectron2.rotated_ops import pairwise_iou_rotated

    iou = pairwise_iou_rotated(torch.as_tensor(got), torch.as_tensor(want)).numpy()
    turn = (got[:, None, 4] - want[None, :, 4] + 180.0) % 360.0 - 180.0
    return np.where(np.abs(turn) <= ANGLE_DEGREES, iou, 0.0)


def match_detections(
    actual: Arrays,
    expected: Arrays,
    *,
    thresholds: Sequence[float] = (),
    limit: int | None = None,
    what: str = "detections",
) -> list[tuple[int, int]]:
    """Match the rows of two sets of detections one to one, and fail if that is not possible.

    Args:
        actual: what is tested.
        expected: the reference.
        thresholds: scores near which a row may be on one side alone.
        limit: the most detections there can be; where there are so many, the lowest score is a threshold too.
        what: named in failures.

    Returns:
        Pairs of a row of `actual` and its row of `expected`, sorted by the latter.
    """
    got_boxes, want_boxes = to_numpy(actual["boxes"]), to_numpy(expected["boxes"])
    got_scores, want_scores = to_numpy(actual["scores"]), to_numpy(expected["scores"])
    got_classes = to_numpy(actual.get("classes", np.zeros(len(got_scores), np.int64)))
    want_classes = to_numpy(expected.get("classes", np.zeros(len(want_scores), np.int64)))
    assert got_boxes.ndim == 2 and got_boxes.shape[1:] == want_boxes.shape[1:], (
        f"{what}: boxes of shape {got_boxes.shape}, expected {want_boxes.shape}"
    )
    assert len(got_boxes) == len(got_scores) == len(got_classes), f"{what}: fields differ in length"
    similar = (
        _similar_boxes(got_boxes, want_boxes) if len(got_boxes) and len(want_boxes) else np.zeros((0, 0))
    )
    candidates = similar.reshape(len(got_boxes), len(want_boxes)) >= BOX_IOU
    candidates &= got_classes[:, None] == want_classes[None]
    candidates &= np.abs(got_scores[:, None].astype(np.float64) - want_scores[None]) <= SCORE_TOLERANCE
    matched = _maximum_matching(candidates)

    cuts = list(thresholds)
    cuts += [float(s.min()) for s in (got_scores, want_scores) if limit is not None and len(s) >= limit > 0]

    def near_a_cut(score: float) -> bool:
        return any(abs(score - cut) <= THRESHOLD_MARGIN for cut in cuts)

    lost = [j for j in range(len(want_scores)) if j not in matched and not near_a_cut(want_scores[j])]
    rows = set(matched.values())
    extra = [i for i in range(len(got_scores)) if i not in rows and not near_a_cut(got_scores[i])]
    if lost or extra:
        lines = [f"{what}: {len(got_scores)} rows, expected {len(want_scores)}; {len(matched)} match"]
        lines += [
            f"  missing {_row(j, want_boxes, want_scores, want_classes)}{_nearest(similar.T, j)}"
            for j in lost
        ]
        lines += [
            f"  extra   {_row(i, got_boxes, got_scores, got_classes)}{_nearest(similar, i)}" for i in extra
        ]
        raise AssertionError("\n".join(lines[:40]))
    return sorted(((i, j) for j, i in matched.items()), key=lambda pair: pair[1])


def _maximum_matching(candidates: np.ndarray) -> dict[int, int]:
    """A largest set of pairs, as column -> row, by augmenting paths."""
    columns = [np.flatnonzero(row).tolist() for row in candidates]
    matched: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        for column in columns[row]:
            if column not in tried:
                tried.add(column)
                if column not in matched or place(matched[column], tried):
                    matched[column] = row
                    return True
        return False

    # Rows with one candidate first: then hardly any path is longer than one step.
    for row in sorted(range(len(columns)), key=lambda r: len(columns[r])):
        place(row, set())
    return matched


def _row(index: int, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> str:
    box = ", ".join(f"{value:.2f}" for value in boxes[index])
    return f"row {index}: class {classes[index]}, score {scores[index]:.5f}, box [{box}]"


def _nearest(similar: np.ndarray, index: int) -> str:
    if similar.size == 0:
        return ""
    other = int(similar[index].argmax())
    return f" (the nearest of any class is row {other}, IoU {similar[index, other]:.4f})"


def assert_detections_match(
    actual: Arrays,
    expected: Arrays,
    *,
    thresholds: Sequence[float] = (),
    limit: int | None = None,
    what: str = "detections",
) -> list[tuple[int, int]]:
    """`match_detections`, then compare the masks and the keypoints of the matched rows; returns its pairs."""
    pairs = match_detections(actual, expected, thresholds=thresholds, limit=limit, what=what)
    got, want = [i for i, _ in pairs], [j for _, j in pairs]
    for field, check in (("masks", assert_masks_close), ("keypoints", assert_keypoints_close)):
        assert (field in actual) == (field in expected), f"{what}: only one side has {field}"
        if field in expected:
            check(to_numpy(actual[field])[got], to_numpy(expected[field])[want], what=f"{what}: {field}")
    return pairs


def assert_masks_close(actual: Any, expected: Any, *, threshold: float = 0.5, what: str = "masks") -> None:
    """Compare masks, pair by pair, by IoU; probabilities are cut at `threshold`."""
    got, want = to_numpy(actual), to_numpy(expected)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    flat = (len(got), int(np.prod(got.shape[1:])))
    got = (got if got.dtype == bool else got >= threshold).reshape(flat)
    want = (want if want.dtype == bool else want >= threshold).reshape(flat)
    union = (got | want).sum(1)
    iou = np.where(union > 0, (got & want).sum(1) / np.maximum(union, 1), 1.0)
    bad = np.flatnonzero(iou < MASK_IOU)
    assert len(bad) == 0, f"{what}: IoU below {MASK_IOU}: " + ", ".join(
        f"{iou[k]:.4f} of pair {k} ({got[k].sum()} pixels, expected {want[k].sum()})" for k in bad
    )


def assert_keypoints_close(actual: Any, expected: Any, *, what: str = "keypoints") -> None:
    """Compare keypoints [N, K, 2 or 3], pair by pair: x and y in pixels, and scores."""
    got, want = to_numpy(actual), to_numpy(expected)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    distance = np.abs(got[..., :2] - want[..., :2]).max(-1, initial=0.0)
    worst = float(distance.max(initial=0.0))
    assert worst <= KEYPOINT_PIXELS, (
        f"{what}: off by {worst:.3f} pixels at {np.argwhere(distance == worst)[0]}"
    )
    if got.shape[-1] > 2:
        # A keypoint's score is no probability: one between the cells of a sharp heatmap is far above 1.
        off = np.abs(got[..., 2] - want[..., 2]) / np.maximum(want[..., 2], 1.0)
        worst = float(off.max(initial=0.0))
        assert worst <= SCORE_TOLERANCE, f"{what}: scores off by {worst:.5f}"


def assert_probabilities_close(actual: Any, expected: Any, *, what: str = "probabilities") -> None:
    """Compare probabilities of matched detections, such as raw masks [N, 1, M, M], as closely as scores."""
    got, want = to_numpy(actual), to_numpy(expected)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    off = float(np.abs(got - want).max(initial=0.0))
    assert off <= SCORE_TOLERANCE, f"{what}: off by {off:.5f}"


def assert_labels_match(actual: Any, expected: Any, logits: Any, *, what: str = "labels") -> None:
    """Compare label maps [H, W]; pixels may differ where the two labels' logits [K, H, W] are as good as
    equal.
    """
    got, want, values = (
        to_numpy(actual).astype(np.int64),
        to_numpy(expected).astype(np.int64),
        to_numpy(logits),
    )
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    got_logit = np.take_along_axis(values, got[None], 0)[0]
    want_logit = np.take_along_axis(values, want[None], 0)[0]
    wrong = (got != want) & (np.abs(got_logit - want_logit) > ATOL + RTOL * np.abs(want_logit))
    assert not wrong.any(), f"{what}: {wrong.sum()} of {wrong.size} pixels have another label"


def assert_panoptic_match(
    actual: tuple[Any, list[dict[str, Any]]], expected: tuple[Any, list[dict[str, Any]]]
) -> None:
    """Compare panoptic results (map of segment ids, description of the segments): the same segments, in any
    order.
    """
    (got_map, got_segments), (want_map, want_segments) = actual, expected
    got_ids, want_ids = to_numpy(got_map), to_numpy(want_map)
    assert got_ids.shape == want_ids.shape, f"panoptic map: shape {got_ids.shape}, expected {want_ids.shape}"
    assert len(got_segments) == len(want_segments), (
        f"{len(got_segments)} segments, expected {len(want_segments)}"
    )
    left = list(got_segments)
    for segment in want_segments:
        mask = want_ids == segment["id"]
        for other in left:
            mine = got_ids == other["id"]
            iou = (mine & mask).sum() / max((mine | mask).sum(), 1)
            same_kind = all(other[key] == segment[key] for key in ("isthing", "category_id"))
            close = abs(other.get("score", 0.0) - segment.get("score", 0.0)) <= SCORE_TOLERANCE
            if same_kind and close and iou >= MASK_IOU:
                left.remove(other)
                break
        else:
            raise AssertionError(f"no segment matches {segment}")
