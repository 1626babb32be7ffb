"""Lowering of `det.*` on boxes to ai.onnx operators."""

from __future__ import annotations

import math

from detc.ir import Attribute, Builder, Node, Value
from detc.passes.core.base import NoMatch

from .det_common import (
    F32,
    I64,
    best_per_row,
    centre_and_size,
    clip,
    column,
    decode,
    floats,
    ints,
    iota,
    magnitude,
    scalar,
    split,
    whwh,
)


def normalize(b: Builder, node: Node) -> Value:
    """(data - mean) / std, and a comparison of each row's and column's number with the image's size."""
    data, im_info = node.operand(0), node.operand(1)
    mean, std = node.attributes["mean"], node.attributes["std"]
    assert isinstance(mean, tuple) and isinstance(std, tuple)
    shifted = b.onnx.Sub(data, _per_channel(b, mean))
    if any(s != 1.0 for s in std):
        shifted = b.onnx.Div(shifted, _per_channel(b, std))
    size = b.onnx.Reshape(b.onnx.Cast(im_info, to=I64), ints(b, -1, 3, 1, 1))
    height, width, _ = split(b, size, (1, 1, 1), axis=1)
    shape = b.onnx.Shape(data)
    rows = b.onnx.Less(b.onnx.Unsqueeze(iota(b, shape, 2), ints(b, 1)), height)
    columns = b.onnx.Less(iota(b, shape, 3), width)
    return b.onnx.Where(b.onnx.And(rows, columns), shifted, scalar(b, 0.0))


def _per_channel(b: Builder, values: tuple[Attribute, ...]) -> Value:
    return b.constant([[[v]] for v in values], F32)


def apply_deltas(b: Builder, node: Node) -> Value:
    """Box regression for K boxes per row at once."""
    deltas, boxes = node.operand(0), node.operand(1)
    columns = deltas.shape[1]
    if not isinstance(columns, int):
        raise NoMatch("the number of boxes per row is not known")
    # -1 stands for the rows: there may be none of them, and -1 for anything else would be ambiguous then.
    per_row = b.onnx.Reshape(deltas, ints(b, -1, columns // 4, 4))
    weights, clamp = node.attributes["weights"], node.attributes["scale_clamp"]
    centre, size = centre_and_size(b, b.onnx.Unsqueeze(boxes, ints(b, 1)))
    decoded = decode(b, per_row, centre, size, weights, clamp)  # type: ignore[arg-type]
    return b.onnx.Reshape(decoded, ints(b, -1, columns))


def box_inference(b: Builder, node: Node) -> list[Value]:
    """NonMaxSuppression with the classes as its batch, so that each class has boxes of its own, and the images as
    its classes, so that images of any number of rows need no padding."""
    boxes, scores, batch_index, im_info = (node.operand(i) for i in range(4))
    classes, columns = scores.shape[1], boxes.shape[1]
    if not isinstance(classes, int) or not isinstance(columns, int):
        raise NoMatch("the number of classes is not known")
    threshold, limit = float(node.attributes["score_thresh"]), int(node.attributes["topk_per_image"])  # type: ignore[arg-type]
    foreground, _ = split(b, scores, (classes - 1, 1), axis=1)
    size = b.onnx.Add(magnitude(b, boxes, 1), magnitude(b, scores, 1))
    finite = b.onnx.Less(size, scalar(b, math.inf))  # [R]

    bounds = b.onnx.Gather(whwh(b, im_info), batch_index, axis=0)
    per_row = b.onnx.Reshape(boxes, ints(b, -1, columns // 4, 4))
    clipped = clip(b, per_row, b.onnx.Unsqueeze(bounds, ints(b, 1)))
    by_class = b.onnx.Transpose(clipped, perm=[1, 0, 2])  # [K or 1, R, 4]
    if columns == 4 and classes - 1 != 1:
        by_class = b.onnx.Expand(by_class, ints(b, classes - 1, 1, 1))
    class_scores = b.onnx.Transpose(foreground, perm=[1, 0])  # [K, R]

    images = b.onnx.Unsqueeze(iota(b, b.onnx.Shape(im_info), 0), ints(b, 1))  # [N, 1]
    of_image = b.onnx.And(b.onnx.Equal(batch_index, images), finite)  # [N, R]
    never = min(threshold, 0.0) - 1.0
    candidates = b.onnx.Where(
        of_image, b.onnx.Unsqueeze(class_scores, ints(b, 1)), scalar(b, never)
    )  # [K, N, R]
    most = limit if limit >= 0 else 2**31 - 1
    chosen = b.onnx.NonMaxSuppression(
        by_class,
        candidates,
        ints(b, most),
        floats(b, float(node.attributes["nms_thresh"])),  # type: ignore[arg-type]
        floats(b, threshold),
    )  # [S, 3]: class, image, row
    class_row = b.onnx.Gather(chosen, ints(b, 0, 2), axis=1)
    chosen_scores = b.onnx.GatherND(class_scores, class_row)  # [S]
    image_of = column(b, chosen, 1)

    per_image = b.onnx.Where(b.onnx.Equal(image_of, images), chosen_scores, scalar(b, -math.inf))  # [N, S]
    places, _, columns = best_per_row(b, per_image, limit)
    order = b.onnx.GatherND(columns, places)  # [D]
    detected = b.onnx.Gather(class_row, order, axis=0)
    return [
        b.onnx.GatherND(by_class, detected),
        b.onnx.Gather(chosen_scores, order, axis=0),
        column(b, detected, 0),
        column(b, places, 0),
    ]


def clip_boxes(b: Builder, node: Node) -> Value:
    """Each box against its own image's bounds."""
    boxes, batch_index, im_info = (node.operand(i) for i in range(3))
    return clip(b, boxes, b.onnx.Gather(whwh(b, im_info), batch_index, axis=0))


def rescale_boxes(b: Builder, node: Node) -> Value:
    """Scale and clip, with each box's own image's factors."""
    boxes, batch_index, im_info, output_size = (node.operand(i) for i in range(4))
    target = whwh(b, b.onnx.Cast(output_size, to=F32))
    scale = b.onnx.Gather(b.onnx.Div(target, whwh(b, im_info)), batch_index, axis=0)
    return clip(b, b.onnx.Mul(boxes, scale), b.onnx.Gather(target, batch_index, axis=0))


def nonempty(b: Builder, node: Node) -> Value:
    """The rows whose shorter side passes the threshold."""
    low, high = split(b, node.operand(0), (2, 2), axis=1)
    shorter = b.onnx.ReduceMin(b.onnx.Sub(high, low), ints(b, 1), keepdims=0)
    threshold = node.attributes.get("threshold", 0.0)
    rows = b.onnx.NonZero(b.onnx.Greater(shorter, scalar(b, float(threshold))))  # type: ignore[arg-type]
    return b.onnx.Squeeze(rows, ints(b, 0))
