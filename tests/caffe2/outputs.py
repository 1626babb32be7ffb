"""Comparing what two runtimes made of one net."""

from __future__ import annotations

import numpy as np

from .match import match


def assert_same_outputs(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Every expected blob: detections matched one to one, masks by IoU, other tensors elementwise."""
    assert set(expected) <= set(actual)
    if "bbox_nms" not in expected:
        for blob, value in expected.items():
            # The features reach 30 and more. Near their zeros both runtimes are up to 5e-5 off what float64
            # gives, the real one more than this one, so that 1e-5 can only be asked for in units of their
            # size.
            scale = np.abs(value).max() if blob.startswith("feature_") else 1.0
            np.testing.assert_allclose(actual[blob], value, rtol=1e-3, atol=1e-5 * scale, err_msg=blob)
        return
    rows = match(actual, expected)
    if "mask_fcn_probs" in expected:
        ours, theirs = actual["mask_fcn_probs"][rows] >= 0.5, expected["mask_fcn_probs"] >= 0.5
        both, either = (ours & theirs).sum((2, 3)), (ours | theirs).sum((2, 3))
        classes = expected["class_nms"].astype(int)
        chosen = np.arange(len(rows)), classes
        assert (both[chosen] >= 0.98 * either[chosen]).all()
    if "kps_score" in expected:
        np.testing.assert_allclose(actual["kps_score"][rows], expected["kps_score"], rtol=1e-3, atol=1e-3)
