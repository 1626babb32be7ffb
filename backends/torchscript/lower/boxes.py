"""Lowering of `det.*` on boxes to aten's and torchvision's operators."""

from __future__ import annotations

from detc.ir import Builder, Node, Value
from detc.passes.rewrite.conversion import LoweringRule

from .common import (
    F32,
    I64,
    best_of_images,
    cast,
    columns,
    finite_rows,
    floats,
    integer,
    known,
    number,
    rows,
    where_true,
    whwh,
)
from .forms import form_of


def normalize(b: Builder, node: Node) -> Value:
    """(data - mean) / std, and a comparison of each row's and column's number with the image's size."""
    data, im_info = node.operand(0), node.operand(1)
    mean = b.constant([[[m]] for m in floats(node, "mean")], F32)
    std = b.constant([[[s]] for s in floats(node, "std")], F32)
    shifted = b.aten.div.Tensor(b.aten.sub.Tensor(data, mean), std)
    height, width = (columns(b, im_info, i, i + 1, 1) for i in (0, 1))  # [N, 1]
    row = b.aten.lt.Tensor(b.aten.arange(end=data.shape[2], dtype=I64), height)  # [N, H]
    column = b.aten.lt.Tensor(b.aten.arange(end=data.shape[3], dtype=I64), width)
    inside = b.aten.bitwise_and.Tensor(b.aten.unsqueeze(row, dim=2), b.aten.unsqueeze(column, dim=1))
    made: Value = b.aten.where.ScalarOther(b.aten.unsqueeze(inside, dim=1), shifted, other=0.0)
    return made


def apply_deltas(b: Builder, node: Node) -> Value:
    """Box regression for K boxes per row at once."""
    deltas, boxes = node.operand(0), node.operand(1)
    form = form_of(boxes)
    count = deltas.shape[0]
    width = known(deltas.shape[1], "the number of boxes per row")
    per_row = b.aten.reshape(deltas, shape=(count, width // form.columns, form.columns))
    decoded = form.decode(b, per_row, *form.parts(b, b.aten.unsqueeze(boxes, dim=1)), node)
    made: Value = b.aten.reshape(decoded, shape=(count, width))
    return made


def box_inference(b: Builder, node: Node) -> list[Value]:
    """One NMS over what passes the threshold, grouped by image and class; then the best of each image."""
    boxes, scores, batch_index, im_info = (node.operand(i) for i in range(4))
    classes = known(scores.shape[1], "the number of classes") - 1
    form = form_of(node.results[0])
    agnostic = boxes.shape[1] == form.columns
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
    per_class = b.aten.reshape(boxes, shape=(count, form.columns))
    chosen = rows(b, per_class, row if agnostic else place)
    clipped = form.clip(b, chosen, rows(b, whwh(b, im_info), image))
    score = rows(b, b.aten.reshape(foreground, shape=flat), place)
    group = b.aten.add.Tensor(b.aten.mul.Scalar(image, other=classes), category)
    kept = form.nms(b, clipped, score, group, im_info, number(node, "nms_thresh"))
    kept, by_image = best_of_images(b, rows(b, image, kept), kept, integer(node, "topk_per_image"))
    return [rows(b, clipped, kept), rows(b, score, kept), rows(b, category, kept), by_image]


def clip_boxes(b: Builder, node: Node) -> Value:
    """Each box against its own image's bounds."""
    boxes, batch_index, im_info = (node.operand(i) for i in range(3))
    return form_of(boxes).clip(b, boxes, rows(b, whwh(b, im_info), batch_index))


def rescale_boxes(b: Builder, node: Node) -> Value:
    """Scale and clip, with each box's own image's factors."""
    boxes, batch_index, im_info, output_size = (node.operand(i) for i in range(4))
    target = whwh(b, cast(b, output_size, boxes.dtype))
    scale = rows(b, b.aten.div.Tensor(target, whwh(b, im_info)), batch_index)
    form = form_of(boxes)
    return form.clip(b, form.rescale(b, boxes, scale), rows(b, target, batch_index))


def nonempty(b: Builder, node: Node) -> Value:
    """The rows both of whose sides pass the threshold."""
    boxes = node.operand(0)
    long = b.aten.gt.Scalar(form_of(boxes).sides(b, boxes), other=number(node, "threshold"))
    return where_true(b, b.aten.all.dim(long, dim=1))


TABLE: dict[str, LoweringRule] = {
    "det.normalize": normalize,
    "det.apply_deltas": apply_deltas,
    "det.box_inference": box_inference,
    "det.clip_boxes": clip_boxes,
    "det.rescale_boxes": rescale_boxes,
    "det.nonempty": nonempty,
}
