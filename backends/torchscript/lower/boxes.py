"""Lowering of `det.box_inference` to aten's and torchvision's operators."""

from __future__ import annotations

from detc.ir import Builder, Node, Value
from detc.ir.dialects.boxes import clip_boxes
from detc.passes.core.base import integer, number
from detc.passes.detection.decompose import written_out
from detc.passes.rewrite.conversion import LoweringRule

from .common import best_of_images, columns, finite_rows, known, nms_by_group, rows, where_true


def box_inference(b: Builder, node: Node) -> list[Value]:
    """One NMS over what passes the threshold, grouped by image and class; then the best of each image."""
    boxes, scores, batch_index, im_info = (node.operand(i) for i in range(4))
    classes = known(scores.shape[1], "the number of classes") - 1
    each = known(node.results[0].shape[1], "the columns of a box")
    agnostic = boxes.shape[1] == each
    finite = b.aten.bitwise_and.Tensor(finite_rows(b, boxes), finite_rows(b, scores))  # [R]
    foreground = columns(b, scores, 0, classes, 1)
    candidate = b.aten.bitwise_and.Tensor(
        b.aten.gt.Scalar(foreground, other=number(node, "score_thresh")),
        b.aten.unsqueeze(finite, dim=1),
    )
    flat = (scores.shape[0] * classes,)
    place = where_true(b, b.aten.reshape(candidate, shape=flat))  # [C]
    row = b.aten.floor_divide.Scalar(place, other=classes)
    category = b.aten.remainder.Scalar(place, other=classes)
    image = rows(b, batch_index, row)
    count = boxes.shape[0] * (1 if agnostic else classes)
    per_class = b.aten.reshape(boxes, shape=(count, each))
    chosen = rows(b, per_class, row if agnostic else place)
    (clipped,) = written_out(b, clip_boxes, chosen, image, im_info)
    score = rows(b, b.aten.reshape(foreground, shape=flat), place)
    group = b.aten.add.Tensor(b.aten.mul.Scalar(image, other=classes), category)
    kept = nms_by_group(b, clipped, score, group, im_info, number(node, "nms_thresh"))
    kept, by_image = best_of_images(b, rows(b, image, kept), kept, integer(node, "topk_per_image"))
    return [rows(b, clipped, kept), rows(b, score, kept), rows(b, category, kept), by_image]


TABLE: dict[str, LoweringRule] = {"det.box_inference": box_inference}
