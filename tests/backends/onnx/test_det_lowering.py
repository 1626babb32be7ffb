"""Each det op's lowering against the op's own body: in the interpreter, and as a file in onnxruntime and OpenVINO.

One graph serves all inputs of a case: batches of several sizes, images without a row, rows that are not finite.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from detc.ir import TensorType
from detc.ir.dialects.pooling import assign_levels, level_thresholds
from tests.backends.onnx.det_case import CELLS, Case, H, Inputs, N, R, W, boxes, check, f32, i64, info


def normalize() -> Case:
    def build(b, data, im_info):
        return b.det.normalize(data, im_info, mean=(103.5, 116.25, 123.0), std=(57.0, 1.0, 58.5))

    runs = [
        {"data": torch.rand(2, 3, 33, 65) * 255, "im_info": info((20, 65), (33, 40))},
        {"data": torch.rand(1, 3, 8, 8) * 255, "im_info": info((8, 8))},
    ]
    return Case(build, {"data": f32(N, 3, H, W), "im_info": f32(N, 3)}, runs)


RPN = {"weights": (1.0, 1.0, 1.0, 1.0), "scale_clamp": 4.1, "nms_thresh": 0.7, "min_box_size": 2.0}


def rpn_inputs(images: int, height: int, width: int) -> Inputs:
    def level(h: int, w: int, i: int) -> Inputs:
        return {f"l{i}": torch.randn(images, 3, h, w), f"d{i}": torch.randn(images, 12, h, w) * 0.3}

    sizes = info(*[(height * 4.0 - 3, width * 4.0)] * images)
    return {**level(height, width, 0), **level(height // 2, width // 2, 1), "im_info": sizes}


def joint(b, logits, deltas, columns=4):
    """Maps [N,3,h,w] and [N,3*columns,h,w] as one: for each of three anchors its logit and its deltas."""
    parts = []
    for anchor in range(3):
        parts.append(b.aten.slice.Tensor(logits, dim=1, start=anchor, end=anchor + 1))
        start = columns * anchor
        parts.append(b.aten.slice.Tensor(deltas, dim=1, start=start, end=start + columns))
    return b.aten.cat(parts, dim=1)


def rpn(form: str) -> Case:
    def build(b, l0, d0, l1, d1, im_info):
        cells = b.constant(CELLS)
        limits = {"pre_nms_topk": 60, "post_nms_topk": 40}
        if form == "dense":
            maps = [joint(b, logits, deltas) for logits, deltas in ((l0, d0), (l1, d1))]
            return b.det.dense_proposals(
                maps, [cells, cells], im_info, strides=(4, 8), offset=0.5, **RPN, **limits
            )
        if form == "grid":
            return b.det.grid_proposals(
                [l0, l1], [d0, d1], [cells, cells], im_info, strides=(4, 8), offset=0.5, **RPN, **limits
            )
        anchors = [b.det.anchors(m, cells, stride=s, offset=0.5) for m, s in ((l0, 4), (l1, 8))]
        return b.det.rpn_proposals([l0, l1], [d0, d1], anchors, im_info, **RPN, **limits)

    types = {"l0": f32(N, 3, H, W), "d0": f32(N, 12, H, W), "l1": f32(N, 3, H // 2, W // 2)}
    types |= {"d1": f32(N, 12, H // 2, W // 2), "im_info": f32(N, 3)}
    broken = rpn_inputs(2, 8, 8)
    broken["d0"][0, 3, 2, 2] = float("nan")
    broken["d0"][1, 4, 1, 1] = float("inf")
    broken["l1"][0, 1, 1, 1] = float("-inf")
    everywhere_empty = rpn_inputs(2, 4, 4)
    everywhere_empty["im_info"][1, :2] = 1.0  # nothing in this image is longer than min_box_size
    return Case(
        build,
        types,
        [rpn_inputs(1, 16, 20), rpn_inputs(3, 7, 5), rpn_inputs(2, 2, 2), broken, everywhere_empty],
    )


def single_level_rpn() -> Case:
    def build(b, l0, d0, im_info):
        limits = {"pre_nms_topk": 50, "post_nms_topk": 1000}
        cells = b.constant(CELLS)
        return b.det.grid_proposals([l0], [d0], [cells], im_info, strides=(16,), offset=0.0, **RPN, **limits)

    def inputs(n: int, h: int, w: int) -> Inputs:
        sizes = info(*[(h * 16.0, w * 16.0)] * n)
        return {"l0": torch.randn(n, 3, h, w), "d0": torch.randn(n, 12, h, w) * 0.3, "im_info": sizes}

    types = {"l0": f32(N, 3, H, W), "d0": f32(N, 12, H, W), "im_info": f32(N, 3)}
    return Case(build, types, [inputs(1, 6, 5), inputs(2, 9, 3)])


def detections(classes: int, agnostic: bool, limit: int, threshold: float) -> Case:
    columns = 4 if agnostic else 4 * classes

    def build(b, deltas, given, scores, batch_index, im_info):
        decoded = b.det.apply_deltas(deltas, given, weights=(10.0, 10.0, 5.0, 5.0), scale_clamp=4.1)
        options = {"score_thresh": threshold, "nms_thresh": 0.5, "topk_per_image": limit}
        return b.det.box_inference(decoded, scores, batch_index, im_info, **options)

    def inputs(*rows: int) -> Inputs:
        count = sum(rows)
        return {
            "deltas": torch.randn(count, columns),
            "given": boxes(count),
            "scores": torch.randn(count, classes + 1).mul(2).softmax(1),
            "batch_index": torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(rows)),
            "im_info": info(*[(120.0, 130.0)] * len(rows)),
        }

    broken = inputs(12, 9)
    broken["deltas"][3, 2] = float("nan")
    broken["deltas"][4, 1] = float("inf")
    broken["scores"][15] = float("nan")
    nothing = inputs(8, 8)
    nothing["scores"][:8, :-1] = 0.0  # the first image has only background
    types = {
        "deltas": f32(R, columns),
        "given": f32(R, 4),
        "scores": f32(R, classes + 1),
        "batch_index": i64(R),
    }
    return Case(
        build, {**types, "im_info": f32(N, 3)}, [inputs(50), inputs(30, 0, 20), inputs(0, 0), broken, nothing]
    )


def pooling(levels: int, pooler_type: str, sampling_ratio: int) -> Case:
    scales = tuple(0.25 / 2**i for i in range(levels))

    def build(b, given, batch_index, *features):
        return b.det.roi_pool(
            list(features),
            given,
            batch_index,
            output_size=(7, 5),
            scales=scales,
            sampling_ratio=sampling_ratio,
            pooler_type=pooler_type,
            canonical_box_size=56,
            canonical_level=3,
        )

    def inputs(images: int, rows: int) -> Inputs:
        features = {f"f{i}": torch.randn(images, 4, 32 >> i, 48 >> i) for i in range(levels)}
        return {"given": boxes(rows, 60), "batch_index": torch.randint(0, images, (rows,)), **features}

    types = {"given": f32(R, 4), "batch_index": i64(R)}
    types |= {f"f{i}": f32(N, 4, H // 2**i, W // 2**i) for i in range(levels)}
    return Case(build, types, [inputs(1, 20), inputs(3, 33), inputs(2, 1), inputs(2, 0)])


def masks(classes: int) -> Case:
    def build(b, logits, labels):
        return b.det.mask_inference(logits, labels)

    runs = [
        {"logits": torch.randn(n, classes, 6, 6), "labels": torch.randint(0, classes, (n,))} for n in (5, 0)
    ]
    return Case(build, {"logits": f32(R, classes, 6, 6), "labels": i64(R)}, runs)


def postprocessing() -> Case:
    def build(b, probabilities, given, batch_index, im_info, output_size):
        placed = b.det.rescale_boxes(given, batch_index, im_info, output_size)
        pasted = b.det.paste_masks(probabilities, placed, batch_index, output_size, threshold=0.5)
        return placed, b.det.nonempty(placed), pasted

    def inputs(images: int, rows: int) -> Inputs:
        index = torch.randint(0, images, (rows,)).sort()[0]
        given = boxes(rows)
        given[::4] += 500.0  # outside of the image: clipped to nothing
        return {
            "probabilities": torch.rand(rows, 1, 28, 28),
            "given": given,
            "batch_index": index,
            "im_info": info(*[(200.0, 220.0)] * images),
            "output_size": torch.tensor([[301, 280]] * images),
        }

    types = {
        "probabilities": f32(R, 1, 28, 28),
        "given": f32(R, 4),
        "batch_index": i64(R),
        "im_info": f32(N, 3),
    }
    inside = inputs(1, 6)
    inside["given"] = boxes(6, 50)
    return Case(build, {**types, "output_size": i64(N, 2)}, [inside])


def sem_seg() -> Case:
    def build(b, logits, im_info, output_size):
        return b.det.sem_seg_postprocess(logits, im_info, output_size)

    types = {"logits": f32(N, 3, H, W), "im_info": f32(N, 3), "output_size": i64(N, 2)}
    runs = [
        {
            "logits": torch.randn(1, 3, 32, 64),
            "im_info": info((32, 64)),
            "output_size": torch.tensor([[16, 99]]),
        },
        {
            "logits": torch.randn(3, 3, 32, 64),
            "im_info": info((32, 40), (7, 64), (1, 1)),
            "output_size": torch.tensor([[48, 60], [7, 64], [81, 5]]),
        },
    ]
    return Case(build, types, runs)


def panoptic(limit: float) -> Case:
    def build(b, found, scores, classes, batch_index, logits, output_size):
        thresholds = {"overlap_threshold": 0.6, "stuff_area_limit": limit, "score_threshold": 0.25}
        return b.det.panoptic_combine(found, scores, classes, batch_index, logits, output_size, **thresholds)

    def inputs(rows: list[int], sizes: list[list[int]]) -> Inputs:
        count, height, width = sum(rows), *torch.tensor(sizes).amax(0).tolist()
        corner = torch.rand(count, 2) * torch.tensor([height, width]) * 0.7
        y, x = torch.arange(height)[:, None, None], torch.arange(width)[:, None]
        place = torch.cat([y.expand(height, width, 1), x.expand(height, width, 1)], dim=2)
        extent = torch.rand(count, 1, 1, 2) * 30 + 3
        batch_index = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(rows))
        own = torch.tensor(sizes)[batch_index][:, None, None]
        from_corner = place - corner[:, None, None]
        inside = (from_corner >= 0) & (from_corner < extent) & (place < own)
        coarse = torch.randn(len(rows), 4, height // 8 + 1, width // 8 + 1)
        logits = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
        return {
            "found": inside.all(dim=-1),
            "scores": torch.rand(count),
            "classes": torch.randint(0, 5, (count,)),
            "batch_index": batch_index,
            "logits": logits,
            "output_size": torch.tensor(sizes),
        }

    types = {
        "found": TensorType(torch.bool, (R, H, W)),
        "scores": f32(R),
        "classes": i64(R),
        "batch_index": i64(R),
        "logits": f32(N, 4, H, W),
        "output_size": i64(N, 2),
    }
    covered = inputs([3], [[40, 50]])
    covered["found"][:] = True  # nothing is left after the first, and nothing for stuff
    empty = inputs([4, 3], [[33, 20], [20, 47]])
    empty["found"][::2] = False
    poor = inputs([5], [[31, 31]])
    poor["scores"][:] = 0.1
    runs = [
        inputs([12], [[40, 50]]),
        inputs([20, 0, 9], [[40, 50], [64, 30], [16, 57]]),
        inputs([0, 0], [[9, 8]] * 2),
    ]
    return Case(build, types, [*runs, covered, empty, poor])


def box_points() -> Case:
    def build(b, fine, coarse, given, batch_index, points):
        return b.det.box_point_sample([fine, coarse], given, batch_index, points, scales=(0.25, 0.125))

    def inputs(*rows: int) -> Inputs:
        count = sum(rows)
        return {
            "fine": torch.randn(len(rows), 3, 16, 24),
            "coarse": torch.randn(len(rows), 5, 8, 12),
            "given": boxes(count, 60.0),
            "batch_index": torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(rows)),
            "points": torch.rand(count, 10, 2),
        }

    types = {"fine": f32(N, 3, H, W), "coarse": f32(N, 5, H // 2, W // 2), "given": f32(R, 4)}
    types |= {"batch_index": i64(R), "points": f32(R, 10, 2)}
    return Case(build, types, [inputs(4), inputs(3, 0, 5), inputs(0, 0), inputs(0, 1)])


def subdivision(classes: int) -> Case:
    """What PointRend does in a step, on maps of a size known ahead, and on some of any size."""

    def build(b, logits, labels, region):
        own = b.det.class_logits(logits, labels)
        indices, points = b.det.uncertain_points(b.aten.neg(b.aten.abs(own)), num_points=20)
        values = b.det.class_logits(b.det.point_sample(region, points), labels)
        return b.det.put_points(own, indices, values), points

    def inputs(count: int) -> Inputs:
        return {
            "logits": torch.randn(count, classes, 8, 6),
            "labels": torch.randint(0, classes, (count,)),
            "region": torch.randn(count, classes, 5, 7),
        }

    types = {"logits": f32(R, classes, 8, 6), "labels": i64(R), "region": f32(R, classes, 5, 7)}
    return Case(build, types, [inputs(4), inputs(1), inputs(0)])


def subdivision_of_images() -> Case:
    def build(b, logits, coarse):
        uncertainty = b.aten.amax(logits, dim=(1,), keepdim=True)
        indices, points = b.det.uncertain_points(uncertainty, num_points=30)
        return b.det.put_points(logits, indices, b.det.point_sample(coarse, points)), points

    types = {"logits": f32(N, 3, H, W), "coarse": f32(N, 3, H // 2, W // 2)}
    sizes = ((1, 8, 12), (3, 4, 6), (2, 2, 2))  # of the last all points are chosen
    runs = [
        {"logits": torch.randn(n, 3, h, w), "coarse": torch.randn(n, 3, h // 2, w // 2)} for n, h, w in sizes
    ]
    return Case(build, types, runs)


CASES: dict[str, Callable[[], Case]] = {
    "normalize": normalize,
    "rpn": lambda: rpn("anchors"),
    "rpn-grid": lambda: rpn("grid"),
    "rpn-dense": lambda: rpn("dense"),
    "rpn-one-level": single_level_rpn,
    "detections": lambda: detections(5, False, 17, 0.05),
    "detections-class-agnostic": lambda: detections(5, True, 17, 0.05),
    "detections-one-class": lambda: detections(1, False, 17, 0.3),
    "detections-unlimited": lambda: detections(3, False, -1, 0.05),
    "pooling-v2": lambda: pooling(3, "ROIAlignV2", 0),
    "pooling-v1-two-samples": lambda: pooling(3, "ROIAlign", 2),
    "pooling-one-level": lambda: pooling(1, "ROIAlignV2", 0),
    "masks": lambda: masks(3),
    "masks-class-agnostic": lambda: masks(1),
    "postprocessing": postprocessing,
    "semantic": sem_seg,
    "panoptic": lambda: panoptic(30.0),
    "panoptic-any-stuff": lambda: panoptic(0.0),
    "box-points": box_points,
    "subdivision": lambda: subdivision(3),
    "subdivision-class-agnostic": lambda: subdivision(1),
    "subdivision-of-images": subdivision_of_images,
}


@pytest.mark.parametrize("name", CASES)
def test_lowering_agrees_with_the_body(name):
    check(CASES[name])


@pytest.mark.parametrize(("size", "level"), [(224, 4), (112, 4), (56, 3)])
def test_level_thresholds_are_exact(size, level):
    """Comparing areas with the thresholds gives the reference's level for boxes around every threshold."""
    scales = (0.25, 0.125, 0.0625, 0.03125)
    thresholds = torch.tensor(level_thresholds(scales, size, level))
    bits = thresholds.view(torch.int32)
    areas = torch.cat([(bits + step).view(torch.float32) for step in range(-4, 5)])
    given = torch.stack(
        [torch.zeros_like(areas), torch.zeros_like(areas), torch.ones_like(areas), areas], dim=1
    )
    expected = assign_levels(given, scales, size, level)
    assert torch.equal((areas[:, None] >= thresholds).sum(dim=1), expected)
