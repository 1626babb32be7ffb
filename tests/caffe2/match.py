"""Matching detections one to one."""

from __future__ import annotations

import numpy as np


def _iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU of f32[n, 4] with f32[m, 4]: f64[n, m]."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    inter = np.clip(high - low, 0, None).prod(-1)
    area1, area2 = ((boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (first, second))
    return inter / (area1[:, None] + area2[None, :] - inter)


def match(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> np.ndarray:
    """For each expected detection the actual one: same class, IoU >= 0.99, score within 1e-3, each used once.

    Both hold `bbox_nms` f32[n, 4], `score_nms` f32[n], `class_nms` f32[n].
    """
    assert actual["bbox_nms"].shape == expected["bbox_nms"].shape
    iou = _iou(expected["bbox_nms"], actual["bbox_nms"])
    fits = (
        (iou >= 0.99)
        & (expected["class_nms"][:, None] == actual["class_nms"][None, :])
        & (np.abs(expected["score_nms"][:, None] - actual["score_nms"][None, :]) <= 1e-3)
    )
    rows = np.where(fits, iou, -1).argmax(1) if len(fits) else np.zeros(0, np.int64)
    assert fits[np.arange(len(rows)), rows].all()
    assert len(set(rows.tolist())) == len(rows)
    return rows
