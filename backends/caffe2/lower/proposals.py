"""Region proposals as Caffe2's operators, with the arguments that detectron2's exporter (v0.6) gives them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from detc.ir import Constant, Node, Value
from detc.passes.core.base import NoMatch, integer, integers, number

from .builder import INT64, Caffe2Builder, sized, whole
from .det import ANGLES, ROIS, check_decoding

Proposals = tuple[list[Value], list[Value]]
"""Of one image, for each level: rois f32[n,5] (image, x0, y0, x1, y1), their scores f32[n]."""


def grid_proposals(b: Caffe2Builder, node: Node) -> list[Value]:
    """GenerateProposals, of each level and image and then CollectRpnProposals of each image if there are levels."""
    check_decoding(node, (1.0,) * 4)
    if len(node.operand_list(0)) == 1:
        return _one_level(b, node)
    limit = integer(node, "post_nms_topk")
    levels = by_level(b, node)
    return (_merged_with_scores if node.results[1].is_used else _merged)(b, levels, limit)


def _one_level(b: Caffe2Builder, node: Node) -> list[Value]:
    # No levels to be merged, so that the operator may have the batch.
    (logits,), (deltas,), (cells,) = (node.operand_list(i) for i in range(3))
    (stride,) = integers(node, "strides")
    rois, scores = b.caffe2.GenerateProposals(
        logits,
        deltas,
        node.operand(3),
        _shifted(b, cells, number(node, "offset") * stride),
        spatial_scale=1.0 / stride,
        **_arguments(b, node),
    )
    return _boxes_and_index(b, rois, sized(scores, b.result.shape[0]))


def by_level(b: Caffe2Builder, node: Node) -> list[Proposals]:
    """Each image's proposals, level by level."""
    logits, deltas, cells = (node.operand_list(i) for i in range(3))
    im_info, strides = node.operand(3), integers(node, "strides")
    images = whole(im_info.shape[0], "the number of images")
    anchors = [
        _shifted(b, cell, number(node, "offset") * stride)
        for cell, stride in zip(cells, strides, strict=True)
    ]
    parts = [_per_image(b, value, images) for value in (*logits, *deltas, im_info)]
    found: list[Proposals] = []
    for image in range(images):
        *maps, size = (part[image] for part in parts)
        levels = zip(maps[: len(strides)], maps[len(strides) :], anchors, strides, strict=True)
        made = [
            b.caffe2.GenerateProposals(
                scores, moves, size, cell, spatial_scale=1.0 / stride, **_arguments(b, node)
            )
            for scores, moves, cell, stride in levels
        ]
        found.append(([rois for rois, _ in made], [scores for _, scores in made]))
    return found


def _merged(b: Caffe2Builder, images: list[Proposals], limit: int) -> list[Value]:
    found: list[Value] = []
    for image, (rois, scores) in enumerate(images):
        # Only the levels' number counts; detectron2 calls an FPN's p2 to p6.
        merged = b.caffe2.CollectRpnProposals(
            [*rois, *scores], rpn_max_level=len(rois) + 1, rpn_min_level=2, rpn_post_nms_topN=limit
        )
        if image:
            merged = b.caffe2.Add(merged, b.constant([[image, 0, 0, 0, 0]], torch.float32))
        found.append(merged)
    return _boxes_and_index(b, b.concat(found, 0))


def _merged_with_scores(b: Caffe2Builder, images: list[Proposals], limit: int) -> list[Value]:
    """CollectRpnProposals drops the scores, but not what stands where it expects the number of the image."""
    found: list[Value] = []
    for rois, scores in images:
        values = b.concat(scores, 0)
        boxes = b.columns(b.concat(rois, 0), 1, 5)
        scored = b.concat([b.caffe2.ExpandDims(values, dims=(1,)), boxes], 1)
        found.append(
            b.caffe2.CollectRpnProposals(
                [scored, values], rpn_max_level=2, rpn_min_level=2, rpn_post_nms_topN=limit
            )
        )
    if len(found) > 1:
        # The images' numbers follow as a column, so that all is joined at once.
        for image, rows in enumerate(found):
            number = b.caffe2.ConstantFill(b.columns(rows, 0, 1), value=float(image))
            found[image] = b.concat([rows, number], 1)
    rows = sized(b.concat(found, 0), b.result.shape[0])
    scores_kept = b.column(rows)
    if len(found) > 1:
        index = b.caffe2.Cast(b.column(rows, 5), to=INT64)
    else:
        index = b.caffe2.ConstantFill(scores_kept, value=0, dtype=INT64)
    return [b.columns(rows, 1, 5), scores_kept, index]


def _boxes_and_index(b: Caffe2Builder, rois: Value, scores: Value | None = None) -> list[Value]:
    """What the IR has for `rois`: boxes, scores and image numbers. Without scores nobody wants them."""
    rois.name = "rpn_rois"
    boxes = b.columns(sized(rois, b.result.shape[0]), 1, 5)
    column = b.column(rois)
    index = b.caffe2.Cast(column, to=INT64)
    b.note(ROIS, boxes, index, means=rois)
    return [boxes, column if scores is None else scores, index]


def _arguments(b: Caffe2Builder, node: Node) -> dict[str, object]:
    """Those of GenerateProposals that all levels share.

    The operator keeps boxes whose sides are `min_size`, the model only larger ones. Of a box head that is true as in
    detectron2's nets: a box without area has no features, and is no detection. Where proposals are what the net
    gives, the next larger number makes the two the same.
    """
    least = torch.tensor(number(node, "min_box_size"))
    if node.results[1].is_used:
        # Not one so small that a processor may take it for zero.
        least = torch.nextafter(least, torch.tensor(torch.inf)).clamp(min=torch.finfo(torch.float32).tiny)
    return {
        "pre_nms_topN": integer(node, "pre_nms_topk"),
        "post_nms_topN": integer(node, "post_nms_topk"),
        "nms_thresh": number(node, "nms_thresh"),
        "min_size": float(least),
        **ANGLES,
        "legacy_plus_one": False,
    }


def _shifted(b: Caffe2Builder, cells: Value, offset: float) -> Value:
    """The cell anchors of the first position, which lies `offset` pixels from the corner."""
    if not offset:
        return cells
    if not isinstance(cells, Constant):
        raise NoMatch("anchors that are not constant")
    # Of rotated ones only the center is a place.
    moved = torch.tensor([offset] * 4 if cells.shape[1] == 4 else [offset, offset, 0.0, 0.0, 0.0])
    return b.graph.constant(cells.data + moved, f"{cells.name or 'anchors'}_shifted")


def _per_image(b: Caffe2Builder, value: Value, images: int) -> Sequence[Value]:
    """The batch, image by image; each keeps its first dimension. Rois of a batch are not selected by image."""
    if images == 1:
        return (value,)
    return b.caffe2.Split(value, output_count=images, axis=0)
