"""Lowering of region proposals to aten's and torchvision's operators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from detc.ir import Builder, Constant, Dim, Node, Value
from detc.ir.dialects.boxes import parts
from detc.ir.dialects.proposals import refined
from detc.ir.dims import minimum
from detc.passes.core.base import NoMatch, integer, number, numbers
from detc.passes.detection.decompose import written_out
from detc.passes.rewrite.conversion import LoweringRule

from .common import (
    F32,
    I64,
    cast,
    columns,
    finite_rows,
    flatten_map,
    image_numbers,
    is_rotated,
    known,
    nms_by_group,
    one_or_cat,
    rows,
    where_true,
)


@dataclass(frozen=True)
class _Level:
    """One level of what the RPN's head predicts, for each anchor by row, column and cell.

    Attributes:
        logits: f32[N,T].
        deltas: f32[N,T,4], or f32[N,T,5] of rotated boxes.
        width: how many columns the map has.
        cells: the number of anchors at each position.
    """

    logits: Value
    deltas: Value
    width: Dim
    cells: int


def rpn_proposals(b: Builder, node: Node) -> list[Value]:
    """TopK and NMS on each level, then TopK on each image."""
    return _Proposals(b, node, _two_maps(b, node)).over(node.operand_list(2))


def grid_proposals(b: Builder, node: Node) -> list[Value]:
    """As `rpn_proposals`, but anchors are computed from the indices of those kept."""
    return _Proposals(b, node, _two_maps(b, node)).over_grid(node.operand_list(2))


def dense_proposals(b: Builder, node: Node) -> list[Value]:
    """As `grid_proposals`, where the two kinds of maps are one."""
    levels: list[_Level] = []
    for both in node.operand_list(0):
        each = 1 + _columns(node)
        cells = known(both.shape[1], "the number of anchors per position") // each
        flat = flatten_map(b, both, cells, each)
        logits = b.aten.select.int(flat, dim=2, index=0)
        levels.append(_Level(logits, columns(b, flat, 1, each, 2), both.shape[3], cells))
    return _Proposals(b, node, levels).over_grid(node.operand_list(1))


def _two_maps(b: Builder, node: Node) -> list[_Level]:
    """The levels where logits and deltas are maps of their own, the node's first two operands."""
    levels: list[_Level] = []
    for logits, deltas in zip(node.operand_list(0), node.operand_list(1), strict=True):
        cells = known(logits.shape[1], "the number of anchors per position")
        scores = b.aten.select.int(flatten_map(b, logits, cells, 1), dim=2, index=0)
        levels.append(_Level(scores, flatten_map(b, deltas, cells, _columns(node)), logits.shape[3], cells))
    return levels


def _columns(node: Node) -> int:
    return known(node.results[0].shape[1], "the columns of a box")


class _Proposals:
    """Emits what all forms of proposals share. K is the number of candidates of an image, over all levels."""

    def __init__(self, b: Builder, node: Node, levels: Sequence[_Level]) -> None:
        self.b, self.node, self.levels, self.columns = b, node, levels, _columns(node)
        self.im_info = node.operand(len(node.operands) - 1)
        self.images = levels[0].logits.shape[0]
        before = integer(node, "pre_nms_topk")
        self.counts = [minimum(before, level.logits.shape[1]) for level in levels]
        best = [
            b.aten.topk(level.logits, k=count, dim=1)
            for level, count in zip(levels, self.counts, strict=True)
        ]
        self.scores = [values for values, _ in best]
        self.indices = [index for _, index in best]

    def over(self, anchors: Sequence[Value]) -> list[Value]:
        """The proposals where the anchors f32[T,columns] of each level are given."""
        b = self.b
        placed = [
            b.aten.reshape(
                rows(b, anchor, b.aten.reshape(index, shape=(self.images * count,))),
                shape=(self.images, count, self.columns),
            )
            for anchor, index, count in zip(anchors, self.indices, self.counts, strict=True)
        ]
        return self._select(*written_out(b, parts, one_or_cat(b, placed, 1)))

    def over_grid(self, given: Sequence[Value]) -> list[Value]:
        """The proposals where the cell anchors f32[A,columns] of each level are given."""
        b, node = self.b, self.node
        constants = [c.data for c in given if isinstance(c, Constant)]
        per_cell = {level.cells for level in self.levels}
        if len(constants) != len(given) or len(per_cell) != 1:
            raise NoMatch("the cell anchors are not constant, or differ in number from level to level")
        count, cells = per_cell.pop(), torch.cat(constants)
        step = torch.tensor(numbers(node, "strides"), dtype=F32, device=cells.device)[:, None]
        centres, rest = parts(cells)
        centres = centres + (number(node, "offset") * step).repeat_interleave(count, dim=0)

        index = one_or_cat(b, self.indices, 1)  # [N, K]
        level_of = self._by_level(range(len(self.levels)))  # [K]
        width = self._by_level([level.width for level in self.levels])
        cell = b.aten.add.Tensor(
            b.aten.remainder.Scalar(index, other=count), b.aten.mul.Scalar(level_of, other=count)
        )
        position = b.aten.floor_divide.Scalar(index, other=count)
        x, y = b.aten.remainder.Tensor(position, width), b.aten.floor_divide(position, width)
        grid = cast(b, b.aten.stack([x, y], dim=-1), F32)
        shift = b.aten.mul.Tensor(grid, rows(b, b.graph.constant(step, "strides"), level_of))
        flat = b.aten.reshape(cell, shape=(self.images * self._total,))
        own = [
            b.aten.reshape(
                rows(b, b.graph.constant(table, name), flat),
                shape=(self.images, self._total, table.shape[1]),
            )
            for table, name in ((centres, "anchor_centres"), (rest, "anchor_sizes"))
        ]
        return self._select(b.aten.add.Tensor(shift, own[0]), own[1])

    @property
    def _total(self) -> Dim:
        total: Dim = 0
        for count in self.counts:
            total = total + count
        return total

    def _by_level(self, values: Sequence[Dim]) -> Value:
        """A number of each level for its candidates: i64[K]."""
        parts = [
            self.b.aten.full(size=(count,), fill_value=value, dtype=I64)
            for value, count in zip(values, self.counts, strict=True)
        ]
        return one_or_cat(self.b, parts, 0)

    def _select(self, centre: Value, rest: Value) -> list[Value]:
        """Decode the candidates on the anchors, given by their parts [N,K,*], and choose among them."""
        b, node = self.b, self.node
        deltas = [
            b.aten.gather(
                level.deltas,
                b.aten.expand(b.aten.unsqueeze(index, dim=2), size=(self.images, count, self.columns)),
                dim=1,
            )
            for level, index, count in zip(self.levels, self.indices, self.counts, strict=True)
        ]
        scores = one_or_cat(b, self.scores, 1)  # [N, K]
        attributes = {name: node.attributes[name] for name in ("weights", "scale_clamp")}
        found = written_out(b, refined, one_or_cat(b, deltas, 1), centre, rest, self.im_info, **attributes)
        decoded, boxes, shorter = found
        big = b.aten.gt.Scalar(shorter, other=number(node, "min_box_size"))
        finite = b.aten.bitwise_and.Tensor(finite_rows(b, decoded), b.aten.isfinite(scores))
        valid = b.aten.bitwise_and.Tensor(finite, big)
        kept = b.aten.bitwise_and.Tensor(valid, self._survivors(boxes, scores, valid))

        # The best of each image, as many as there are: what did not survive sorts behind all that did.
        most = minimum(integer(node, "post_nms_topk"), self._total)
        contest = b.aten.where.ScalarOther(kept, scores, other=-math.inf)
        best, index = b.aten.topk(contest, k=most, dim=1)
        survivors = where_true(
            b, b.aten.reshape(b.aten.gt.Scalar(best, other=-math.inf), shape=(self.images * most,))
        )
        image = b.aten.floor_divide.Scalar(survivors, other=most)
        place = rows(b, b.aten.reshape(index, shape=(self.images * most,)), survivors)
        start = b.aten.mul.Scalar(image, other=self._total)
        flat = b.aten.reshape(boxes, shape=(self.images * self._total, self.columns))
        return [
            rows(b, flat, b.aten.add.Tensor(start, place)),
            rows(b, b.aten.reshape(best, shape=(self.images * most,)), survivors),
            image,
        ]

    def _survivors(self, boxes: Value, scores: Value, valid: Value) -> Value:
        """Who is left after the NMS of each level, of those that are valid: bool[N,K]."""
        b, levels = self.b, len(self.levels)
        image = b.aten.unsqueeze(image_numbers(b, self.im_info), dim=1)
        if is_rotated(boxes):
            # One NMS of many groups takes no longer than several of fewer.
            group = b.aten.add.Tensor(b.aten.mul.Scalar(image, other=levels), self._by_level(range(levels)))
            size = (self.images * self._total,)
            at = where_true(b, b.aten.reshape(valid, shape=size))
            flat = b.aten.reshape(boxes, shape=(*size, self.columns))
            own = [rows(b, flat, at), *(rows(b, b.aten.reshape(v, shape=size), at) for v in (scores, group))]
            return self._marked(rows(b, at, self._nms(*own)), self._total)
        # A box of no size overlaps with none: those that are not valid are made such, and their number stays.
        contest = b.aten.where.ScalarOther(b.aten.unsqueeze(valid, dim=2), boxes, other=0.0)
        parts: list[Value] = []
        start: Dim = 0
        for count in self.counts:
            size = (self.images * count,)
            box, score = (
                b.aten.slice.Tensor(v, dim=1, start=start, end=start + count) for v in (contest, scores)
            )
            group = b.aten.reshape(b.aten.expand(image, size=(self.images, count)), shape=size)
            box = b.aten.reshape(box, shape=(*size, self.columns))
            parts.append(self._marked(self._nms(box, b.aten.reshape(score, shape=size), group), count))
            start = start + count
        return one_or_cat(b, parts, 1)

    def _nms(self, boxes: Value, scores: Value, group: Value) -> Value:
        return nms_by_group(self.b, boxes, scores, group, self.im_info, number(self.node, "nms_thresh"))

    def _marked(self, places: Value, count: Dim) -> Value:
        """Which of so many boxes of each image the places in all say: bool[N,count]."""
        b = self.b
        none = b.aten.full(size=(self.images * count,), fill_value=False, dtype=torch.bool)
        mask = b.aten.index_fill.int_Scalar(none, places, dim=0, value=True)
        return b.aten.reshape(mask, shape=(self.images, count))


TABLE: dict[str, LoweringRule] = {
    "det.rpn_proposals": rpn_proposals,
    "det.grid_proposals": grid_proposals,
    "det.dense_proposals": dense_proposals,
}
