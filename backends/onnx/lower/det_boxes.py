"""Lowering of `det.box_inference` to ai.onnx operators."""

from __future__ import annotations

import math

from detc.ir import Node, Value
from detc.ir.dialects.boxes import clip
from detc.passes.core.base import NoMatch, integer, number

from .builder import OnnxBuilder
from .det_common import best_per_row, column, floats, ints, iota, magnitude, scalar, split, whwh


def box_inference(b: OnnxBuilder, node: Node) -> list[Value]:
    """NonMaxSuppression with the classes as its batch, so that each class has boxes of its own, and the images as
    its classes, so that images of any number of rows need no padding."""
    boxes, scores, batch_index, im_info = (node.operand(i) for i in range(4))
    classes, columns = scores.shape[1], boxes.shape[1]
    if not isinstance(classes, int) or not isinstance(columns, int):
        raise NoMatch("the number of classes is not known")
    threshold, limit = number(node, "score_thresh"), integer(node, "topk_per_image")
    foreground, _ = split(b, scores, (classes - 1, 1), axis=1)
    size = b.onnx.Add(magnitude(b, boxes, 1), magnitude(b, scores, 1))
    finite = b.onnx.Less(size, scalar(b, math.inf))  # [R]

    bounds = b.onnx.Gather(whwh(b, im_info), batch_index, axis=0)
    per_row = b.onnx.Reshape(boxes, ints(b, -1, columns // 4, 4))
    (clipped,) = b.written_out(clip, per_row, b.onnx.Unsqueeze(bounds, ints(b, 1)))
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
        floats(b, number(node, "nms_thresh")),
        floats(b, threshold),
    )  # [S, 3]: class, image, row
    class_row = b.onnx.Gather(chosen, ints(b, 0, 2), axis=1)
    chosen_scores = b.onnx.GatherND(class_scores, class_row)  # [S]
    image_of = column(b, chosen, 1)

    per_image = b.onnx.Where(b.onnx.Equal(image_of, images), chosen_scores, scalar(b, -math.inf))  # [N, S]
    places, _, ranked = best_per_row(b, per_image, limit)
    order = b.onnx.GatherND(ranked, places)  # [D]
    detected = b.onnx.Gather(class_row, order, axis=0)
    return [
        b.onnx.GatherND(by_class, detected),
        b.onnx.Gather(chosen_scores, order, axis=0),
        column(b, detected, 0),
        column(b, places, 0),
    ]
