"""Comparing what graphs compute: detections matched one to one, other tensors element by element.

Detections are compared as sets: NMS gives no order among equals, and a score's last digits may change the
order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detc.ir import DetcError

from .pairing import Pairing, box_overlap, mask_overlap, pair_overlap


class Mismatch(DetcError):
    """Two results differ by more than the tolerances. `output` says in what."""

    def __init__(self, output: str, problem: str) -> None:
        super().__init__(f"{output}: {problem}")
        self.output = output
        self.problem = problem


ROUNDING = 16 * torch.finfo(torch.float32).eps
"""Of its largest element, how much rounding may change any element of a tensor: one near zero can be the sum of terms
that are as large as that, and is rounded as they are."""


@dataclass(frozen=True)
class Tolerances:
    """How much two results may differ.

    Attributes:
        rtol, atol: for tensors, element by element; `atol` is no less than `ROUNDING` of the largest element.
        iou: the least overlap of two boxes (x0 y0 x1 y1) of one detection.
        score: the largest difference of two scores of one detection.
        mask_iou: the least overlap of two masks; those that are probabilities are cut at 0.5.
        keypoint: the largest distance of two keypoints in pixels, along each axis.
        threshold: a detection whose score is this near to a score threshold may be there or not, and so may one whose
            overlap with a better one of its class is this near to the threshold of non-maximum suppression.
    """

    rtol: float = 1e-3
    atol: float = 1e-5
    iou: float = 0.99
    score: float = 1e-3
    mask_iou: float = 0.98
    keypoint: float = 0.5
    threshold: float = 1e-4


@dataclass(frozen=True)
class Reference:
    """A graph's results as tensors by name, and which of them are fields of one set of detections.

    Attributes:
        groups: for each set of detections, role (`boxes`, `scores`, `classes`, ...) -> name of the tensor.
        score_thresholds: scores at which detections are let through.
        nms_thresholds: overlaps at which a detection suppresses another.
    """

    tensors: Mapping[str, Tensor]
    groups: Sequence[Mapping[str, str]]
    score_thresholds: Sequence[float] = ()
    nms_thresholds: Sequence[float] = ()


def compare(expected: Reference, actual: Mapping[str, Tensor], tolerances: Tolerances) -> dict[str, float]:
    """The largest difference of each output.

    Errors:
        Mismatch: an output is missing, or differs by more than the tolerances.
    """
    missing = [name for name in expected.tensors if name not in actual]
    if missing:
        raise Mismatch(missing[0], "it is missing")
    differences: dict[str, float] = {}
    grouped: set[str] = set()
    for group in expected.groups:
        grouped.update(group.values())
        mine, theirs = _fields(group, expected.tensors), _fields(group, actual)
        pairing = _paired(group, mine, theirs, tolerances)
        thresholds = (expected.score_thresholds, expected.nms_thresholds)
        differences.update(_compare_detections(group, pairing, tolerances, *thresholds))
    for name, tensor in expected.tensors.items():
        if name in _LABEL_MAPS:
            differences[name] = _compare_label_maps(name, tensor, actual[name], tolerances)
        elif name not in grouped:
            differences[name] = _compare_tensors(name, tensor, actual[name], tolerances)
    return differences


def _fields(group: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Role -> tensor; where nothing says which image a detection is of, there is only one."""
    fields = {role: tensors[name] for role, name in group.items()}
    if "batch_index" not in fields:
        fields["batch_index"] = torch.zeros(len(fields["boxes"]), dtype=torch.int64)
    return fields


_LABEL_MAPS = {"panoptic"}
"""Outputs whose elements are labels of pixels: which of two as good as equal classes a pixel gets is chance."""


def _compare_label_maps(name: str, expected: Tensor, actual: Tensor, tolerances: Tolerances) -> float:
    """Compare maps of segment ids [N,h,w] as masks: the least IoU of any segment's is told as a distance, 1 - IoU."""
    if expected.shape != actual.shape:
        raise Mismatch(name, f"the shape is {list(actual.shape)}, not {list(expected.shape)}")
    least = 1.0
    for image, (left, right) in enumerate(zip(expected, actual, strict=True)):
        for label in torch.unique(torch.cat((left, right))).tolist():
            mine, theirs = left == label, right == label
            iou = float((mine & theirs).sum() / (mine | theirs).sum())
            if iou < tolerances.mask_iou:
                raise Mismatch(name, f"the segment {label} of image {image} has an IoU of {iou:.4f}")
            least = min(least, iou)
    return 1.0 - least


def _compare_tensors(name: str, expected: Tensor, actual: Tensor, tolerances: Tolerances) -> float:
    if expected.shape != actual.shape:
        raise Mismatch(name, f"the shape is {list(actual.shape)}, not {list(expected.shape)}")
    if expected.dtype != actual.dtype:
        raise Mismatch(name, f"the dtype is {actual.dtype}, not {expected.dtype}")
    difference, wrong = _elementwise(expected, actual, tolerances)
    if wrong.any():
        at = int(wrong.double().argmax())
        count = int(wrong.sum())
        pair = f"{_element(actual, at):.6g} for {_element(expected, at):.6g}"
        raise Mismatch(name, f"{count} of {wrong.numel()} elements, such as {pair}")
    return float(difference.max()) if difference.numel() else 0.0


def tensor_difference(expected: Tensor, actual: Tensor, tolerances: Tolerances) -> tuple[float, bool]:
    """The largest difference of two tensors of one shape and dtype, and whether all are within the tolerances."""
    difference, wrong = _elementwise(expected, actual, tolerances)
    return (float(difference.max()) if difference.numel() else 0.0), not bool(wrong.any())


def _elementwise(expected: Tensor, actual: Tensor, tolerances: Tolerances) -> tuple[Tensor, Tensor]:
    left, right = expected.double(), actual.double()
    # nan where nan is expected is no difference, anything else that is not finite is.
    same = (left == right) | (torch.isnan(left) & torch.isnan(right))
    difference = torch.where(same, 0.0, (left - right).abs())
    exact = not expected.dtype.is_floating_point
    finite = left[torch.isfinite(left)].abs()
    rounding = ROUNDING * float(finite.max()) if finite.numel() else 0.0
    allowed = 0.0 if exact else max(tolerances.atol, rounding) + tolerances.rtol * left.abs()
    return difference, ~same & ~(torch.isfinite(difference) & (difference <= allowed))


def _element(tensor: Tensor, index: int) -> float:
    return float(tensor.flatten()[index])


@dataclass(frozen=True)
class DetectionReport:
    """How two sets of detections compare.

    Attributes:
        expected, actual: how many detections there are on each side.
        matched: how many were matched one to one.
        score: the largest difference of two matched scores.
        box_iou, mask_iou: the least overlap of two matched boxes and masks; None where there are none.
        problem: by what they differ more than the tolerances; empty when they agree.
    """

    expected: int
    actual: int
    matched: int = 0
    score: float | None = None
    box_iou: float | None = None
    mask_iou: float | None = None
    problem: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the two agree within the tolerances."""
        return not self.problem


def compare_detections(
    expected: Mapping[str, Tensor],
    actual: Mapping[str, Tensor],
    tolerances: Tolerances | None = None,
    score_thresholds: Sequence[float] = (),
    nms_thresholds: Sequence[float] = (),
) -> DetectionReport:
    """Match two sets of detections and say how far they are apart.

    Each is a dict by role with as many rows in each: boxes f32[D,4], scores f32[D], batch_index i64[D] and, as far
    as there are such, classes i64[D], masks [D,...], keypoints f32[D,K,3]. A detection whose score is near one of
    `score_thresholds`, or whose overlap with a better one is near one of `nms_thresholds`, may be missing on one side.
    """
    tolerances = tolerances or Tolerances()
    names = {role: role for role in expected}
    counts = (len(expected["boxes"]), len(actual["boxes"]))
    try:
        for role in expected:
            if role not in actual:
                raise Mismatch(role, "it is missing")
        pairing = _paired(names, expected, actual, tolerances)
    except Mismatch as mismatch:
        return DetectionReport(*counts, problem=str(mismatch))
    try:
        _compare_detections(names, pairing, tolerances, score_thresholds, nms_thresholds)
        problem = ""
    except Mismatch as mismatch:
        problem = str(mismatch)
    left, right = pairing.rows
    matched = len(left)
    least: dict[str, float] = {}
    if matched:
        for role, overlap in (("boxes", pair_overlap), ("masks", mask_overlap)):
            if role in expected and expected[role].shape[1:] == actual[role].shape[1:]:
                least[role] = float(overlap(expected[role][left], actual[role][right]).min())
        gap = expected["scores"][left].double() - actual["scores"][right].double()
        least["scores"] = float(gap.abs().max())
    return DetectionReport(
        *counts, matched, least.get("scores"), least.get("boxes"), least.get("masks"), problem
    )


def _paired(
    group: Mapping[str, str], mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], tolerances: Tolerances
) -> Pairing:
    for role, name in group.items():
        if len(theirs[role]) != len(theirs["boxes"]):
            raise Mismatch(name, f"{len(theirs[role])} rows for {len(theirs['boxes'])} boxes")
    return Pairing(mine, theirs, tolerances.iou, tolerances.score)


def _compare_detections(
    group: Mapping[str, str],
    pairing: Pairing,
    tolerances: Tolerances,
    score_thresholds: Sequence[float],
    nms_thresholds: Sequence[float],
) -> dict[str, float]:
    mine, theirs = pairing.mine, pairing.theirs
    for rows, side, where in (
        (pairing.left_over, mine, "is missing"),
        (pairing.extra, theirs, "should not be there"),
    ):
        for row in rows:
            near = tolerances.threshold
            if not _is_near(side["scores"][row], score_thresholds, near) and not _is_near(
                _overlaps_with_better(side, row), nms_thresholds, near
            ):
                raise Mismatch(group["boxes"], f"a detection {where}: {_described(row, pairing, where)}")
    left, right = pairing.rows
    return {
        name: _compare_field(role, name, mine[role][left], theirs[role][right], tolerances)
        for role, name in group.items()
    }


def _is_near(values: Tensor, thresholds: Sequence[float], near: float) -> bool:
    return any(bool(((values.double() - threshold).abs() <= near).any()) for threshold in thresholds)


def _overlaps_with_better(side: Mapping[str, Tensor], row: int) -> Tensor:
    """A detection's IoU with each of its image and class that has a better score."""
    rivals = (side["batch_index"] == side["batch_index"][row]) & (side["scores"] > side["scores"][row])
    if "classes" in side:
        rivals &= side["classes"] == side["classes"][row]
    return box_overlap(side["boxes"][row : row + 1], side["boxes"][rivals])


def _described(row: int, pairing: Pairing, where: str) -> str:
    side = pairing.mine if where == "is missing" else pairing.theirs
    box = ", ".join(f"{x:.2f}" for x in side["boxes"][row].tolist())
    category = f", class {int(side['classes'][row])}" if "classes" in side else ""
    image = int(side["batch_index"][row])
    return f"image {image}{category}, score {float(side['scores'][row]):.4f}, box ({box})"


def _compare_field(role: str, name: str, left: Tensor, right: Tensor, tolerances: Tolerances) -> float:
    if left.shape != right.shape or left.dtype != right.dtype:
        raise Mismatch(name, f"{right.dtype}{list(right.shape)}, not {left.dtype}{list(left.shape)}")
    if not left.numel():
        return 0.0
    if role == "masks":
        worst = 1.0 - float(mask_overlap(left, right).min())
        if not worst <= 1.0 - tolerances.mask_iou:
            raise Mismatch(name, f"two masks of one detection have an IoU of {1 - worst:.4f}")
        return worst
    difference = (left.double() - right.double()).abs()
    if role == "keypoints":
        worst = float(difference[..., :2].max())
        if not worst <= tolerances.keypoint:
            raise Mismatch(name, f"two keypoints of one detection are {worst:.3f} px apart")
    elif role not in ("boxes", "scores", "classes", "batch_index"):
        # These were looked at when the detections were paired.
        return _compare_tensors(name, left, right, tolerances)
    return float(difference.max())
