"""What the rules for upright and for rotated boxes share, and what is done differently for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from detc.ir import Builder, Node, Value

from .common import (
    best_of_images,
    centre_and_size,
    clip,
    columns,
    decode,
    finite_rows,
    integer,
    known,
    nms_by_group,
    number,
    rows,
    where_true,
    whwh,
)


@dataclass(frozen=True)
class BoxForm:
    """One way to write boxes.

    Attributes:
        columns: how many numbers a box is.
        parts: boxes [...,columns] as centres [...,2] and all else that `decode` takes.
        cells: the same of anchors that are known, f32[A,columns].
        decode: deltas [...,columns], and the parts of what they move -> boxes.
        clip: boxes, and bounds (width, height, width, height) that broadcast -> the boxes cut to their images.
        sides: boxes -> their width and height [...,2].
        nms: boxes, scores, groups, im_info and threshold -> the rows kept of each group, by falling score.
        nms_once: whether one NMS of many groups takes no longer than several of fewer.
    """

    columns: int
    parts: Callable[[Builder, Value], tuple[Value, Value]]
    cells: Callable[[Tensor], tuple[Tensor, Tensor]]
    decode: Callable[[Builder, Value, Value, Value, Node], Value]
    clip: Callable[[Builder, Value, Value], Value]
    sides: Callable[[Builder, Value], Value]
    nms: Callable[[Builder, Value, Value, Value, Value, float], Value]
    nms_once: bool = False

    def apply_deltas(self, b: Builder, node: Node) -> Value:
        """Box regression for K boxes per row at once."""
        deltas, boxes = node.operand(0), node.operand(1)
        count = deltas.shape[0]
        width = known(deltas.shape[1], "the number of boxes per row")
        per_row = b.aten.reshape(deltas, shape=(count, width // self.columns, self.columns))
        decoded = self.decode(b, per_row, *self.parts(b, b.aten.unsqueeze(boxes, dim=1)), node)
        made: Value = b.aten.reshape(decoded, shape=(count, width))
        return made

    def box_inference(self, b: Builder, node: Node) -> list[Value]:
        """One NMS over what passes the threshold, grouped by image and class; then the best of each image."""
        boxes, scores, batch_index, im_info = (node.operand(i) for i in range(4))
        classes = known(scores.shape[1], "the number of classes") - 1
        agnostic = boxes.shape[1] == self.columns
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
        per_class = b.aten.reshape(boxes, shape=(count, self.columns))
        chosen = rows(b, per_class, row if agnostic else place)
        clipped = self.clip(b, chosen, rows(b, whwh(b, im_info), image))
        score = rows(b, b.aten.reshape(foreground, shape=flat), place)
        group = b.aten.add.Tensor(b.aten.mul.Scalar(image, other=classes), category)
        kept = self.nms(b, clipped, score, group, im_info, number(node, "nms_thresh"))
        kept, by_image = best_of_images(b, rows(b, image, kept), kept, integer(node, "topk_per_image"))
        return [rows(b, clipped, kept), rows(b, score, kept), rows(b, category, kept), by_image]

    def nonempty(self, b: Builder, node: Node) -> Value:
        """The rows both of whose sides pass the threshold."""
        long = b.aten.gt.Scalar(self.sides(b, node.operand(0)), other=number(node, "threshold"))
        return where_true(b, b.aten.all.dim(long, dim=1))


def _upright_sides(b: Builder, boxes: Value) -> Value:
    made: Value = b.aten.sub.Tensor(columns(b, boxes, 2, 4), columns(b, boxes, 0, 2))
    return made


def _upright_cells(cells: Tensor) -> tuple[Tensor, Tensor]:
    sizes = cells[:, 2:] - cells[:, :2]
    return cells[:, :2] + 0.5 * sizes, sizes


UPRIGHT = BoxForm(4, centre_and_size, _upright_cells, decode, clip, _upright_sides, nms_by_group)
"""Boxes x0 y0 x1 y1."""
