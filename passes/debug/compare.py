"""Comparing what graphs compute: detections matched one to one, other tensors element by element.

Detections are compared as sets: NMS gives no order among equals, and a score's last digits may change the
order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from detc.ir import DetcError, InstancesType, Type
from detc.ir.dialects.instances import InstancesBatch

from ..detection.instances import flat_names


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


def flatten_outputs(outputs: Mapping[str, Any], types: Mapping[str, Type]) -> dict[str, Tensor]:
    """A graph's results with instances taken apart, named as `FlattenInstances` names them."""
    names = flat_names(types)
    flat: dict[str, Tensor] = {}
    for output, value in outputs.items():
        if isinstance(value, InstancesBatch):
            flat.update({names[output, field]: tensor for field, tensor in value.fields.items()})
        else:
            flat[output] = value
    return flat


def detection_groups(types: Mapping[str, Type]) -> list[dict[str, str]]:
    """Which outputs are fields of one set of detections: role -> output.

    Instances are a set each. Flat outputs are one where there are boxes, scores and batch_index with a common
    prefix, or names that a target registered; all tensors that share their first, data-dependent size belong to it.
    """
    groups: list[dict[str, str]] = []
    for output, type in types.items():
        if isinstance(type, InstancesType):
            names = {key: name for key, name in flat_names(types).items() if key[0] == output}
            roles = {_role(name, output): name for name in names.values()}
            if {"boxes", "scores", "batch_index"} <= set(roles):
                groups.append(roles)
    for name, type in types.items():
        if not name.endswith("boxes") or isinstance(type, InstancesType):
            continue
        prefix = name.removesuffix("boxes")
        if all(f"{prefix}{role}" in types for role in ("scores", "batch_index")):
            groups.append({n.removeprefix(prefix): n for n in _with_rows_of(name, types)})
    for named in _detection_names:
        outputs = {role: output for output, role in named.items()}
        if outputs["boxes"] in types and outputs["scores"] in types:
            groups.append({named.get(n, n): n for n in _with_rows_of(outputs["boxes"], types)})
    return groups


_detection_names: list[Mapping[str, str]] = []


def register_detection_names(roles: Mapping[str, str]) -> None:
    """Let outputs of these names be known as fields of one set of detections: output -> role, which must include
    "boxes" and "scores"."""
    _detection_names.append(roles)


def _with_rows_of(name: str, types: Mapping[str, Type]) -> list[str]:
    rows = getattr(types[name], "shape", (None,))[0]
    return [n for n, type in types.items() if getattr(type, "shape", (0,))[:1] == (rows,)]


def _role(name: str, output: str) -> str:
    return name.removeprefix(f"{output}_")


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
        differences.update(_compare_detections(group, pairing, *thresholds))
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
    names = {role: role for role in expected}
    counts = (len(expected["boxes"]), len(actual["boxes"]))
    try:
        for role in expected:
            if role not in actual:
                raise Mismatch(role, "it is missing")
        pairing = _paired(names, expected, actual, tolerances or Tolerances())
    except Mismatch as mismatch:
        return DetectionReport(*counts, problem=str(mismatch))
    try:
        _compare_detections(names, pairing, score_thresholds, nms_thresholds)
        problem = ""
    except Mismatch as mismatch:
        problem = str(mismatch)
    left, right = pairing.rows
    matched = len(left)
    least: dict[str, float] = {}
    if matched:
        for role, overlap in (("boxes", _overlap), ("masks", mask_overlap)):
            if role in expected and expected[role].shape[1:] == actual[role].shape[1:]:
                least[role] = float(overlap(expected[role][left], actual[role][right]).min())
        gap = expected["scores"][left].double() - actual["scores"][right].double()
        least["scores"] = float(gap.abs().max())
    return DetectionReport(
        *counts, matched, least.get("scores"), least.get("boxes"), least.get("masks"), problem
    )


def _paired(
    group: Mapping[str, str], mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], tolerances: Tolerances
) -> _Pairing:
    for role, name in group.items():
        if len(theirs[role]) != len(theirs["boxes"]):
            raise Mismatch(name, f"{len(theirs[role])} rows for {len(theirs['boxes'])} boxes")
    return _Pairing(mine, theirs, tolerances)


def _compare_detections(
    group: Mapping[str, str],
    pairing: _Pairing,
    score_thresholds: Sequence[float],
    nms_thresholds: Sequence[float],
) -> dict[str, float]:
    mine, theirs = pairing.mine, pairing.theirs
    for rows, side, where in (
        (pairing.left_over, mine, "is missing"),
        (pairing.extra, theirs, "should not be there"),
    ):
        for row in rows:
            near = pairing.tolerances.threshold
            if not _is_near(side["scores"][row], score_thresholds, near) and not _is_near(
                _overlaps_with_better(side, row), nms_thresholds, near
            ):
                raise Mismatch(group["boxes"], f"a detection {where}: {_described(row, pairing, where)}")
    left, right = pairing.rows
    return {
        name: _compare_field(role, name, mine[role][left], theirs[role][right], pairing.tolerances)
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


def _described(row: int, pairing: _Pairing, where: str) -> str:
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


@dataclass
class _Pairing:
    """Detections paired one to one: the same image and class, boxes that overlap, scores that are close.

    The best-overlapping pair is taken first.
    """

    mine: Mapping[str, Tensor]
    theirs: Mapping[str, Tensor]
    tolerances: Tolerances
    left: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        for image, category in self._kinds():
            self._pair(self._rows(self.mine, image, category), self._rows(self.theirs, image, category))

    @property
    def rows(self) -> tuple[Tensor, Tensor]:
        """The matched rows (i64[M]) of the reference, and those of the other result in the same order."""
        left, right = (torch.tensor(rows, dtype=torch.int64) for rows in (self.left, self.right))
        return left, right

    @property
    def left_over(self) -> list[int]:
        """Rows of the reference without a partner."""
        return sorted(set(range(len(self.mine["boxes"]))) - set(self.left))

    @property
    def extra(self) -> list[int]:
        """Rows of the other result without a partner."""
        return sorted(set(range(len(self.theirs["boxes"]))) - set(self.right))

    def _kinds(self) -> list[tuple[int, int]]:
        classes = self.mine.get("classes", torch.zeros_like(self.mine["batch_index"]))
        return sorted(set(zip(self.mine["batch_index"].tolist(), classes.tolist(), strict=True)))

    def _rows(self, side: Mapping[str, Tensor], image: int, category: int) -> Tensor:
        classes = side.get("classes", torch.zeros_like(side["batch_index"]))
        return torch.nonzero((side["batch_index"] == image) & (classes == category))[:, 0]

    def _pair(self, mine: Tensor, theirs: Tensor) -> None:
        if len(mine) == len(theirs) and self._are_pairs(mine, theirs):
            # As a rule the order is the same: a thousand proposals need not all be compared with each other.
            self.left += mine.tolist()
            self.right += theirs.tolist()
            return
        overlap = box_overlap(self.mine["boxes"][mine], self.theirs["boxes"][theirs])
        gap = (self.mine["scores"][mine].double()[:, None] - self.theirs["scores"][theirs].double()).abs()
        near = (overlap >= self.tolerances.iou) & (gap <= self.tolerances.score)
        rows, columns = (index.tolist() for index in torch.nonzero(near, as_tuple=True))
        ranked = sorted(zip(rows, columns, strict=True), key=lambda p: (-float(overlap[p]), float(gap[p])))
        taken_left: set[int] = set()
        taken_right: set[int] = set()
        for row, column in ranked:
            if row not in taken_left and column not in taken_right:
                taken_left.add(row)
                taken_right.add(column)
                self.left.append(int(mine[row]))
                self.right.append(int(theirs[column]))

    def _are_pairs(self, mine: Tensor, theirs: Tensor) -> bool:
        overlap = _overlap(self.mine["boxes"][mine], self.theirs["boxes"][theirs])
        gap = (self.mine["scores"][mine].double() - self.theirs["scores"][theirs].double()).abs()
        return bool(((overlap >= self.tolerances.iou) & (gap <= self.tolerances.score)).all())


def box_overlap(left: Tensor, right: Tensor) -> Tensor:
    """IoU (f64[A,B]) of boxes [A,4] and [B,4]; of rotated boxes [.,5] 1 where all five are within 0.1."""
    return _overlap(left[:, None], right[None])


def _overlap(left: Tensor, right: Tensor) -> Tensor:
    """IoU of boxes that broadcast against each other."""
    a, b = left.double(), right.double()
    apart = (a - b).abs()
    if left.shape[-1] != 4:
        turned = (apart[..., 4:] + 180.0) % 360.0 - 180.0
        return (torch.cat((apart[..., :4], turned.abs()), dim=-1) <= 0.1).all(dim=-1).double()
    size = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    shared = size.prod(dim=-1)
    union = (a[..., 2:] - a[..., :2]).prod(dim=-1) + (b[..., 2:] - b[..., :2]).prod(dim=-1) - shared
    # A box without area overlaps nothing, and the rounding of a thin one is much of it: what is within a thousandth
    # of a pixel on all sides is the same box.
    same = (apart <= 1e-3).all(dim=-1)
    return torch.where(same, 1.0, torch.where(union > 0, shared / union, 0.0))


def mask_overlap(left: Tensor, right: Tensor) -> Tensor:
    """IoU (f64[D]) of masks [D,...], row by row. Probabilities are cut at 0.5; empty masks overlap fully."""
    a, b = ((m if m.dtype is torch.bool else m >= 0.5).flatten(1) for m in (left, right))
    union = (a | b).sum(dim=1).double()
    return torch.where(union > 0, (a & b).sum(dim=1).double() / union, 1.0)
