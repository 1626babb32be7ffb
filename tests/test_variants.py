"""Settings that no checkpoint of the zoo has: compiled to ONNX and TorchScript, they give what the loaded model gives.

A model is the zoo's with other options. Its weights are the checkpoint's as far as they fit, and seeded numbers
elsewhere, large enough for scores to differ.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import detc
from detc.frontend.detectron2 import build_model, load_config, load_state_dict
from tests import zoo
from tests.frontend.test_builds import make_fcos
from tests.parity import assert_detections_match, detections

FEW = ("MODEL.RPN.POST_NMS_TOPK_TEST", 200)
"""Fewer proposals: quicker, that is all."""

OPTIONS: dict[str, tuple[str, list[Any]]] = {
    "class-agnostic-boxes": ("faster_rcnn_R_50_FPN", ["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True]),
    "sigmoid-classification": ("faster_rcnn_R_50_FPN", ["MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True]),
    "several-anchors-sampled-roi-align": (
        "faster_rcnn_R_50_FPN",
        [
            *["MODEL.ANCHOR_GENERATOR.SIZES", [[16, 24], [32, 48], [64, 96], [128], [256]]],
            *[
                "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS",
                [[0.5, 1.0], [1.0, 2.0], [0.5, 2.0], [0.3, 0.5, 1.0, 2.0], [0.4, 0.6, 1.0, 2.0]],
            ],
            *["MODEL.ANCHOR_GENERATOR.OFFSET", 0.5, "MODEL.RPN.CONV_DIMS", [16, -1]],
            *["MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlign", "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", 2],
        ],
    ),
    "class-agnostic-masks-and-keypoints": (
        "mask_rcnn_R_50_FPN",
        [
            *["MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", True, "MODEL.KEYPOINT_ON", True],
            *["MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", 17, "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", [24, 16]],
        ],
    ),
    "keypoints-sampled-roi-align": (
        "keypoint_rcnn_R_50_FPN",
        [
            *[
                "MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION",
                10,
                "MODEL.ROI_KEYPOINT_HEAD.POOLER_TYPE",
                "ROIAlign",
            ],
            *["MODEL.ROI_KEYPOINT_HEAD.POOLER_SAMPLING_RATIO", 2],
        ],
    ),
    "cascade-keypoints": ("cascade_mask_rcnn_R_50_FPN", ["MODEL.KEYPOINT_ON", True, "MODEL.MASK_ON", False]),
    "retinanet-group-norm": ("retinanet_R_50_FPN", ["MODEL.RETINANET.NORM", "GN"]),
    "retinanet-norm-per-level": (
        "retinanet_R_50_FPN",
        [
            *[
                "MODEL.RETINANET.NORM",
                "BN",
                "MODEL.RETINANET.NUM_CONVS",
                1,
                "MODEL.RETINANET.TOPK_CANDIDATES_TEST",
                70,
            ],
            *[
                "MODEL.RETINANET.BBOX_REG_WEIGHTS",
                (10.0, 10.0, 5.0, 5.0),
                "MODEL.RETINANET.SCORE_THRESH_TEST",
                0.2,
            ],
        ],
    ),
    "retinanet-two-levels": (
        "retinanet_R_50_FPN",
        [
            *["MODEL.RETINANET.IN_FEATURES", ["p4", "p5"], "MODEL.RETINANET.NUM_CLASSES", 1],
            *["MODEL.ANCHOR_GENERATOR.SIZES", [[32, 40], [64, 80]]],
        ],
    ),
    "rotated-adaptive-sampling": (
        "rotated_faster_rcnn_R_50_FPN",
        [
            *[
                "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO",
                0,
                "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG",
                True,
            ],
            *["MODEL.ANCHOR_GENERATOR.ANGLES", [[-90, -45, 0, 45]]],
        ],
    ),
    "proposals-of-one-level": (
        "rpn_R_50_FPN",
        [
            "MODEL.RPN.IN_FEATURES",
            ["p3"],
            "MODEL.ANCHOR_GENERATOR.SIZES",
            [[16, 32, 64]],
            "MODEL.RPN.NMS_THRESH",
            0.5,
        ],
    ),
}


def varied(name: str, options: list[Any]) -> nn.Module:
    cfg = load_config(zoo.config_path(name))
    cfg.merge_from_list([*FEW, *options])
    model = build_model(cfg)
    known = load_state_dict(zoo.weights_path(name))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if key in known and known[key].shape == tensor.shape:
                tensor.copy_(torch.as_tensor(known[key]))
            elif key.endswith("weight") and tensor.ndim > 1:
                scale = (2.0 / tensor[0].numel()) ** 0.5
                # Boxes that are moved far cover the image, all of them.
                scale *= 0.1 if "anchor_deltas" in key or "bbox_pred" in key else 1.0
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale)
            elif key.endswith(("running_mean", "bias")):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return model


def assert_agree(model: nn.Module) -> int:
    """The compiled files give what the model gives, for two images of unlike, odd sizes; how many rows that is."""
    image = zoo.scene(3)
    batch = [{"image": image}, {"image": zoo.scene(0)[:, 40:171, 60:], "height": 100, "width": 333}]
    runs = (batch, [{"image": torch.full_like(image, 40.0)}])
    with torch.no_grad():
        expected = [model(inputs) for inputs in runs]
    graph = detc.capture(model)
    for target in ("onnx", "torchscript"):
        artifact = detc.emit(detc.pipeline(target, postprocess=True).run(graph))
        for inputs, wanted in zip(runs, expected, strict=True):
            for i, (found, want) in enumerate(zip(artifact(inputs), wanted, strict=True)):
                assert_same_rows(artifact, found, want, f"{target}, image {i}")
    return sum(len(instances) for results in expected for result in results for instances in result.values())


def assert_same_rows(
    artifact: detc.Artifact, found: dict[str, Any], wanted: dict[str, Any], what: str
) -> None:
    assert set(found) == set(wanted)
    for output, instances in found.items():
        assert_detections_match(
            detections(instances),
            detections(wanted[output]),
            what=what,
            thresholds=(artifact.metadata.get("score_thresh", 0.0),),
            limit=artifact.metadata["detections_per_image"],
        )


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name):
    assert assert_agree(varied(*OPTIONS[name])) > 10


def test_fcos():
    model = make_fcos()
    known = load_state_dict(zoo.weights_path("retinanet_R_50_FPN"))
    model.load_state_dict(
        {k: torch.as_tensor(v) for k, v in known.items() if k.startswith("backbone")}, strict=False
    )
    generator = torch.Generator().manual_seed(1)
    for weight in model.head.parameters():
        if weight.ndim > 1:
            weight.copy_(torch.randn(weight.shape, generator=generator) * (2.0 / weight[0].numel()) ** 0.5)
    model.head.bbox_pred.bias.fill_(1.0)  # so that boxes have areas
    assert assert_agree(model) > 50
