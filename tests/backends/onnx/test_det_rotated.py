"""The lowerings of the ops on rotated boxes against the ops' own bodies, and the overlap of two such boxes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from detc.backends.onnx import OnnxRuntimeModel, OpenVinoModel, emit
from detc.backends.onnx.lower.det_rotated_nms import iou
from detc.ir import Builder, Graph
from detc.ir.dialects.rotated_kernels import paired_iou_rotated
from tests.backends.onnx.det_case import Case, H, Inputs, N, R, W, check, f32, i64, info
from tests.backends.onnx.test_det_lowering import joint

CELLS = [[0.0, 0.0, 16.0, 8.0, -60.0], [0.0, 0.0, 24.0, 6.0, 0.0], [0.0, 0.0, 12.0, 12.0, 45.0]]


def boxes(count: int, size: float = 60.0, spread: float = 100.0) -> torch.Tensor:
    """Random boxes, a third of them nearly upright."""
    angle = torch.rand(count, 1) * 500 - 250
    angle[::3] = torch.rand(len(angle[::3]), 1) * 3 - 1.5
    return torch.cat([torch.rand(count, 2) * spread, torch.rand(count, 2) * size + 1, angle], 1)


def rpn(form: str = "anchors") -> Case:
    def build(b, l0, d0, l1, d1, im_info):
        cells = b.constant(CELLS)
        options = {"weights": (1.0, 1.0, 1.0, 1.0, 2.0), "scale_clamp": 4.1, "min_box_size": 2.0}
        limits = {"nms_thresh": 0.6, "pre_nms_topk": 60, "post_nms_topk": 40}
        place = {"strides": (4, 8), "offset": 0.5}
        if form == "grid":
            return b.det.grid_proposals(
                [l0, l1], [d0, d1], [cells, cells], im_info, **place, **options, **limits
            )
        if form == "dense":
            maps = [joint(b, logits, deltas, 5) for logits, deltas in ((l0, d0), (l1, d1))]
            return b.det.dense_proposals(maps, [cells, cells], im_info, **place, **options, **limits)
        anchors = [b.det.anchors(m, cells, stride=s, offset=0.5) for m, s in ((l0, 4), (l1, 8))]
        return b.det.rpn_proposals([l0, l1], [d0, d1], anchors, im_info, **options, **limits)

    def inputs(images: int, height: int, width: int) -> Inputs:
        def level(h: int, w: int, i: int) -> Inputs:
            return {f"l{i}": torch.randn(images, 3, h, w), f"d{i}": torch.randn(images, 15, h, w) * 0.2}

        sizes = info(*[(height * 4.0 - 3, width * 4.0)] * images)
        return {**level(height, width, 0), **level(height // 2, width // 2, 1), "im_info": sizes}

    broken = inputs(2, 8, 8)
    broken["d0"][0, 3, 2, 2] = float("nan")
    broken["d0"][1, 4, 1, 1] = float("inf")
    broken["l1"][0, 1, 1, 1] = float("-inf")
    all_small = inputs(2, 4, 4)
    all_small["d0"][1, [2, 7, 12]] = all_small["d1"][1, [2, 7, 12]] = -5.0  # nothing is 2 pixels wide
    types = {"l0": f32(N, 3, H, W), "d0": f32(N, 15, H, W), "l1": f32(N, 3, H // 2, W // 2)}
    types |= {"d1": f32(N, 15, H // 2, W // 2), "im_info": f32(N, 3)}
    return Case(build, types, [inputs(1, 16, 20), inputs(3, 7, 5), inputs(2, 2, 2), broken, all_small])


def detections(classes: int, agnostic: bool, limit: int) -> Case:
    columns = 5 if agnostic else 5 * classes

    def build(b, deltas, given, scores, batch_index, im_info):
        weights = (10.0, 10.0, 5.0, 5.0, 1.0)
        decoded = b.det.apply_deltas(deltas, given, weights=weights, scale_clamp=4.1)
        options = {"score_thresh": 0.1, "nms_thresh": 0.4, "topk_per_image": limit}
        return b.det.box_inference(decoded, scores, batch_index, im_info, **options)

    def inputs(*rows: int) -> Inputs:
        count = sum(rows)
        return {
            "deltas": torch.randn(count, columns),
            "given": boxes(count),
            "scores": torch.randn(count, classes + 1).mul(2).softmax(1),
            "batch_index": torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(rows)),
            "im_info": info(*[(110.0, 120.0)] * len(rows)),
        }

    broken = inputs(12, 9)
    broken["deltas"][3, 2] = float("nan")
    broken["scores"][15] = float("nan")
    nothing = inputs(8, 8)
    nothing["scores"][:8, :-1] = 0.0  # the first image has only background
    types = {
        "deltas": f32(R, columns),
        "given": f32(R, 5),
        "scores": f32(R, classes + 1),
        "batch_index": i64(R),
    }
    types |= {"im_info": f32(N, 3)}
    return Case(build, types, [inputs(60), inputs(30, 0, 20), inputs(0, 0), broken, nothing])


def pooling(levels: int, sampling_ratio: int) -> Case:
    scales = tuple(0.25 / 2**i for i in range(levels))

    def build(b, given, batch_index, *features):
        return b.det.roi_pool(
            list(features),
            given,
            batch_index,
            output_size=(5, 3),
            scales=scales,
            sampling_ratio=sampling_ratio,
            pooler_type="ROIAlignRotated",
            canonical_box_size=28,
            canonical_level=3,
        )

    def inputs(images: int, rows: int, height: int = 32, width: int = 48) -> Inputs:
        features = {f"f{i}": torch.randn(images, 4, height >> i, width >> i) for i in range(levels)}
        given = boxes(rows, 100, 160)  # some reach beyond the maps
        return {"given": given, "batch_index": torch.randint(0, images, (rows,)), **features}

    without_area = inputs(1, 3, 8, 12)
    without_area["given"][1, 2] = 0.0
    types = {"given": f32(R, 5), "batch_index": i64(R)}
    types |= {f"f{i}": f32(N, 4, H // 2**i, W // 2**i) for i in range(levels)}
    return Case(build, types, [inputs(1, 20), inputs(3, 33, 24, 20), without_area, inputs(2, 0)])


def postprocessing() -> Case:
    def build(b, given, batch_index, im_info, output_size):
        placed = b.det.rescale_boxes(given, batch_index, im_info, output_size)
        clipped = b.det.clip_boxes(given, batch_index, im_info)
        return placed, clipped, b.det.nonempty(placed), b.det.nonempty(placed, threshold=20.0)

    def inputs(images: int, rows: int) -> Inputs:
        given = boxes(rows)
        given[::6, :2] += 500.0  # upright and outside of the image: clipped to nothing
        given[1::6, 4] = torch.tensor([-180.0, -90.0, 0.0, 90.0, 135.0])[: len(given[1::6])]
        return {
            "given": given,
            "batch_index": torch.randint(0, images, (rows,)).sort()[0],
            "im_info": info((200.0, 220.0), (100.0, 90.0))[:images],
            "output_size": torch.tensor([[301, 180], [100, 90]])[:images],
        }

    types = {"given": f32(R, 5), "batch_index": i64(R), "im_info": f32(N, 3), "output_size": i64(N, 2)}
    return Case(build, types, [inputs(1, 30), inputs(2, 25), inputs(1, 0)])


CASES: dict[str, Callable[[], Case]] = {
    "rpn": rpn,
    "detections": lambda: detections(3, False, 17),
    "detections-class-agnostic": lambda: detections(3, True, -1),
    "pooling": lambda: pooling(3, 2),
    "pooling-adaptive": lambda: pooling(3, 0),
    "pooling-adaptive-one-level": lambda: pooling(1, 0),
    "postprocessing": postprocessing,
}


@pytest.mark.parametrize("name", CASES)
def test_lowering_agrees_with_the_body(name):
    check(CASES[name])


def pairs() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Pairs of boxes whose sides cross anywhere, coincide, almost coincide, or only touch."""
    one, two = boxes(4000), boxes(4000)
    swapped, noisy, turned, smaller, shifted = (one.clone() for _ in range(5))
    swapped[:, [2, 3]] = swapped[:, [3, 2]]
    swapped[:, 4] += 90
    noisy += torch.randn_like(noisy) * 1e-4
    turned[:, 4] += torch.randn(len(one))
    smaller[:, 2:4] *= 0.5
    upright = one.clone()
    upright[:, 4] = 0
    shifted[:, 4] = 0
    shifted[:, 0] += shifted[:, 2] / 2
    lattice = [torch.cat([b[:, :4].round(), torch.randint(-4, 4, (len(b), 1)) * 45.0], 1) for b in (one, two)]
    slivers, other_slivers = one.clone(), turned.clone()
    slivers[:, 2:4] = other_slivers[:, 2:4] = torch.tensor([90.0, 0.5])
    large = [boxes(4000, 1500.0, 1000.0) for _ in range(2)]
    far = two.clone()
    far[:, :2] += 1e4
    return {
        "random": (one, two),
        "the same": (one, one),
        "sides swapped": (one, swapped),
        "almost the same": (one, noisy),
        "turned a little": (one, turned),
        "one in the other": (one, smaller),
        "shifted by half": (upright, shifted),
        "lattice": (lattice[0], lattice[1]),
        "slivers": (slivers, other_slivers),
        "large": (large[0], large[1]),
        "far away": (one + torch.tensor([1e4, 1e4, 0, 0, 0]), far),
        "apart": (one, far),
    }


def test_overlap_of_rotated_boxes():
    """In float32, whatever their sides do, the overlap is within 1e-4 of the reference in float64."""
    torch.manual_seed(3)
    graph = Graph("overlap", level="onnx")
    first, second = (graph.add_input(name, f32(R, 5)) for name in ("first", "second"))
    graph.set_outputs({"iou": iou(Builder(graph), first, second)})
    content = emit(graph).to_bytes()
    session, program = OnnxRuntimeModel(content, threads=1), OpenVinoModel(content, threads=2)
    for name, (one, two) in pairs().items():
        wanted = paired_iou_rotated(one, two).numpy()
        feed = {"first": one.numpy(), "second": two.numpy()}
        for runtime, found in (
            ("onnxruntime", session.run(feed)["iou"]),
            ("openvino", program.run(feed)["iou"]),
        ):
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4, err_msg=f"{name}, {runtime}")
