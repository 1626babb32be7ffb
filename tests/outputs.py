"""Compares what a model gives for an image with what detectron2 gave, whatever kinds of results these are."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

from detc.backends.arrays import as_arrays, batch_images, to_array
from detc.backends.segmentation import add_segmentations
from detc.frontend.detectron2.config import Config, load_config
from detc.ir import Graph, run
from detc.ir.structures import Instances
from tests import parity, zoo


@functools.cache
def config(name: str) -> Config:
    return load_config(zoo.config_path(name))


def cuts(name: str) -> dict[str, Any]:
    """Where a model cuts its detections off."""
    cfg = config(name)
    section = cfg.MODEL.RETINANET if name.startswith("retinanet") else cfg.MODEL.ROI_HEADS
    return {"thresholds": [section.SCORE_THRESH_TEST], "limit": cfg.TEST.DETECTIONS_PER_IMAGE}


def compare_output(name: str, prefix: str, output: dict[str, Any]) -> None:
    """Compare the outputs for one image with the golden's under `prefix`, in detectron2's format both."""
    golden = zoo.golden(name)
    expected = golden.under(prefix)
    kinds = {key.split("/")[0] for key in expected}
    assert kinds <= set(output)  # batches have goldens of the instances alone
    if "instances" in kinds:
        instances = output["instances"]
        assert list(instances.image_size) == expected["instances/image_size"].tolist()
        parity.assert_detections_match(
            parity.detections(instances),
            parity.detections(golden.under(f"{prefix}/instances")),
            what=f"{name} {prefix}",
            **cuts(name),
        )
    if "proposals" in kinds:
        compare_proposals(name, f"{prefix}/proposals", output["proposals"])
    if "sem_seg" in kinds:
        logits = output["sem_seg"]
        parity.assert_labels_match(
            logits.argmax(0), expected["sem_seg/argmax"], logits, what=f"{name} {prefix}"
        )
        means = logits.mean((1, 2))
        parity.assert_logits_close(means, expected["sem_seg/logits_mean_per_class"], f"{name} {prefix} means")
        if "sem_seg/logits" in expected:
            parity.assert_logits_close(logits, expected["sem_seg/logits"], f"{name} {prefix} logits")
    if "panoptic_seg" in kinds:
        segments = json.loads(str(expected["panoptic_seg/segments"]))
        parity.assert_panoptic_match(output["panoptic_seg"], (expected["panoptic_seg/map"], segments))


def compare_proposals(name: str, prefix: str, proposals: Any) -> None:
    expected = zoo.golden(name).under(prefix)
    assert list(proposals.image_size) == expected["image_size"].tolist()
    parity.match_detections(
        parity.detections(proposals),
        parity.detections(expected),
        limit=config(name).MODEL.RPN.POST_NMS_TOPK_TEST,
        what=f"{name} {prefix}",
    )


def compare_segmentations(actual: Sequence[dict[str, Any]], expected: Sequence[dict[str, Any]]) -> None:
    """Compare the segmentations that two sides give for the images of a batch, where they give any."""
    for i, (mine, theirs) in enumerate(zip(actual, expected, strict=True)):
        assert set(mine) == set(theirs), f"image {i}"
        if "sem_seg" in theirs:
            parity.assert_logits_close(mine["sem_seg"], theirs["sem_seg"], f"image {i}: logits")
        if "panoptic_seg" in theirs:
            parity.assert_panoptic_match(mine["panoptic_seg"], theirs["panoptic_seg"])


def captured_outputs(graph: Graph, inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each image's results in detectron2's format, as the interpreter computes them with a captured graph."""
    made = batch_images(inputs, int(graph.metadata["size_divisibility"]))
    outputs = run(graph, {v.name: made[v.name] for v in graph.inputs})
    im_info, output_size = to_array(made["im_info"]), to_array(made["output_size"])
    results: list[dict[str, Any]] = [{} for _ in output_size]
    if "instances" in outputs:
        split = outputs["instances"].split(len(results))
        for result, fields, (height, width) in zip(results, split, output_size.tolist(), strict=True):
            if "pred_masks" in fields:
                fields["pred_masks"] = fields["pred_masks"][:, :height, :width]
            result["instances"] = as_arrays(Instances((height, width), **fields))
    if "sem_seg" in outputs:
        names = ("sem_seg", "panoptic", "segments")
        maps = {name: to_array(outputs[name]) for name in names if name in outputs}
        add_segmentations(results, maps, graph.metadata, im_info, output_size, raw=False)
    return results
