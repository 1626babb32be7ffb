"""The nets that detc makes of the zoo's models, and what detectron2 gave for them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from detc.backends.arrays import batch_images
from detc.backends.caffe2.pipeline import caffe2_pipeline
from detc.ir import Graph
from tests import zoo
from tests.models import captured, loaded
from tests.parity import assert_detections_match, detections

WITH_ORIGINAL = (
    "faster_rcnn_R_50_FPN",
    "mask_rcnn_R_50_FPN",
    "mask_rcnn_X_FPN_gn",
    "faster_rcnn_R_50_C4",
    "mask_rcnn_R_50_C4",
)
"""The models that detectron2's exporter could write, too."""
MODELS = (*WITH_ORIGINAL, "cascade_mask_rcnn_R_50_FPN")


@functools.cache
def lowered(name: str, batch: int = 1) -> Graph:
    return caffe2_pipeline(batch=batch).run(captured(name))


def feeds(graph: Graph, inputs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    made = batch_images(inputs, int(graph.metadata["size_divisibility"]))
    return {name: made[name].numpy() for name in ("data", "im_info")}


def fields(outputs: Mapping[str, Any], image: int = 0) -> dict[str, torch.Tensor]:
    """One image's detections under detectron2's names, each with the mask of its class."""
    raw = {name: torch.as_tensor(np.asarray(value)) for name, value in outputs.items()}
    classes = raw["class_nms"].to(torch.int64)
    found = {"pred_boxes": raw["bbox_nms"], "scores": raw["score_nms"], "pred_classes": classes}
    if "mask_fcn_probs" in raw:
        found["pred_masks"] = raw["mask_fcn_probs"][torch.arange(len(classes)), classes][:, None]
    if "batch_index" in raw:
        return {name: value[raw["batch_index"] == image] for name, value in found.items()}
    return found


def assert_golden(name: str, outputs: Mapping[str, Any], scene: int, what: str) -> None:
    """The raw outputs for one scene are what detectron2 gave."""
    wanted = zoo.golden(name).under(f"image{scene}/raw")
    assert_detections_match(
        detections(fields(outputs)), detections(wanted), what=f"{what}, scene {scene}", thresholds=(0.05,)
    )


def assert_batch(name: str, outputs: Mapping[str, Any], inputs: list[dict[str, Any]]) -> None:
    """The raw outputs for a batch are what the model gives for it."""
    wanted = loaded(name).inference(inputs, do_postprocess=False)
    for image, want in enumerate(wanted):
        assert_detections_match(
            detections(fields(outputs, image)),
            detections(want.get_fields()),
            what=f"image {image}",
            thresholds=(0.05,),
        )
