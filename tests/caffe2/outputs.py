"""Comparing what two runtimes made of one net."""

from __future__ import annotations

import numpy as np

from tests.parity import assert_keypoints_close, match_detections

_PER_DETECTION = {
    *("bbox_nms", "score_nms", "class_nms", "batch_index", "mask_fcn_probs", "kps_score", "keypoints_out"),
    *("boxes", "scores"),
}


def assert_same_outputs(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Every expected blob: detections matched one to one, masks by IoU, other tensors elementwise."""
    assert set(expected) <= set(actual)
    for blob in expected.keys() - _PER_DETECTION:
        # Features reach 30 and more, and logits that are sums of them. Near their zeros both runtimes are up to
        # 5e-5 off what float64 gives, the real one more than this one, so that 1e-5 can only be asked for in
        # units of their size.
        value = expected[blob]
        scale = max(1.0, np.abs(value).max()) if blob.startswith("feature_") or blob == "sem_seg" else 1.0
        np.testing.assert_allclose(actual[blob], value, rtol=1e-3, atol=1e-5 * scale, err_msg=blob)
    if "boxes" in expected:
        _assert_same_proposals(actual, expected)
    if "bbox_nms" in expected:
        _assert_same_detections(actual, expected)


def _assert_same_proposals(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    names = {"boxes": "boxes", "scores": "scores"}
    _match(actual, expected, names)


def _match(
    actual: dict[str, np.ndarray], expected: dict[str, np.ndarray], names: dict[str, str]
) -> list[int]:
    """For each expected row the actual one: same class, IoU >= 0.99, score within 1e-3, each used once."""
    mine, theirs = ({role: side[blob] for role, blob in names.items()} for side in (actual, expected))
    pairs = match_detections(mine, theirs)
    return [row for row, _ in pairs]


def _assert_same_detections(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    rows = _match(actual, expected, {"boxes": "bbox_nms", "scores": "score_nms", "classes": "class_nms"})
    if "mask_fcn_probs" in expected:
        ours, theirs = actual["mask_fcn_probs"][rows] >= 0.5, expected["mask_fcn_probs"] >= 0.5
        both, either = (ours & theirs).sum((2, 3)), (ours | theirs).sum((2, 3))
        # A map of one class stands for all.
        classes = expected["class_nms"].astype(int) * (theirs.shape[1] > 1)
        chosen = np.arange(len(rows)), classes
        assert (both[chosen] >= 0.98 * either[chosen]).all()
    if "kps_score" in expected:
        np.testing.assert_allclose(actual["kps_score"][rows], expected["kps_score"], rtol=1e-3, atol=1e-3)
    if "keypoints_out" in expected:
        found, wanted = (side["keypoints_out"].transpose(0, 2, 1) for side in (actual, expected))
        assert_keypoints_close(found[rows][..., :2], wanted[..., :2])
        np.testing.assert_allclose(found[rows][..., 2:], wanted[..., 2:], rtol=1e-3, atol=1e-3)
