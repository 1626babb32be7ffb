"""Lowering of `det.*` on masks to ai.onnx operators."""

from __future__ import annotations

from detc.ir import Node, Value
from detc.passes.core.base import NoMatch, number
from detc.passes.rewrite.conversion import LoweringRule

from .builder import OnnxBuilder
from .det_common import F32, I64, ints, scalar, split


def paste_masks(b: OnnxBuilder, node: Node) -> Value:
    """Bilinear resampling into a box is separable: rows x mask x columns, two matrix products for all masks.

    A pixel's weight for a mask's row or column is the hat function of their distance, which is zero beyond one.
    """
    masks, boxes, _, output_size = (node.operand(i) for i in range(4))
    side = masks.shape[-1]
    if not isinstance(side, int) or masks.shape[-2] != side:
        raise NoMatch("the masks are not square, or of unknown size")
    low, high = split(b, b.onnx.Unsqueeze(boxes, ints(b, 2)), (2, 2), axis=1)  # [D, 2, 1]: x and y
    scale = b.onnx.Div(scalar(b, float(side)), b.onnx.Sub(high, low))
    largest = b.onnx.ReduceMax(output_size, ints(b, 0), keepdims=0)  # [2]: height, width
    length = b.onnx.ReduceMax(largest, ints(b, 0), keepdims=0)
    # Pixel p's centre is p + 0.5; mask cell m's centre is m + 0.5 in mask pixels.
    pixels = b.onnx.Range(scalar(b, 0.5), b.onnx.Cast(length, to=F32), scalar(b, 1.0))
    place = b.onnx.Mul(b.onnx.Sub(pixels, low), scale)  # [D, 2, M]
    cells = b.constant([m + 0.5 for m in range(side)], F32)
    distance = b.onnx.Abs(b.onnx.Sub(b.onnx.Unsqueeze(place, ints(b, 3)), cells))  # [D, 2, M, S]
    weights = b.onnx.Relu(b.onnx.Sub(scalar(b, 1.0), distance))
    # No axis of length one is left to be taken off the result, which is as large as all the images together.
    across, down = (b.onnx.Gather(weights, b.constant(axis, I64), axis=1) for axis in (0, 1))  # [D, M, S]
    height, width = (b.onnx.Gather(largest, ints(b, axis), axis=0) for axis in (0, 1))
    rows = b.onnx.Slice(down, ints(b, 0), height, ints(b, 1))
    columns = b.onnx.Transpose(b.onnx.Slice(across, ints(b, 0), width, ints(b, 1)), perm=[0, 2, 1])
    drawn = b.onnx.MatMul(b.onnx.MatMul(rows, b.onnx.Squeeze(masks, ints(b, 1))), columns)
    return b.onnx.GreaterOrEqual(drawn, scalar(b, number(node, "threshold")))


TABLE: dict[str, LoweringRule] = {"det.paste_masks": paste_masks}
