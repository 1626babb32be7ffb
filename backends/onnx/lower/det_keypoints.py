"""Lowering of `det.*` on keypoints to ai.onnx operators."""

from __future__ import annotations

from detc.ir import Graph, Node, TensorType, Value
from detc.passes.core.base import NoMatch
from detc.passes.rewrite.conversion import LoweringRule

from .builder import OnnxBuilder, PlainBuilder
from .det_common import F32, I64, ints, scalar, scan, split

_MARGIN = 2
"""Cells on each side of a map that bicubic interpolation takes from beyond its border."""


def keypoint_inference(b: OnnxBuilder, node: Node) -> Value:
    """A step for each box: its maps are resized, which is two matrix products, and searched.

    Only one box's resized maps are held at a time, whatever the sizes of the others.
    """
    heatmaps, boxes = node.operand(0), node.operand(1)
    side = heatmaps.shape[-1]
    if not isinstance(side, int) or heatmaps.shape[-2] != side:
        raise NoMatch("the heatmaps are not square, or of unknown size")
    low, high = split(b, boxes, (2, 2), axis=1)
    sides = b.onnx.Max([b.onnx.Sub(high, low), scalar(b, 1.0)])  # [D, 2]: width, height
    pixels = b.onnx.Ceil(sides)
    count = b.onnx.Cast(pixels, to=I64)
    # One box more, of one pixel, whose result is dropped: runtimes do not walk over nothing.
    maps = b.onnx.Pad(heatmaps, ints(b, 0, 1), scalar(b, 0.0), ints(b, 0))
    step = b.onnx.Pad(b.onnx.Div(scalar(b, float(side)), pixels), ints(b, 0, 1), scalar(b, 1.0), ints(b, 0))
    counts = b.onnx.Pad(count, ints(b, 0, 1), b.constant(1, I64), ints(b, 0))
    around = b.onnx.Pad(maps, ints(b, *[_MARGIN] * 4), None, ints(b, 2, 3), mode="edge")
    best, place = scan(b, _search_step(node, side), [], [around, step, counts])
    best, place = (b.onnx.Slice(found, ints(b, 0), b.onnx.Shape(boxes, end=1)) for found in (best, place))

    width, _ = split(b, count, (1, 1), axis=1)
    cells = [b.onnx.Mod(place, width), b.onnx.Div(place, width)]
    cell = b.onnx.Cast(b.onnx.Concat([b.onnx.Unsqueeze(c, ints(b, 2)) for c in cells], axis=2), to=F32)
    correction = b.onnx.Unsqueeze(b.onnx.Div(sides, pixels), ints(b, 1))
    xy = b.onnx.Mul(b.onnx.Add(cell, scalar(b, 0.5)), correction)
    xy = b.onnx.Add(xy, b.onnx.Unsqueeze(low, ints(b, 1)))  # [D, K, 2]
    above = b.onnx.Sub(heatmaps, b.onnx.Unsqueeze(best, ints(b, 2, 3)))
    total = b.onnx.ReduceSum(b.onnx.Exp(above), ints(b, 2, 3), keepdims=0)
    score = b.onnx.Unsqueeze(b.onnx.Reciprocal(total), ints(b, 2))
    return b.onnx.Concat([xy, score], axis=2)


def _search_step(node: Node, side: int) -> Graph:
    """One box: the greatest value of each of its resized maps, and where in the resized map it is.

    maps f32[K,T,T], its maps with the margin around them; step f32[2], cells per pixel across and down; pixels i64[2],
    its width and height.
    """
    body = Graph("search_box", level="onnx")
    keypoints, padded = node.operand(0).shape[1], side + 2 * _MARGIN
    maps = body.add_input("maps", TensorType(F32, (keypoints, padded, padded)))
    step = body.add_input("step", TensorType(F32, (2,)))
    pixels = body.add_input("pixels", TensorType(I64, (2,)))
    b = PlainBuilder(body)
    weights = _cubic_weights(b, step, pixels, side)  # [2, L, T]
    width, height = split(b, pixels, (1, 1), axis=0)
    across, down = (
        b.onnx.Slice(b.onnx.Gather(weights, b.constant(axis, I64), axis=0), ints(b, 0), length, ints(b, 0))
        for axis, length in ((0, width), (1, height))
    )  # [w, T], [h, T]
    rows = b.onnx.MatMul(down, maps)  # [K, h, T]
    resized = b.onnx.MatMul(rows, b.onnx.Transpose(across, perm=[1, 0]))  # [K, h, w]
    flat = b.onnx.Reshape(resized, ints(b, 0, -1))
    best = b.onnx.ReduceMax(flat, ints(b, 1), keepdims=0)
    body.set_outputs({"best": best, "place": b.onnx.ArgMax(flat, axis=1, keepdims=0)})
    return body


def _cubic_weights(b: PlainBuilder, step: Value, pixels: Value, side: int) -> Value:
    """How much each cell counts for each pixel f32[2,L,T], across and down, L being the longer side's pixels.

    Pixel p lies at (p + 0.5) * step - 0.5 among the cells' centres. With a = -0.75, a cell at distance d counts
    1 - d^2 (2.25 - 1.25 d) up to d = 1, and a (d - 1) (d - 2)^2 up to d = 2 (Keys 1981, as torch has it).
    """
    longest = b.onnx.Cast(b.onnx.ReduceMax(pixels, keepdims=0), to=F32)
    centres = b.onnx.Range(scalar(b, 0.5), b.onnx.Add(longest, scalar(b, 0.5)), scalar(b, 1.0))  # [L]
    place = b.onnx.Mul(b.onnx.Unsqueeze(step, ints(b, 1)), centres)  # [2, L]
    cells = b.onnx.Range(scalar(b, 0.5 - _MARGIN), scalar(b, side + _MARGIN), scalar(b, 1.0))
    distance = b.onnx.Abs(b.onnx.Sub(b.onnx.Unsqueeze(place, ints(b, 2)), cells))
    d = b.onnx.Min([distance, scalar(b, 2.0)])
    near = b.onnx.Sub(scalar(b, 2.25), b.onnx.Mul(d, scalar(b, 1.25)))
    near = b.onnx.Sub(scalar(b, 1.0), b.onnx.Mul(b.onnx.Mul(d, d), near))
    beyond = b.onnx.Sub(d, scalar(b, 2.0))
    far = b.onnx.Mul(b.onnx.Sub(d, scalar(b, 1.0)), scalar(b, -0.75))
    far = b.onnx.Mul(far, b.onnx.Mul(beyond, beyond))
    return b.onnx.Where(b.onnx.Less(d, scalar(b, 1.0)), near, far)


TABLE: dict[str, LoweringRule] = {"det.keypoint_inference": keypoint_inference}
