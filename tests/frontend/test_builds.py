"""Models and options beyond the zoo's: built, run, and checked against what they must agree with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision.ops import batched_nms

from detc.frontend.detectron2 import build_model, load_config, load_into, load_state_dict
from detc.frontend.detectron2.build import build_backbone
from detc.frontend.detectron2.dense import permute_to_N_HWA_K
from detc.frontend.detectron2.fcos import FCOS, FCOSHead
from detc.frontend.detectron2.meta_arch import MetaArch
from detc.frontend.errors import InputError
from detc.ir.structures import Boxes, Instances
from tests import parity, zoo


def small(name: str, *options: Any) -> MetaArch:
    """A zoo model's structure with other options, untrained."""
    cfg = load_config(zoo.config_path(name))
    cfg.merge_from_list(options)
    torch.manual_seed(0)
    return build_model(cfg)


def run(model: MetaArch) -> Any:
    image = torch.randint(0, 255, (3, 65, 90), dtype=torch.uint8)
    return model([{"image": image}, {"image": image.flip(2)[:, :50], "height": 100, "width": 180}])


OPTIONS: list[tuple[str, list[Any]]] = [
    ("mask_rcnn_R_50_FPN", ["MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", True]),
    ("mask_rcnn_R_50_FPN", ["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True]),
    ("mask_rcnn_R_50_FPN", ["MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True]),
    ("mask_rcnn_R_50_FPN", ["MODEL.ROI_BOX_HEAD.NUM_CONV", 2, "MODEL.ROI_BOX_HEAD.NUM_FC", 0]),
    ("mask_rcnn_R_50_FPN", ["MODEL.RPN.CONV_DIMS", [16, -1]]),
    ("mask_rcnn_R_50_FPN", ["MODEL.FPN.FUSE_TYPE", "avg", "MODEL.FPN.NORM", "SyncBN"]),
    ("mask_rcnn_R_50_FPN", ["MODEL.RESNETS.NORM", "SyncBN", "MODEL.BACKBONE.FREEZE_AT", 3]),
    ("mask_rcnn_R_50_FPN", ["MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIPool"]),
    (
        "mask_rcnn_R_50_FPN",
        ["MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlign", "MODEL.ANCHOR_GENERATOR.OFFSET", 0.5],
    ),
    ("mask_rcnn_R_50_FPN", ["MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, True, True, True]]),
    (
        "mask_rcnn_R_50_FPN_dconv",
        ["MODEL.RESNETS.DEFORM_MODULATED", True, "MODEL.RESNETS.DEFORM_NUM_GROUPS", 2],
    ),
    ("mask_rcnn_R_50_FPN", ["MODEL.KEYPOINT_ON", True]),
    ("mask_rcnn_R_50_FPN", ["MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64]),
    ("mask_rcnn_R_50_C4", ["MODEL.RESNETS.STRIDE_IN_1X1", False]),
    ("retinanet_R_50_FPN", ["MODEL.RETINANET.NORM", "SyncBN"]),
    ("retinanet_R_50_FPN", ["MODEL.RETINANET.NORM", "GN", "MODEL.RETINANET.NUM_CONVS", 1]),
    ("pointrend_rcnn_R_50_FPN", ["MODEL.ROI_MASK_HEAD.POINT_HEAD_ON", False]),
    ("pointrend_rcnn_R_50_FPN", ["MODEL.ROI_HEADS.NAME", "PointRendROIHeads"]),
    ("pointrend_rcnn_R_50_FPN", ["MODEL.POINT_HEAD.CLS_AGNOSTIC_MASK", True]),
    ("pointrend_rcnn_R_50_FPN", ["MODEL.POINT_HEAD.COARSE_PRED_EACH_LAYER", False]),
    (
        "pointrend_rcnn_R_50_FPN",
        [
            "MODEL.ROI_MASK_HEAD.NAME",
            "ImplicitPointRendMaskHead",
            "MODEL.POINT_HEAD.NAME",
            "ImplicitPointHead",
        ],
    ),
    (
        "semantic_R_50_FPN",
        [
            *["MODEL.SEM_SEG_HEAD.NAME", "PointRendSemSegHead", "MODEL.POINT_HEAD.NUM_CLASSES", 3],
            *["MODEL.POINT_HEAD.SUBDIVISION_STEPS", 2, "MODEL.POINT_HEAD.IN_FEATURES", ["p2", "p3"]],
        ],
    ),
    ("cascade_mask_rcnn_R_50_FPN", ["MODEL.KEYPOINT_ON", True]),
    ("rotated_faster_rcnn_R_50_FPN", ["MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", 0]),
]


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=[f"{n}-{o[0]}-{o[1]}" for n, o in OPTIONS])
def test_options_run(name: str, options: list[Any]) -> None:
    few = ["MODEL.RPN.POST_NMS_TOPK_TEST", 30, "TEST.DETECTIONS_PER_IMAGE", 5]  # quicker, that is all
    first, second = run(small(name, *few, *options))
    if "sem_seg" in first:
        assert first["sem_seg"].shape == (3, 65, 90) and second["sem_seg"].shape == (3, 100, 180)
    if "instances" in first:
        assert first["instances"].image_size == (65, 90) and second["instances"].image_size == (100, 180)
        for output in (first, second):
            assert len(output["instances"]) == len(output["instances"].scores)
            if output["instances"].has("pred_masks"):
                assert output["instances"].pred_masks.shape[1:] == output["instances"].image_size


def test_precomputed_proposals_take_the_place_of_the_rpn() -> None:
    name = "mask_rcnn_R_50_FPN"
    model = small(name, "MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals")
    weights = load_state_dict(zoo.weights_path(name))
    with pytest.raises(InputError, match=r"6 unexpected:\n    proposal_generator\.rpn_head"):
        load_into(model, weights, "with RPN")
    kept = {key: value for key, value in weights.items() if not key.startswith("proposal_generator")}
    load_into(model, kept, "without RPN")
    golden = zoo.golden(name)
    boxes = Boxes(torch.from_numpy(golden["image0/proposals/proposal_boxes"]))
    proposals = Instances((192, 256), proposal_boxes=boxes)
    inputs = [{**zoo.single_input(0)[0], "proposals": proposals}]
    (raw,) = model.inference(inputs, do_postprocess=False)
    parity.assert_detections_match(parity.detections(raw), parity.detections(golden.under("image0/raw")))
    with pytest.raises(InputError, match='input 0 has no "proposals"'):
        model(zoo.single_input(0))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "holds no image"),
        ([{"image": torch.zeros(32, 32, 3)}], r"must have the shape \[3, H, W\], not \[32, 32, 3\]"),
        ([{"image": torch.zeros(32, 32)}], r"not \[32, 32\]"),
        ([{"image": torch.zeros(3, 0, 32)}], r"not \[3, 0, 32\]"),
        ([{"image": torch.zeros(3, 9, 9)}, {"height": 3}], r"input 1: .* must be a tensor .*not NoneType"),
    ],
)
def test_bad_images_are_named(inputs: list[dict[str, Any]], message: str) -> None:
    model = small("rpn_R_50_FPN")
    with pytest.raises(InputError, match=message):
        model(inputs)


def test_model_keeps_its_config() -> None:
    model = small("rpn_R_50_FPN", "MODEL.RPN.NMS_THRESH", 0.123)
    assert model.cfg is not None and model.cfg.MODEL.RPN.NMS_THRESH == 0.123
    assert model.proposal_generator.nms_thresh == 0.123
    assert "pixel_mean" not in model.state_dict()


def make_fcos(norm: str = "") -> FCOS:
    cfg = load_config(zoo.config_path("retinanet_R_50_FPN"))
    torch.manual_seed(0)
    backbone = build_backbone(cfg)
    shapes = backbone.output_shape()
    head = FCOSHead(input_shape=list(shapes.values()), num_classes=3, conv_dims=[32, 32], norm=norm)
    model = FCOS(
        backbone=backbone,
        head=head,
        num_classes=3,
        test_score_thresh=0.45,
        test_topk_candidates=50,
        pixel_mean=[100.0, 100.0, 100.0],
        pixel_std=[50.0, 50.0, 50.0],
    )
    return model.eval().requires_grad_(False)


def test_fcos_against_loops_over_cells() -> None:
    model = make_fcos()
    model.head.bbox_pred.bias.fill_(1.0)  # so that untrained boxes have areas
    image = zoo.scene(0)
    images = model.preprocess_image([{"image": image}])
    features = model.backbone(images.tensor)
    assert model.head_in_features == ["p3", "p4", "p5", "p6", "p7"]
    levels = [features[name] for name in model.head_in_features]
    predictions = model.head(levels)
    boxes, scores, classes = [], [], []
    for stride, logits, deltas, centerness in zip([8, 16, 32, 64, 128], *predictions, strict=True):
        found = []
        for row in range(logits.shape[2]):
            for column in range(logits.shape[3]):
                x, y = stride * (column + 0.5), stride * (row + 0.5)
                left, top, right, bottom = (deltas[0, :, row, column].clamp(min=0) * stride).tolist()
                box = [x - left, y - top, x + right, y + bottom]
                for label in range(3):
                    score = (
                        logits[0, label, row, column].sigmoid() * centerness[0, 0, row, column].sigmoid()
                    ).sqrt()
                    if score > 0.45:
                        found.append((score.item(), label, box))
        for score, label, box in sorted(found, key=lambda item: -item[0])[:50]:
            boxes.append(box)
            scores.append(score)
            classes.append(label)
    assert len(scores) > 60
    kept = batched_nms(torch.tensor(boxes), torch.tensor(scores), torch.tensor(classes), 0.6)[:100]
    expected = {
        "boxes": torch.tensor(boxes)[kept],
        "scores": torch.tensor(scores)[kept],
        "classes": torch.tensor(classes)[kept],
    }
    (raw,) = model.forward_inference(images, levels, predictions)
    parity.assert_detections_match(parity.detections(raw), expected, limit=100)
    (output,) = model([{"image": image}])
    assert len(output["instances"]) > 0


def test_fcos_with_norms_per_level_repeats_itself() -> None:
    model = make_fcos("BN")
    features = [torch.rand(1, 32, 8 // 2**k + 1, 8 // 2**k + 1) for k in range(5)]
    first = model.head(features)
    with pytest.raises(ValueError, match="5 levels, but got 4"):
        model.head(features[:4])
    for one, two in zip(first, model.head(features), strict=True):
        for a, b in zip(one, two, strict=True):
            assert torch.equal(a, b)


def test_dense_predictions_are_in_the_order_of_anchors() -> None:
    x = torch.arange(2 * 6 * 2 * 3.0).view(2, 6, 2, 3)  # three anchors of two numbers
    flat = permute_to_N_HWA_K(x, 2)
    assert flat.shape == (2, 18, 2)
    row, column, anchor = 1, 2, 1
    assert (
        flat[1, (row * 3 + column) * 3 + anchor].tolist()
        == x[1, 2 * anchor : 2 * anchor + 2, row, column].tolist()
    )
