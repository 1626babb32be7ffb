"""The lowerings of dense inference and of keypoints against the ops' own bodies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.backends.onnx.det_case import CELLS, Case, H, Inputs, N, R, W, boxes, check, f32, i64, info


def dense(regression: str, cells: int, classes: int, levels: int = 2, threshold: float = 0.3) -> Case:
    def build(b, *maps):
        scores, deltas = maps[:levels], maps[levels:]
        given = b.constant(CELLS[:cells])
        placed = [b.det.anchors(m, given, stride=4 * 2**i, offset=0.5) for i, m in enumerate(deltas)]
        options = {"weights": (10.0, 10.0, 5.0, 5.0), "scale_clamp": 4.1} if regression == "deltas" else {}
        limits = {"topk_candidates": 60, "nms_thresh": 0.5, "topk_per_image": 25}
        return b.det.dense_inference(
            list(scores),
            list(deltas),
            placed,
            regression=regression,
            score_thresh=threshold,
            **options,
            **limits,
        )

    def inputs(n: int, h: int, w: int) -> Inputs:
        scores = {f"s{i}": torch.rand(n, cells * classes, h >> i, w >> i) for i in range(levels)}
        return scores | {f"d{i}": torch.randn(n, cells * 4, h >> i, w >> i) for i in range(levels)}

    types = {f"s{i}": f32(N, cells * classes, H // 2**i, W // 2**i) for i in range(levels)}
    types |= {f"d{i}": f32(N, cells * 4, H // 2**i, W // 2**i) for i in range(levels)}
    one_empty, all_empty = inputs(2, 8, 6), inputs(1, 4, 4)
    for level in range(levels):
        one_empty[f"s{level}"][0] = threshold  # not above it
        all_empty[f"s{level}"][:] = threshold - 0.2
    return Case(build, types, [inputs(1, 16, 12), inputs(3, 7, 5), one_empty, all_empty])


def keypoints(count: int, side: int) -> Case:
    def build(b, heatmaps, given, batch_index, im_info, output_size):
        found = b.det.keypoint_inference(heatmaps, given)
        return found, b.det.rescale_keypoints(found, batch_index, im_info, output_size)

    def inputs(rows: int, images: int, size: float) -> Inputs:
        return {
            "heatmaps": torch.randn(rows, count, side, side),
            "given": boxes(rows, size),
            "batch_index": torch.arange(rows) * images // max(rows, 1),
            "im_info": info((100.0, 120.0), (90.0, 60.0), (70.0, 70.0))[:images],
            "output_size": torch.tensor([[150, 240], [33, 61], [70, 70]])[:images],
        }

    odd = inputs(6, 2, 20.0)
    odd["given"][0, 2:] = odd["given"][0, :2]  # without area
    odd["given"][1, 2] = odd["given"][1, 0] + 0.3  # less than a pixel wide
    odd["given"][2] = torch.tensor([5.25, 7.5, 260.0, 9.0])
    odd["heatmaps"][3, :, 0, 0] = 20.0  # highest in a corner
    odd["heatmaps"][4] *= 30.0
    types = {"heatmaps": f32(R, count, side, side), "given": f32(R, 4), "batch_index": i64(R)}
    types |= {"im_info": f32(N, 3), "output_size": i64(N, 2)}
    return Case(build, types, [inputs(5, 3, 60.0), inputs(1, 1, 15.0), odd, inputs(0, 2, 9.0)])


CASES: dict[str, Callable[[], Case]] = {
    "dense": lambda: dense("deltas", 3, 4),
    "dense-distances": lambda: dense("distances", 1, 3),
    "dense-scaled-distances-one-class": lambda: dense("scaled_distances", 1, 1),
    "dense-one-level-two-anchors": lambda: dense("deltas", 2, 2, levels=1, threshold=-1.0),
    "keypoints": lambda: keypoints(3, 14),
    "keypoints-one": lambda: keypoints(1, 9),
}


@pytest.mark.parametrize("name", CASES)
def test_lowering_agrees_with_the_body(name):
    check(CASES[name])
