"""Segmentations of a batch, as a compiled file gives them, turned into detectron2's results for each image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from detc.ir.dialects.segmentation import panoptic_combine, place_instances, sem_seg_postprocess
from detc.ir.structures import Instances

Panoptic: TypeAlias = tuple[Tensor, list[dict[str, Any]]]
"""detectron2's panoptic result: the id of each pixel's segment i32[h,w], 0 for none, and the segments, each with
"id", "isthing", "category_id", for things "score" and "instance_id", for stuff "area"."""


def add_segmentations(
    results: Sequence[dict[str, Any]],
    outputs: Mapping[str, Any],
    metadata: Mapping[str, Any],
    im_info: Tensor,
    output_size: Tensor,
    *,
    raw: bool,
) -> None:
    """Add to each image's results "sem_seg" and, for a panoptic model, "panoptic_seg".

    `outputs` are the artifact's, by name; with `raw` it leaves postprocessing to its caller. The panoptic model's
    instances are among the results already, with pred_masks in the output image.
    """
    sizes = output_size.tolist()
    sem_seg = torch.as_tensor(outputs["sem_seg"])
    if raw:
        sem_seg = sem_seg_postprocess(sem_seg, im_info, output_size)
    for result, logits in zip(results, sem_seg_results(sem_seg, sizes), strict=True):
        result["sem_seg"] = logits
    thresholds = metadata.get("panoptic")
    if thresholds is None:
        return
    instances = [result["instances"] for result in results]
    if "panoptic" in outputs:
        combined = (torch.as_tensor(outputs["panoptic"]), torch.as_tensor(outputs["segments"]))
    else:
        combined = _combine(instances, sem_seg, output_size, thresholds)
    for result, found in zip(results, panoptic_results(*combined, instances, thresholds), strict=True):
        result["panoptic_seg"] = found


def _combine(
    instances: Sequence[Instances], sem_seg: Tensor, output_size: Tensor, thresholds: Mapping[str, float]
) -> tuple[Tensor, Tensor]:
    """The images' panoptic maps i32[N,h,w] and segments i64[S,4]."""
    panoptic = torch.zeros(len(sem_seg), *sem_seg.shape[2:], dtype=torch.int32)
    segments: list[Tensor] = []
    for image, (found, (height, width)) in enumerate(zip(instances, output_size.tolist(), strict=True)):
        maps, rows = panoptic_combine(
            found.pred_masks,
            found.scores,
            found.pred_classes,
            torch.zeros(len(found), dtype=torch.int64),
            sem_seg[image, None, :, :height, :width],
            output_size[image, None],
            **thresholds,
        )
        panoptic[image, :height, :width] = maps[0]
        rows[:, 0] = image
        segments.append(rows)
    return panoptic, torch.cat(segments)


def sem_seg_results(sem_seg: Tensor, output_size: Sequence[Sequence[int]]) -> list[Tensor]:
    """Each image's logits [C,height,width], from those of the batch f32[N,C,h,w]."""
    return [logits[:, :height, :width] for logits, (height, width) in zip(sem_seg, output_size, strict=True)]


def panoptic_results(
    panoptic: Tensor, segments: Tensor, instances: Sequence[Instances], thresholds: Mapping[str, float]
) -> list[Panoptic]:
    """Each image's panoptic result, from the maps i32[N,h,w] and the segments i64[S,4] of the batch.

    `instances` are the images', with pred_masks in the output image; `thresholds` what the metadata's "panoptic"
    says: with both, a thing's instance is told.
    """
    results: list[Panoptic] = []
    for image, found in enumerate(instances):
        height, width = found.image_size
        ids = panoptic[image, :height, :width]
        rows = segments[segments[:, 0] == image]
        things = _thing_instances(found, thresholds)
        described: list[dict[str, Any]] = []
        for _, segment, isthing, category in rows.tolist():
            entry = {"id": segment, "isthing": bool(isthing), "category_id": category}
            if isthing:
                row = next(things, None)
                if row is not None:
                    entry |= {"score": float(found.scores[row]), "instance_id": row}
            else:
                entry["area"] = int((ids == segment).sum())
            described.append(entry)
        results.append((ids, described))
    return results


def _thing_instances(instances: Instances, thresholds: Mapping[str, float]) -> Iterator[int]:
    """The instances that make segments, in the order of the segments' ids."""
    kept, _ = place_instances(
        instances.pred_masks,
        instances.scores,
        thresholds["overlap_threshold"],
        thresholds["score_threshold"],
    )
    return iter(kept.tolist())
