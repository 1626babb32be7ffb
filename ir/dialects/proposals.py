"""`det.rpn_proposals`: detectron2's decoding and selection of proposals (modeling/proposal_generator)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import IRError
from ..ops import Fresh, op
from ..types import TensorType, Type
from .box_forms import form_of
from .boxes import anchors, boxes_type, clip, decode, parts, sides, tensor, whwh


def _rpn_proposals_type(
    logits: tuple[Type, ...], deltas: tuple[Type, ...], anchors: tuple[Type, ...], im_info: Type, **_: object
) -> tuple[Type, ...]:
    if not (len(logits) == len(deltas) == len(anchors)) or not logits:
        raise IRError(f"{len(logits)} levels of logits, {len(deltas)} of deltas, {len(anchors)} of anchors")
    for i, (score, delta, anchor) in enumerate(zip(logits, deltas, anchors, strict=True)):
        scored, moved, placed = (
            tensor(score, 4, "logits"),
            tensor(delta, 4, "deltas"),
            boxes_type(anchor, "anchors"),
        )
        if moved.shape[1] != scored.shape[1] * placed.shape[1] or moved.shape[2:] != scored.shape[2:]:
            raise IRError(f"level {i}: the deltas {moved} do not fit the logits {scored}")
    tensor(im_info, 2, "im_info")
    first = tensor(logits[0], 4, "logits")
    box_dim = tensor(anchors[0], 2, "anchors").shape[1]
    found = Fresh("proposals")
    return (
        TensorType(first.dtype, (found, box_dim)),
        TensorType(first.dtype, (found,)),
        TensorType(torch.int64, (found,)),
    )


@op("det.rpn_proposals", infer=_rpn_proposals_type)
def rpn_proposals(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    im_info: Tensor,
    *,
    weights: tuple[float, ...],
    scale_clamp: float,
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Proposals from the RPN head's maps: the best of each level decoded, clipped, NMS within each level,
    merged.

    Each level gives its `pre_nms_topk` best anchors; rows that are not finite or not longer than
    `min_box_size` pixels on both sides are left out; each image keeps its `post_nms_topk` best. Boxes are clipped and
    suppress one another as in `det.box_inference`.

    Shapes, per level: logits f32[N,A,h,w], deltas f32[N,A*4,h,w], anchors f32[h*w*A,4]; im_info f32[N,3].
    Results: boxes f32[P,4], objectness logits f32[P], batch_index i64[P], by image, then by falling logit.
    Rotated: 5 for 4.
    """
    form, images = form_of(anchors[0]), len(im_info)
    decoded: list[Tensor] = []
    scores: list[Tensor] = []
    levels: list[Tensor] = []
    for level, (score, delta, anchor) in enumerate(zip(logits, deltas, anchors, strict=True)):
        flat_score = score.permute(0, 2, 3, 1).flatten(1)
        flat_delta = delta.permute(0, 2, 3, 1).reshape(images, -1, form.columns)
        count = min(pre_nms_topk, flat_score.shape[1])
        best, index = flat_score.topk(count, dim=1)
        chosen = flat_delta.gather(1, index[..., None].expand(-1, -1, form.columns))
        placed = anchor[index]
        decoded.append(decode(chosen, *parts(placed), weights=weights, scale_clamp=scale_clamp))
        scores.append(best)
        levels.append(torch.full((count,), level, device=score.device))
    all_decoded, all_scores, all_levels = torch.cat(decoded, 1), torch.cat(scores, 1), torch.cat(levels)
    all_boxes, shorter = clipped(all_decoded, im_info)
    valid = torch.isfinite(all_decoded).all(dim=2) & torch.isfinite(all_scores) & (shorter > min_box_size)

    results: list[tuple[Tensor, Tensor, Tensor]] = []
    for image in range(images):
        mine = valid[image]
        box, score, level_of = all_boxes[image][mine], all_scores[image][mine], all_levels[mine]
        keep = form.nms(box.float(), score, level_of, nms_thresh)[:post_nms_topk]
        results.append((box[keep], score[keep], torch.full_like(keep, image)))
    return (
        torch.cat([r[0] for r in results]),
        torch.cat([r[1] for r in results]),
        torch.cat([r[2] for r in results]),
    )


def clipped(boxes: Tensor, im_info: Tensor) -> tuple[Tensor, Tensor]:
    """Each image's boxes [N,K,columns] cut to it, and how long their shorter sides [N,K] are then."""
    inside = clip(boxes, whwh(im_info)[:, None])
    return inside, sides(inside).amin(dim=2)


def refined(
    deltas: Tensor,
    centre: Tensor,
    rest: Tensor,
    im_info: Tensor,
    *,
    weights: tuple[float, ...],
    scale_clamp: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """What becomes of candidates, given by the parts of their anchors [N,K,*]: decoded, and `clipped`."""
    decoded = decode(deltas, centre, rest, weights=weights, scale_clamp=scale_clamp)
    return decoded, *clipped(decoded, im_info)


def _grid_proposals_type(
    logits: tuple[Type, ...],
    deltas: tuple[Type, ...],
    cell_anchors: tuple[Type, ...],
    im_info: Type,
    **rest: object,
) -> tuple[Type, ...]:
    strides = rest["strides"]
    if not isinstance(strides, tuple) or len(strides) != len(logits):
        raise IRError(f"{len(logits)} levels need as many strides, not {strides}")
    for i, (score, cells) in enumerate(zip(logits, cell_anchors, strict=True)):
        if tensor(score, 4, "logits").shape[1] != boxes_type(cells, "cell_anchors").shape[0]:
            raise IRError(f"level {i}: {cells} cell anchors for the logits {score}")
    return _rpn_proposals_type(logits, deltas, cell_anchors, im_info)


@op("det.grid_proposals", infer=_grid_proposals_type)
def grid_proposals(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    cell_anchors: Sequence[Tensor],
    im_info: Tensor,
    *,
    strides: tuple[int, ...],
    offset: float,
    weights: tuple[float, ...],
    scale_clamp: float,
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """`det.rpn_proposals` over the anchors of `det.anchors`, which a target need compute only where they are kept.

    Shapes, per level: logits f32[N,A,h,w], deltas f32[N,A*4,h,w], cell_anchors f32[A,4]; im_info f32[N,3].
    Results: as those of `det.rpn_proposals`. Rotated: 5 for 4.
    """
    placed = [
        anchors(score, cells, stride=stride, offset=offset)
        for score, cells, stride in zip(logits, cell_anchors, strides, strict=True)
    ]
    return rpn_proposals(
        logits,
        deltas,
        placed,
        im_info,
        weights=weights,
        scale_clamp=scale_clamp,
        nms_thresh=nms_thresh,
        pre_nms_topk=pre_nms_topk,
        post_nms_topk=post_nms_topk,
        min_box_size=min_box_size,
    )


def _dense_proposals_type(
    maps: tuple[Type, ...], cell_anchors: tuple[Type, ...], im_info: Type, **rest: object
) -> Any:
    strides = rest["strides"]
    if not isinstance(strides, tuple) or not len(maps) == len(cell_anchors) == len(strides):
        raise IRError(f"{len(maps)} levels, {len(cell_anchors)} of cell anchors, strides {strides}")
    for i, (both, cells) in enumerate(zip(maps, cell_anchors, strict=True)):
        count, box_dim = boxes_type(cells, "cell_anchors").shape
        if tensor(both, 4, "a map").shape[1] != count * (box_dim + 1):
            raise IRError(f"level {i}: {cells} cell anchors for the map {both}")
    tensor(im_info, 2, "im_info")
    first, found = tensor(maps[0], 4, "a map"), Fresh("proposals")
    boxes = TensorType(first.dtype, (found, tensor(cell_anchors[0], 2, "cell_anchors").shape[1]))
    return (boxes, TensorType(first.dtype, (found,)), TensorType(torch.int64, (found,)))


@op("det.dense_proposals", infer=_dense_proposals_type)
def dense_proposals(
    maps: Sequence[Tensor],
    cell_anchors: Sequence[Tensor],
    im_info: Tensor,
    *,
    strides: tuple[int, ...],
    offset: float,
    weights: tuple[float, ...],
    scale_clamp: float,
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """`det.grid_proposals` where one map holds logits and deltas: for each anchor (logit, dx, dy, dw, dh).

    Shapes, per level: maps f32[N,A*5,h,w], cell_anchors f32[A,4]; im_info f32[N,3].
    Results: as those of `det.rpn_proposals`. Rotated: 6 for 5, 5 for 4.
    """
    logits: list[Tensor] = []
    deltas: list[Tensor] = []
    for both, cells in zip(maps, cell_anchors, strict=True):
        count = len(cells)
        per_anchor = both.reshape(len(both), count, both.shape[1] // count, *both.shape[2:])
        logits.append(per_anchor[:, :, 0])
        deltas.append(per_anchor[:, :, 1:].flatten(1, 2))
    return grid_proposals(
        logits,
        deltas,
        cell_anchors,
        im_info,
        strides=strides,
        offset=offset,
        weights=weights,
        scale_clamp=scale_clamp,
        nms_thresh=nms_thresh,
        pre_nms_topk=pre_nms_topk,
        post_nms_topk=post_nms_topk,
        min_box_size=min_box_size,
    )
