"""Lowering of `det.*` on semantic and panoptic segmentation to ai.onnx operators.

Where an image's turn depends on its size, or an instance's on those before it, a Scan walks over them.
"""

from __future__ import annotations

import math

import torch

from detc.ir import Dim, Graph, Node, TensorType, Value, symbol
from detc.passes.core.base import NoMatch, number
from detc.passes.rewrite.conversion import LoweringRule

from .builder import OnnxBuilder, PlainBuilder
from .det_common import F32, I64, ints, iota, scalar, scan, split

I32, BOOL = torch.int32, torch.bool
_HEIGHT, _WIDTH = symbol("height"), symbol("width")


def _resize_step(channels: Dim) -> Graph:
    """One image: its logits cut to `size`, resized to `output`, and padded with zeros to `largest`."""
    body = Graph("resize_image", level="onnx")
    pair = TensorType(I64, (2,))
    largest = body.add_input("largest", pair)
    logits = body.add_input("logits", TensorType(F32, (channels, _HEIGHT, _WIDTH)))
    size, output = body.add_input("size", pair), body.add_input("output", pair)
    b = PlainBuilder(body)
    own = b.onnx.Unsqueeze(b.onnx.Slice(logits, ints(b, 0, 0), size, ints(b, 1, 2)), ints(b, 0))
    sizes = b.onnx.Concat([b.onnx.Shape(own, end=2), output], axis=0)
    resized = b.onnx.Resize(own, None, None, sizes, mode="linear")
    pads = b.onnx.Concat([ints(b, 0, 0), b.onnx.Sub(largest, output)], axis=0)
    padded = b.onnx.Pad(b.onnx.Squeeze(resized, ints(b, 0)), pads, None, ints(b, 1, 2))
    body.set_outputs({"largest": largest, "canvas": padded})
    return body


def sem_seg_postprocess(b: OnnxBuilder, node: Node) -> Value:
    """A step for each image: they differ in what is cut off, and in their output's size."""
    logits, im_info, output_size = (node.operand(i) for i in range(3))
    sizes, _ = split(b, b.onnx.Cast(im_info, to=I64), (2, 1), axis=1)
    largest = b.onnx.ReduceMax(output_size, ints(b, 0), keepdims=0)
    _, canvas = scan(b, _resize_step(logits.shape[1]), [largest], [logits, sizes, output_size])
    return canvas


def _instance_step(overlap_threshold: float) -> Graph:
    """One instance: whether it makes a segment, and the canvas with it. `first` begins an image."""
    body = Graph("add_instance", level="onnx")
    canvas = body.add_input("canvas", TensorType(I32, (_HEIGHT, _WIDTH)))
    count = body.add_input("count", TensorType(I32, ()))
    mask = body.add_input("mask", TensorType(BOOL, (_HEIGHT, _WIDTH)))
    first = body.add_input("first", TensorType(BOOL, ()))
    b = PlainBuilder(body)
    zero = b.constant(0, I32)
    canvas, count = (b.onnx.Where(first, zero, state) for state in (canvas, count))
    free = b.onnx.And(mask, b.onnx.Equal(canvas, zero))
    area, left = (b.onnx.ReduceSum(b.onnx.Cast(pixels, to=I32), keepdims=0) for pixels in (mask, free))
    covered = b.onnx.Cast(b.onnx.Sub(area, left), to=F32)
    share = b.onnx.Div(covered, b.onnx.Cast(b.onnx.Max([area, b.constant(1, I32)]), to=F32))
    kept = b.onnx.And(b.onnx.Greater(area, zero), b.onnx.LessOrEqual(share, scalar(b, overlap_threshold)))
    count = b.onnx.Add(count, b.onnx.Cast(kept, to=I32))
    canvas = b.onnx.Where(b.onnx.And(free, kept), count, canvas)
    body.set_outputs({"canvas": canvas, "count": count, "kept": kept, "counts": count, "canvases": canvas})
    return body


def panoptic_combine(b: OnnxBuilder, node: Node) -> tuple[Value, Value]:
    """Instances one after the other, then stuff by counting the pixels that are left to each class."""
    classes, sem_seg, output_size = (node.operand(i) for i in (2, 4, 5))
    labels = sem_seg.shape[1]
    if not isinstance(labels, int):
        raise NoMatch("the number of classes is not known")
    shape = b.onnx.Shape(sem_seg)
    images = iota(b, shape, 0)
    things, thing_count, thing_rows = _add_things(b, node, shape, images)

    label = b.onnx.ArgMax(sem_seg, axis=1, keepdims=0)  # [N, h, w]
    cell = b.onnx.Add(label, b.onnx.Reshape(b.onnx.Mul(images, b.constant(labels, I64)), ints(b, -1, 1, 1)))
    inside = _inside(b, shape, output_size)
    free = b.onnx.And(inside, b.onnx.Equal(things, b.constant(0, I32)))
    limit = math.ceil(number(node, "stuff_area_limit"))
    enough = b.onnx.GreaterOrEqual(_histogram(b, cell, free, images, labels), b.constant(limit, I32))
    is_stuff = b.onnx.And(enough, b.constant([i > 0 for i in range(labels)], BOOL))  # [N, C]
    if limit <= 0:
        # Then a class makes a segment even if things cover it all, but not one that no pixel is of.
        present = b.onnx.Greater(_histogram(b, cell, inside, images, labels), b.constant(0, I32))
        is_stuff = b.onnx.And(is_stuff, present)
    segment = b.onnx.CumSum(b.onnx.Cast(is_stuff, to=I32), b.constant(1, I64))
    segment = b.onnx.Add(segment, b.onnx.Unsqueeze(thing_count, ints(b, 1)))
    ids = b.onnx.Reshape(b.onnx.Where(is_stuff, segment, b.constant(0, I32)), ints(b, -1))
    panoptic = b.onnx.Where(free, b.onnx.Gather(ids, cell, axis=0), things)

    image, category = split(b, b.onnx.NonZero(is_stuff), (1, 1), axis=0)
    image, category = (b.onnx.Squeeze(part, ints(b, 0)) for part in (image, category))
    place = b.onnx.Add(b.onnx.Mul(image, b.constant(labels, I64)), category)
    stuff_rows = (image, b.onnx.Gather(ids, place, axis=0), category)
    image, segment, row = thing_rows
    return panoptic, _segments(b, (image, segment, b.onnx.Gather(classes, row, axis=0)), stuff_rows)


def _add_things(
    b: OnnxBuilder, node: Node, shape: Value, images: Value
) -> tuple[Value, Value, tuple[Value, Value, Value]]:
    """The instances, one after the other: their ids on each image's canvas i32[N,h,w]; how many segments they make
    i32[N]; and of each segment the image, the id and the instance's row."""
    masks, image, row = node.operand(0), *_order(b, node, images)
    is_end = b.onnx.Less(row, b.constant(0, I64))
    first = b.onnx.Concat([b.constant([True], BOOL), b.onnx.Slice(is_end, ints(b, 0), ints(b, -1))], axis=0)
    # Row -1, after the last mask, is one without a pixel: an image's last step, which leaves its canvas as it is.
    plane = b.onnx.Slice(shape, ints(b, 2), ints(b, 4), ints(b, 0))
    nothing = b.onnx.ConstantOfShape(b.onnx.Concat([ints(b, 1), plane], axis=0), value=(BOOL, False))
    in_turn = b.onnx.Gather(b.onnx.Concat([masks, nothing], axis=0), row, axis=0)
    blank = b.onnx.ConstantOfShape(plane, value=(I32, 0))
    step = _instance_step(number(node, "overlap_threshold"))
    _, _, kept, counts, canvases = scan(b, step, [blank, b.constant(0, I32)], [in_turn, first])
    ends, at = _places(b, is_end), _places(b, kept)
    things, thing_count = (b.onnx.Gather(values, ends, axis=0) for values in (canvases, counts))
    segments = [b.onnx.Gather(values, at, axis=0) for values in (image, counts, row)]
    return things, thing_count, (segments[0], segments[1], segments[2])


def _order(b: OnnxBuilder, node: Node, images: Value) -> tuple[Value, Value]:
    """The steps of the walk over the instances: the image and the instance's row, i64[M] each.

    Each image's instances that score enough follow one another by falling score; after them comes the row -1.
    """
    scores, batch_index = node.operand(1), node.operand(3)
    threshold = scalar(b, number(node, "score_threshold"))
    mine = b.onnx.Equal(b.onnx.Unsqueeze(images, ints(b, 1)), batch_index)  # [N, D]
    good = b.onnx.And(mine, b.onnx.GreaterOrEqual(scores, threshold))
    ranked = b.onnx.Where(good, scores, scalar(b, -math.inf))
    best, rows = b.onnx.TopK(ranked, b.onnx.Shape(scores), axis=1)
    # One more column, which counts in every image.
    best = b.onnx.Pad(best, ints(b, 0, 0, 0, 1), scalar(b, 0.0))
    rows = b.onnx.Pad(rows, ints(b, 0, 0, 0, 1), b.constant(-1, I64))
    places = b.onnx.NonZero(b.onnx.Greater(best, scalar(b, -math.inf)))
    row = b.onnx.GatherND(rows, b.onnx.Transpose(places, perm=[1, 0]))
    return b.onnx.Gather(places, b.constant(0, I64), axis=0), row


def _places(b: OnnxBuilder, flags: Value) -> Value:
    """The places i64[K] where flags bool[M] are set."""
    return b.onnx.Squeeze(b.onnx.NonZero(flags), ints(b, 0))


def _inside(b: OnnxBuilder, shape: Value, output_size: Value) -> Value:
    """Which pixels of the canvas are an image's own: bool[N,h,w]."""
    height, width = split(b, b.onnx.Unsqueeze(output_size, ints(b, 2)), (1, 1), axis=1)  # [N, 1, 1] each
    rows = b.onnx.Less(b.onnx.Unsqueeze(iota(b, shape, 2), ints(b, 1)), height)  # [N, h, 1]
    return b.onnx.And(rows, b.onnx.Less(iota(b, shape, 3), width))


def _histogram(b: OnnxBuilder, cell: Value, counted: Value, images: Value, labels: int) -> Value:
    """How many of the counted pixels (bool[N,h,w]) lie in each cell (i64[N,h,w], image * labels + label):
    i32[N,labels]."""
    cells = b.onnx.Mul(b.onnx.Shape(images), ints(b, labels))
    zeros = b.onnx.ConstantOfShape(cells, value=(I32, 0))
    ones = b.onnx.Reshape(b.onnx.Cast(counted, to=I32), ints(b, -1))
    total = b.onnx.ScatterElements(zeros, b.onnx.Reshape(cell, ints(b, -1)), ones, axis=0, reduction="add")
    return b.onnx.Reshape(total, ints(b, -1, labels))


def _segments(b: OnnxBuilder, things: tuple[Value, ...], stuff: tuple[Value, ...]) -> Value:
    """Rows (image, id, isthing, category) i64[S,4] by image and id, from columns (image, id, category) of both."""
    image, number, category = (
        b.onnx.Cast(b.onnx.Concat([thing, other], axis=0), to=I64)
        for thing, other in zip(things, stuff, strict=True)
    )
    size = b.onnx.Shape(image)
    is_thing = b.onnx.Cast(b.onnx.Less(iota(b, size, 0), b.onnx.Shape(things[0])), to=I64)
    # No id is greater than the number of segments.
    step = b.onnx.Add(size, ints(b, 1))
    key = b.onnx.Add(b.onnx.Mul(image, step), number)
    _, order = b.onnx.TopK(key, size, axis=0, largest=0)
    columns = [b.onnx.Unsqueeze(column, ints(b, 1)) for column in (image, number, is_thing, category)]
    return b.onnx.Gather(b.onnx.Concat(columns, axis=1), order, axis=0)


TABLE: dict[str, LoweringRule] = {
    "det.sem_seg_postprocess": sem_seg_postprocess,
    "det.panoptic_combine": panoptic_combine,
}
