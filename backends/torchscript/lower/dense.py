"""Lowering of `det.dense_inference` to aten's and torchvision's operators."""

from __future__ import annotations

from detc.ir import Builder, Dim, Node, Value
from detc.ir.dialects.dense import decode_dense
from detc.ir.dims import minimum
from detc.passes.core.base import attribute, integer, number
from detc.passes.detection.decompose import written_out
from detc.passes.rewrite.conversion import LoweringRule

from .common import F64, best_of_images, cast, flatten_map, known, one_or_cat, rows, where_true


def dense_inference(b: Builder, node: Node) -> list[Value]:
    """TopK on each level; then one NMS, grouped by image and class, over those that pass the threshold."""
    scores, deltas, anchors = (node.operand_list(i) for i in range(3))
    images = scores[0].shape[0]
    limit = integer(node, "topk_candidates")
    regression = {name: attribute(node, name) for name in ("regression", "weights", "scale_clamp")}
    boxes: list[Value] = []
    values: list[Value] = []
    categories: list[Value] = []
    total: Dim = 0
    classes = 0
    for score, delta, anchor in zip(scores, deltas, anchors, strict=True):
        cells = known(delta.shape[1], "the number of anchors per position") // 4
        classes = known(score.shape[1], "the number of classes") // cells
        area = score.shape[2] * score.shape[3] * cells
        count = minimum(limit, area * classes)
        flat = b.aten.reshape(flatten_map(b, score, cells, classes), shape=(images, area * classes))
        best, place = b.aten.topk(flat, k=count, dim=1)  # [N, k], places by row, column, anchor, class
        row = b.aten.floor_divide.Scalar(place, other=classes)
        index = b.aten.expand(b.aten.unsqueeze(row, dim=2), size=(images, count, 4))
        chosen = b.aten.gather(flatten_map(b, delta, cells, 4), index, dim=1)
        placed = b.aten.reshape(
            rows(b, anchor, b.aten.reshape(row, shape=(images * count,))), shape=(images, count, 4)
        )
        boxes += written_out(b, decode_dense, chosen, placed, **regression)
        values.append(best)
        categories.append(b.aten.remainder.Scalar(place, other=classes))
        total = total + count

    flat_scores = b.aten.reshape(one_or_cat(b, values, 1), shape=(images * total,))
    candidate = where_true(b, b.aten.gt.Scalar(flat_scores, other=number(node, "score_thresh")))
    image = b.aten.floor_divide.Scalar(candidate, other=total)
    category = rows(b, b.aten.reshape(one_or_cat(b, categories, 1), shape=(images * total,)), candidate)
    box = rows(b, b.aten.reshape(one_or_cat(b, boxes, 1), shape=(images * total, 4)), candidate)
    score = rows(b, flat_scores, candidate)
    group = b.aten.add.Tensor(b.aten.mul.Scalar(image, other=classes), category)
    kept = b.torchvision.nms(
        _apart(b, box, group), cast(b, score, F64), iou_threshold=number(node, "nms_thresh")
    )
    kept, by_image = best_of_images(b, rows(b, image, kept), kept, integer(node, "topk_per_image"))
    return [rows(b, box, kept), rows(b, score, kept), rows(b, category, kept), by_image]


def _apart(b: Builder, boxes: Value, group: Value) -> Value:
    """The boxes f64[M,4], those of different groups farther apart than any box reaches: these are not clipped."""
    precise = cast(b, boxes, F64)
    reach = b.aten.sum(
        b.aten.amax(b.aten.cat([b.aten.abs(precise), b.aten.new_ones(precise, size=(1, 4))], dim=0), dim=(0,))
    )
    offset = b.aten.mul.Tensor(cast(b, group, F64), b.aten.mul.Scalar(reach, other=2))
    return b.aten.add.Tensor(precise, b.aten.unsqueeze(offset, dim=1))


TABLE: dict[str, LoweringRule] = {"det.dense_inference": dense_inference}
