"""Operators and layers against independent computations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import batched_nms, roi_align

from detc.frontend.detectron2.anchors import DefaultAnchorGenerator, RotatedAnchorGenerator
from detc.frontend.detectron2.box_regression import (
    Box2BoxTransform,
    Box2BoxTransformLinear,
    Box2BoxTransformRotated,
)
from detc.frontend.detectron2.keypoint_head import heatmaps_to_keypoints
from detc.frontend.detectron2.layers import (
    CycleBatchNormList,
    FrozenBatchNorm2d,
    NaiveSyncBatchNorm,
    get_norm,
)
from detc.frontend.detectron2.point_head import ImplicitPointHead
from detc.frontend.detectron2.poolers import ROIPooler, assign_boxes_to_levels
from detc.frontend.detectron2.postprocess import detector_postprocess, paste_masks_in_image
from detc.frontend.detectron2.rotated_ops import (
    batched_nms_rotated,
    nms_rotated,
    pairwise_iou_rotated,
    roi_align_rotated,
)
from detc.frontend.errors import InputError
from detc.ir.structures import Boxes, Instances


def corners(box: np.ndarray) -> np.ndarray:
    x, y, width, height, angle = box.astype(np.float64)
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    points = [(-width, -height), (width, -height), (width, height), (-width, height)]
    # Counter-clockwise as seen, with y pointing down.
    return np.array([(x + (cos * u + sin * v) / 2, y + (cos * v - sin * u) / 2) for u, v in points])


def cross(a: np.ndarray, b: np.ndarray) -> float:
    return float(a[0] * b[1] - a[1] * b[0])


def clipped_area(subject: np.ndarray, clip: np.ndarray) -> float:
    """The area two convex polygons share, by cutting one along the other's sides (Sutherland and Hodgman)."""
    polygon = list(subject)
    for start, end in zip(clip, np.roll(clip, -1, axis=0), strict=True):
        cut = []
        for p, q in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            side_p, side_q = cross(end - start, p - start), cross(end - start, q - start)
            if side_p >= 0:
                cut.append(p)
            if side_p * side_q < 0:
                cut.append(p + (q - p) * side_p / (side_p - side_q))
        polygon = cut
        if not polygon:
            return 0.0
    return abs(sum(cross(p, q) for p, q in itertools.pairwise([*polygon, polygon[0]]))) / 2


def reference_iou(a: np.ndarray, b: np.ndarray) -> float:
    shared = clipped_area(corners(a), corners(b))
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def random_rotated(count: int, seed: int, spread: float = 40.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand((count, 5), generator=generator)
    scale = torch.tensor([spread, spread, 30.0, 20.0, 720.0])
    return numbers * scale + torch.tensor([0.0, 0.0, 1.0, 1.0, -360.0])


def test_rotated_iou_of_random_boxes() -> None:
    one, two = random_rotated(25, 0), random_rotated(30, 1)
    iou = pairwise_iou_rotated(one, two)
    expected = [[reference_iou(a, b) for b in two.numpy()] for a in one.numpy()]
    assert (iou > 0).any() and (iou == 0).any()
    torch.testing.assert_close(iou, torch.tensor(expected, dtype=torch.float32), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ([5, 5, 4, 2, 30], [5, 5, 4, 2, 30], 1.0),
        ([5, 5, 4, 2, 30], [5, 5, 4, 2, 390], 1.0),
        ([5, 5, 4, 2, 30], [5, 5, 2, 4, 120], 1.0),
        ([5, 5, 4, 4, 0], [5, 5, 4, 4, 45], 2 * (math.sqrt(2) - 1) / (2 - 2 * (math.sqrt(2) - 1))),
        ([5, 5, 10, 10, 0], [5, 5, 2, 3, 20], 0.06),
        ([0, 0, 2, 2, 0], [2, 0, 2, 2, 0], 0.0),
        ([0, 0, 2, 2, 0], [1, 0, 2, 2, 0], 1 / 3),
        ([0, 0, 0, 2, 0], [0, 0, 2, 2, 0], 0.0),
        ([1e4, 1e4, 4, 2, 10], [1e4, 1e4, 4, 2, 10], 1.0),
        ([0, 0, 100, 0.5, 0], [0, 0, 100, 0.5, 90], 0.25 / 99.75),
    ],
)
def test_rotated_iou_of_special_pairs(one: list[float], two: list[float], expected: float) -> None:
    for a, b in ((one, two), (two, one)):
        (iou,) = pairwise_iou_rotated(torch.tensor([a]), torch.tensor([b])).flatten().tolist()
        assert iou == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_rotated_nms(threshold: float) -> None:
    boxes = random_rotated(120, 2, spread=60.0)
    boxes[60:] = boxes[:60] + 0.02 * random_rotated(60, 6)  # many nearly the same
    scores = torch.rand(120, generator=torch.Generator().manual_seed(3))
    iou = pairwise_iou_rotated(boxes, boxes)
    kept: list[int] = []
    for index in scores.argsort(descending=True).tolist():
        if all(iou[other, index] < threshold for other in kept):
            kept.append(index)
    assert nms_rotated(boxes, scores, threshold).tolist() == kept
    assert 1 < len(kept) < 120


def test_rotated_nms_of_upright_boxes_is_nms() -> None:
    boxes = random_rotated(200, 4, spread=80.0)
    boxes[:, 4] = 0
    scores = torch.rand(200, generator=torch.Generator().manual_seed(5))
    groups = torch.arange(200) % 3
    sides = boxes[:, 2:4] / 2
    upright = torch.cat((boxes[:, :2] - sides, boxes[:, :2] + sides), dim=1)
    expected = batched_nms(upright, scores, groups, 0.4)
    assert batched_nms_rotated(boxes, scores, groups, 0.4).tolist() == expected.tolist()


def test_rotated_nms_of_nothing() -> None:
    empty = torch.zeros((0, 5))
    assert nms_rotated(empty, torch.zeros(0), 0.5).shape == (0,)
    assert batched_nms_rotated(empty, torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.5).shape == (0,)
    assert pairwise_iou_rotated(empty, random_rotated(3, 0)).shape == (0, 3)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_rotated_roi_align(sampling_ratio: int) -> None:
    features = torch.rand((2, 3, 20, 24), generator=torch.Generator().manual_seed(0))
    rois = torch.tensor(
        [
            [0, 30.0, 40, 24, 16, 0],
            [1, 90.0, 20, 60, 70, 0],  # beyond the border
            [1, 10.0, 10, 3, 2, 0],
            [0, 50.0, 30, 0, 5, 0],  # without area
        ]
    )
    sides = rois[:, 3:5] / 2
    upright = torch.cat((rois[:, :1], rois[:, 1:3] - sides, rois[:, 1:3] + sides), dim=1)

    def pool(features: torch.Tensor, rois: torch.Tensor, size: tuple[int, int] = (5, 7)) -> torch.Tensor:
        return roi_align_rotated(features, rois, size, 0.25, sampling_ratio)

    expected = roi_align(features, upright, (5, 7), 0.25, sampling_ratio, aligned=True)
    torch.testing.assert_close(pool(features, rois), expected, rtol=1e-4, atol=1e-5)

    def turned(angle: float) -> torch.Tensor:
        return torch.cat((rois[:, :5], torch.full((len(rois), 1), angle)), dim=1)

    half = pool(features, turned(180.0))
    torch.testing.assert_close(half, expected.flip(2, 3), rtol=1e-3, atol=1e-4)
    # A region turned by 90 degrees in an image is an upright one in the image turned back, about the same
    # point.
    image_width = 24 / 0.25
    back = features.rot90(-1, dims=(2, 3))  # clockwise: (x, y) goes to (height - y, x)
    moved = turned(0.0)
    moved[:, 1], moved[:, 2] = 20 / 0.25 - rois[:, 2], rois[:, 1]
    assert image_width == 96
    torch.testing.assert_close(pool(features, turned(90.0)), pool(back, moved), rtol=1e-3, atol=1e-4)


def test_levels_of_boxes() -> None:
    sides = [1.0, 111.9, 112.0, 223.0, 224.0, 447.0, 448.0, 5000.0, 0.0]
    boxes = Boxes([[0, 0, side, side] for side in sides])
    levels = assign_boxes_to_levels([boxes], 2, 5, 224, 4)
    assert levels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 0]


def test_pooler_takes_each_box_from_its_level() -> None:
    features = [torch.full((2, 1, 64 // 2**k, 64 // 2**k), float(k)) for k in range(3)]
    pooler = ROIPooler(3, [1 / 4, 1 / 8, 1 / 16], 0, "ROIAlignV2", canonical_box_size=32, canonical_level=3)
    boxes = [Boxes([[8, 8, 72, 72], [8, 8, 18, 18]]), Boxes([[9, 9, 49, 49]])]
    pooled = pooler(features, boxes)
    assert pooled.shape == (3, 1, 3, 3) and pooled.mean((1, 2, 3)).tolist() == [2, 0, 1]
    assert pooler(features, [Boxes([]), Boxes([])]).shape == (0, 1, 3, 3)
    with pytest.raises(ValueError, match="images"):
        pooler(features, boxes[:1])


def test_anchors() -> None:
    generator = DefaultAnchorGenerator(
        sizes=[[8], [16]], aspect_ratios=[[0.5, 2.0]], strides=[4, 8], offset=0.5
    )
    fine, coarse = generator([torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 1, 2)])
    assert generator.num_anchors == [2, 2] and len(fine) == 12 and len(coarse) == 4
    width, height = 8 * math.sqrt(2), 8 / math.sqrt(2)
    # Row 1, column 2 of the grid, the wide anchor: cells row by row, anchors within.
    expected = torch.tensor([10 - width / 2, 6 - height / 2, 10 + width / 2, 6 + height / 2])
    torch.testing.assert_close(fine.tensor[2 * (1 * 3 + 2)], expected)
    rotated = RotatedAnchorGenerator(
        sizes=[8], aspect_ratios=[1.0], strides=[4], angles=[-45, 45], offset=0.0
    )
    (boxes,) = rotated([torch.zeros(1, 1, 2, 2)])
    assert boxes.tensor[-1].tolist() == [4, 4, 8, 8, 45]
    assert list(rotated.state_dict()) == []


def test_box_transforms() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 20]])
    deltas = torch.tensor([[1.0, 2, math.log(2), 100, 0, 0, 0, 0]])
    moved = Box2BoxTransform((1.0, 2.0, 1.0, 1.0)).apply_deltas(deltas, boxes)
    tall = 20 * 62.5  # clamped
    expected = [5.0, 30 - tall / 2, 25.0, 30 + tall / 2, 0, 0, 10, 20]
    torch.testing.assert_close(moved, torch.tensor([expected]))
    turned = Box2BoxTransformRotated((1.0, 1.0, 1.0, 1.0, 2.0)).apply_deltas(
        torch.tensor([[0.5, 0, math.log(2), 0, math.pi]]), torch.tensor([[10.0, 10, 4, 2, 100]])
    )
    torch.testing.assert_close(turned, torch.tensor([[12.0, 10, 8, 2, -170]]))
    linear = Box2BoxTransformLinear().apply_deltas(torch.tensor([[1.0, 0.5, -3, 2]]), boxes)
    torch.testing.assert_close(linear, torch.tensor([[-5.0, 0, 5, 50]]))


def test_pasted_masks() -> None:
    ones = torch.ones(2, 7, 7)
    boxes = Boxes([[2, 3, 9, 8], [-4, 5, 4, 30]])  # the second reaches beyond the image
    pasted = paste_masks_in_image(ones, boxes, (10, 12))
    assert pasted.dtype == torch.bool and pasted.shape == (2, 10, 12)
    expected = torch.zeros(2, 10, 12, dtype=torch.bool)
    expected[0, 3:8, 2:9] = True
    expected[1, 5:, :4] = True
    assert torch.equal(pasted, expected)
    soft = paste_masks_in_image(ones, boxes, (10, 12), threshold=-1)
    assert soft.dtype == torch.uint8 and soft.max() == 255
    assert paste_masks_in_image(torch.zeros(0, 7, 7), torch.zeros(0, 4), (10, 12)).shape == (0, 10, 12)
    # Bilinear: between the centres of a full and an empty cell the probability is one half.
    half = torch.zeros(1, 2, 2)
    half[0, :, 0] = 1.0
    values = paste_masks_in_image(half, torch.tensor([[0.0, 0, 8, 8]]), (8, 8), threshold=-1)[0, 4] / 255
    expected_row = torch.tensor([1 - (x - 2) / 4 for x in np.arange(0.5, 8)]).clamp(0, 1)
    torch.testing.assert_close(values[2:6], expected_row[2:6].float(), rtol=0, atol=0.01)


def test_postprocess_scales_and_drops() -> None:
    raw = Instances(
        (10, 20),
        pred_boxes=Boxes([[2.0, 2, 8, 6], [30, 3, 40, 4]]),  # the second lies outside
        scores=torch.tensor([0.9, 0.8]),
        pred_keypoints=torch.ones(2, 3, 3),
    )
    scaled = detector_postprocess(raw, 20, 60)
    assert scaled.image_size == (20, 60) and len(scaled) == 1
    assert scaled.pred_boxes.tensor.tolist() == [[6, 4, 24, 12]]
    assert scaled.pred_keypoints[0, 0].tolist() == [3, 2, 1]
    assert raw.pred_boxes.tensor[0].tolist() == [2, 2, 8, 6] and raw.pred_keypoints.max() == 1


def test_keypoints_from_heatmaps() -> None:
    maps = torch.zeros(2, 1, 4, 4)
    maps[0, 0, 1, 2] = maps[1, 0, 3, 0] = 9.0
    rois = torch.tensor([[10.0, 20, 50, 60], [0, 0, 0.25, 0.25]])  # 40 pixels, and less than one
    first, second = heatmaps_to_keypoints(maps, rois)
    x, y, logit, score = first[0].tolist()
    assert abs(x - (10 + 25)) <= 0.51 and abs(y - (20 + 15)) <= 0.51
    assert logit == pytest.approx(9.0, rel=0.2)
    assert score == pytest.approx(1 / (math.exp(9 - logit) + 15 * math.exp(-logit)), rel=1e-4)
    assert second[0, :2].tolist() == [0.5, 0.5]
    assert heatmaps_to_keypoints(torch.zeros(0, 3, 4, 4), torch.zeros(0, 4)).shape == (0, 3, 4)


@pytest.mark.parametrize("name", ["BN", "SyncBN", "FrozenBN", "naiveSyncBN", "naiveSyncBN_N", "nnSyncBN"])
def test_batch_norms_are_alike_at_inference(name: str) -> None:
    reference = nn.BatchNorm2d(32).eval()
    for tensor in (*reference.parameters(), reference.running_mean, reference.running_var):
        nn.init.uniform_(tensor, 0.5, 2.0)
    norm = get_norm(name, 32)
    assert norm is not None
    norm.eval().load_state_dict(reference.state_dict(), strict=name != "FrozenBN")
    x = torch.rand(2, 32, 3, 4)
    torch.testing.assert_close(norm(x), reference(x))


def test_other_norms() -> None:
    x = torch.rand(2, 64, 3, 4)
    layer = get_norm("LN", 64)
    assert layer is not None
    expected = torch.nn.functional.layer_norm(x.permute(0, 2, 3, 1), (64,), eps=1e-6).permute(0, 3, 1, 2)
    torch.testing.assert_close(layer(x), expected)
    group = get_norm("GN", 64)
    assert isinstance(group, nn.GroupNorm) and group.num_groups == 32
    assert get_norm("", 64) is None and get_norm(None, 64) is None
    assert isinstance(get_norm(nn.BatchNorm2d, 64), nn.BatchNorm2d)
    with pytest.raises(InputError, match="33 channels"):
        get_norm("GN", 33)


def test_freezing_keeps_names_and_results() -> None:
    block = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), NaiveSyncBatchNorm(8)).eval()
    names, x = set(block.state_dict()), torch.rand(1, 3, 2, 2)
    expected = block(x)
    assert FrozenBatchNorm2d.convert_frozen_batchnorm(block) is block
    assert all(isinstance(layer, FrozenBatchNorm2d) for layer in block[1:])
    assert set(block.state_dict()) == names
    torch.testing.assert_close(block(x), expected)


def test_cycled_norms() -> None:
    norms = CycleBatchNormList(3, num_features=4).eval()
    for level, norm in enumerate(norms):
        norm.running_mean.fill_(level)
    x = torch.zeros(1, 4, 2, 2)
    means = [norms(x).mean().item() for _ in range(4)]
    assert means == pytest.approx([0, -1, -2, 0], abs=1e-4)
    norms.rewind()
    assert norms(x).mean().item() == pytest.approx(0)
    assert {"weight", "bias", "0.running_mean"} <= set(norms.state_dict())


def test_implicit_point_head_runs_each_instances_own_layers() -> None:
    head = ImplicitPointHead(input_channels=5, num_classes=2, fc_dim=4, num_fc=2)
    features, points = torch.rand(3, 5, 6), torch.rand(3, 6, 2)
    parameters = torch.randn(3, head.num_params)
    logits = head(features, points, parameters)
    assert logits.shape == (3, 2, 6)
    widths = [5 + 256, 4, 4, 2]
    for row in range(3):
        phase = 2 * math.pi * (2 * points[row] - 1) @ head.positional_encoding_gaussian_matrix
        x = torch.cat((phase.sin().T, phase.cos().T, features[row]))
        sizes = list(itertools.pairwise(widths))
        weights, biases = parameters[row].split([sum(a * b for a, b in sizes), sum(widths[1:])])
        for index, (before, after) in enumerate(sizes):
            weight, weights = weights[: before * after].view(after, before), weights[before * after :]
            bias, biases = biases[:after], biases[after:]
            x = weight @ x + bias[:, None]
            x = x.relu() if index < 2 else x
        torch.testing.assert_close(logits[row], x, rtol=1e-4, atol=1e-3)
    assert head(features[:0], points[:0], parameters[:0]).shape == (0, 2, 6)
