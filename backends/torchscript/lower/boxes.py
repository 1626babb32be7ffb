"""Lowering of `det.*` on boxes to aten's and torchvision's operators."""

from __future__ import annotations

from detc.ir import Builder, Node, Value
from detc.passes.rewrite.conversion import LoweringRule

from .common import F32, I64, cast, clip, columns, floats, rows, whwh
from .forms import UPRIGHT


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


def clip_boxes(b: Builder, node: Node) -> Value:
    """Each box against its own image's bounds."""
    boxes, batch_index, im_info = (node.operand(i) for i in range(3))
    return clip(b, boxes, rows(b, whwh(b, im_info), batch_index))


def rescale_boxes(b: Builder, node: Node) -> Value:
    """Scale and clip, with each box's own image's factors."""
    boxes, batch_index, im_info, output_size = (node.operand(i) for i in range(4))
    target = whwh(b, cast(b, output_size, boxes.dtype))
    scale = rows(b, b.aten.div.Tensor(target, whwh(b, im_info)), batch_index)
    return clip(b, b.aten.mul.Tensor(boxes, scale), rows(b, target, batch_index))


TABLE: dict[str, LoweringRule] = {
    "det.normalize": normalize,
    "det.apply_deltas": UPRIGHT.apply_deltas,
    "det.box_inference": UPRIGHT.box_inference,
    "det.clip_boxes": clip_boxes,
    "det.rescale_boxes": rescale_boxes,
    "det.nonempty": UPRIGHT.nonempty,
}
