"""The models against real detectron2: the same checkpoint, the same images, the same results."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from detc.frontend.detectron2.build import load_model
from detc.frontend.detectron2.meta_arch import MetaArch
from tests import parity, zoo
from tests.outputs import compare_output, compare_proposals, cuts


@functools.cache
def model(name: str) -> MetaArch:
    return load_model(zoo.config_path(name), zoo.weights_path(name))


@pytest.mark.parametrize("name", zoo.MODELS)
def test_postprocessed_output(name: str) -> None:
    for index in zoo.SCENES:
        # The goldens are of float images; uint8 ones must give the same.
        dtype = torch.uint8 if index % 2 else torch.float32
        (output,) = model(name)(zoo.single_input(index, dtype))
        compare_output(name, f"image{index}/output", output)


@pytest.mark.parametrize("name", zoo.BATCH_MODELS)
def test_batch_of_unlike_sizes(name: str) -> None:
    assert tuple(zoo.golden(name)["batch/images"]) == zoo.BATCH
    for position, output in enumerate(model(name)(zoo.batch_input())):
        compare_output(name, f"batch/{position}/output", output)


def assert_image0_features(name: str, image: Tensor, features: Mapping[str, Tensor]) -> None:
    parity.assert_tensors_close(image, zoo.preprocessed(), "preprocessed")
    for feature, expected in zoo.golden(name).under("image0/features").items():
        parity.assert_tensors_close(features[feature], expected, feature)


@pytest.mark.parametrize("name", zoo.RCNN_MODELS)
def test_stages_of_rcnn(name: str) -> None:
    net, golden = model(name), zoo.golden(name)
    for index in zoo.BATCH:  # three scenes will do: the outputs above follow from these stages
        prefix = f"image{index}"
        images = net.preprocess_image(zoo.single_input(index))
        assert list(images.tensor.shape) == golden[f"{prefix}/preprocessed_size"].tolist()
        features = net.backbone(images.tensor)
        if index == 0:
            assert_image0_features(name, images.tensor, features)
        (proposals,), _ = net.proposal_generator(images, features)
        compare_proposals(name, f"{prefix}/proposals", proposals)
        (raw,), _ = net.roi_heads(images, features, [proposals])
        expected_raw = golden.under(f"{prefix}/raw")
        assert list(raw.image_size) == expected_raw["image_size"].tolist()
        got, want = parity.detections(raw), parity.detections(expected_raw)
        if "masks" not in want:
            got.pop("masks", None)  # PointRend's raw masks are large, and kept for one image only
        pairs = parity.assert_detections_match(got, want, what=f"{name} {prefix}/raw", **cuts(name))
        rows, order = torch.tensor([i for i, _ in pairs], dtype=torch.int64), [j for _, j in pairs]
        if "pred_masks" in expected_raw:
            parity.assert_probabilities_close(raw.pred_masks[rows], expected_raw["pred_masks"][order])
        if "pred_keypoint_heatmaps" in expected_raw:
            heatmaps = torch.from_numpy(expected_raw["pred_keypoint_heatmaps"][order])
            parity.assert_probabilities_close(
                raw.pred_keypoint_heatmaps[rows].flatten(2).softmax(2), heatmaps.flatten(2).softmax(2)
            )


def test_stages_of_retinanet() -> None:
    name = "retinanet_R_50_FPN"
    net, golden = model(name), zoo.golden(name)
    for index in zoo.BATCH:  # three scenes will do: the outputs above follow from these stages
        prefix = f"image{index}"
        images = net.preprocess_image(zoo.single_input(index))
        assert list(images.tensor.shape) == golden[f"{prefix}/preprocessed_size"].tolist()
        features = net.backbone(images.tensor)
        levels = [features[feature] for feature in net.head_in_features]
        logits, deltas = net.head(levels)
        if index == 0:
            assert_image0_features(name, images.tensor, features)
            for level, (level_logits, level_deltas) in enumerate(zip(logits, deltas, strict=True)):
                parity.assert_tensors_close(level_logits, golden[f"{prefix}/head/logits{level}"], "logits")
                parity.assert_tensors_close(level_deltas, golden[f"{prefix}/head/deltas{level}"], "deltas")
        (raw,) = net.forward_inference(images, levels, (logits, deltas))
        expected_raw = golden.under(f"{prefix}/raw")
        assert list(raw.image_size) == expected_raw["image_size"].tolist()
        want = parity.detections(expected_raw)
        parity.assert_detections_match(parity.detections(raw), want, what=f"{prefix}/raw", **cuts(name))


def test_semantic_batch_equals_single_images() -> None:
    net = model("semantic_R_50_FPN")
    images = [zoo.scene(0), zoo.scene(0).flip(2)]  # of one size, so that nothing is padded
    batch = net([{"image": image} for image in images])
    for image, output in zip(images, batch, strict=True):
        (single,) = net([{"image": image}])
        parity.assert_tensors_close(output["sem_seg"], single["sem_seg"])


def test_raw_inference_of_panoptic() -> None:
    name = "panoptic_fpn_R_50"
    (raw,), logits = model(name).inference(zoo.single_input(2), do_postprocess=False)
    want = parity.detections(zoo.golden(name).under("image2/raw"))
    parity.assert_detections_match(parity.detections(raw), want, **cuts(name))
    assert logits.shape[:2] == (1, 3)


def test_raw_inference_of_rcnn() -> None:
    net = model("mask_rcnn_R_50_FPN")
    raw = net.inference(zoo.single_input(1), do_postprocess=False)
    want = zoo.golden("mask_rcnn_R_50_FPN").under("image1/raw")
    parity.assert_detections_match(
        parity.detections(raw[0]), parity.detections(want), **cuts("mask_rcnn_R_50_FPN")
    )


def test_given_boxes_get_the_same_masks() -> None:
    net = model("mask_rcnn_R_50_FPN")
    (raw,) = net.inference(zoo.single_input(0), do_postprocess=False)
    masks = raw.pred_masks
    raw.remove("pred_masks")
    (given,) = net.inference(zoo.single_input(0), detected_instances=[raw], do_postprocess=False)
    parity.assert_tensors_close(given.pred_masks, masks)
    assert not raw.has("pred_masks")


@pytest.mark.parametrize("name", ["faster_rcnn_R_50_FPN"])
def test_training_mode_is_refused(name: str) -> None:
    net = model(name)
    net.train()
    try:
        with pytest.raises(RuntimeError, match=r"inference only: call \.eval\(\)"):
            net(zoo.single_input(0))
    finally:
        net.eval()
