"""The models of the benchmarks, and torchvision's Mask R-CNN as their peer.

The full-size model is a Mask R-CNN R50-FPN of detectron2's config; the peer is torchvision's
`maskrcnn_resnet50_fpn`. The two have one set of weights, so that they do the same work on the same proposals: seeded
random ones, scaled as below, because weights fresh from their initializers find nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tests.zoo import CONFIGS, ZOO

HEIGHT, WIDTH = 800, 1088
DETECTIONS = 100
FOREGROUND = 90
"""torchvision's number of classes, without the background."""

SMALL = "small"
FULL = "full"

# Logits of random features are alike everywhere: these spread them, so that there are 1000 proposals after NMS, and
# 1573 candidates above the score threshold, of which 100 detections remain. Almost all proposals are small (a median
# side of 60 pixels), and 950 of them are pooled from the finest level.
_RPN_LOGITS_STD = 0.02
_RPN_DELTAS_STD = 0.02
_BACKGROUND_BIAS = 8.0
_CLASS_LOGITS_STD = 2.0
_BOX_DELTAS_STD = 0.5
_MASK_LOGITS_STD = 1.0


def image(seed: int = 0) -> Tensor:
    """A picture f32[3,800,1088], BGR, 0 to 255: noise at several scales."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.zeros(1, 3, HEIGHT, WIDTH)
    for cell in (4, 16, 64, 256):
        noise = torch.rand(1, 3, -(-HEIGHT // cell), -(-WIDTH // cell), generator=generator)
        picture += nn.functional.interpolate(noise, size=(HEIGHT, WIDTH), mode="bilinear")
    return (picture[0] / 4 * 255).round()


def peer_image(picture: Tensor) -> Tensor:
    """The picture as torchvision's models take it: RGB, 0 to 1."""
    return picture.flip(0) / 255


def scene() -> Tensor:
    """A scene of the small model's data, resized: f32[3,800,1088], BGR."""
    import numpy as np
    from PIL import Image

    with Image.open(ZOO / "scenes" / "scene0.png") as opened:
        rgb = np.asarray(opened.convert("RGB").resize((WIDTH, HEIGHT)))
    return torch.from_numpy(rgb[:, :, ::-1].transpose(2, 0, 1).astype(np.float32))


def inputs(picture: Tensor) -> list[dict[str, Any]]:
    """The picture as detectron2's models take it."""
    return [{"image": picture}]


def feed(picture: Tensor) -> dict[str, Tensor]:
    """The picture as a compiled model with postprocessing takes it."""
    height, width = picture.shape[1:]
    return {
        "data": picture[None],
        "im_info": torch.tensor([[height, width, 1.0]]),
        "output_size": torch.tensor([[height, width]]),
    }


def peer(weights: str | os.PathLike[str] | None = None) -> nn.Module:
    """torchvision's Mask R-CNN R50-FPN with seeded weights that yield 1000 proposals and 100 detections.

    Making these takes a while: `weights` is a file of them.
    """
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).eval().requires_grad_(False)
    if weights:
        model.load_state_dict(torch.load(weights, weights_only=True, mmap=True))
        return model
    with torch.no_grad():
        _calibrate(model)
    return model


def _calibrate(model: nn.Module) -> None:
    heads, rpn = model.roi_heads, model.rpn.head
    nn.init.normal_(rpn.cls_logits.weight, std=_RPN_LOGITS_STD)
    nn.init.normal_(rpn.bbox_pred.weight, std=_RPN_DELTAS_STD)
    # Batch statistics of one picture: each normalization then gives unit variance.
    picture = peer_image(image(1))[None]
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (model.transform.image_mean, model.transform.image_std)
    )
    norms = [m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    features = model.backbone((picture - mean) / std)
    for norm in norms:
        norm.eval()
    # The last layers, scaled to logits and deltas of a given spread.
    boxes = torch.rand(200, 2) * torch.tensor([WIDTH, HEIGHT]) * 0.8
    boxes = torch.cat([boxes, boxes + 20 + torch.rand(200, 2) * 150], dim=1)
    hidden = heads.box_head(heads.box_roi_pool(features, [boxes], [(HEIGHT, WIDTH)]))
    predictor = heads.box_predictor
    _spread(predictor.cls_score, hidden, _CLASS_LOGITS_STD)
    _spread(predictor.bbox_pred, hidden, _BOX_DELTAS_STD)
    predictor.cls_score.bias[0] += _BACKGROUND_BIAS
    grids = heads.mask_head(heads.mask_roi_pool(features, [boxes], [(HEIGHT, WIDTH)]))
    grids = heads.mask_predictor.relu(heads.mask_predictor.conv5_mask(grids))
    _spread(heads.mask_predictor.mask_fcn_logits, grids, _MASK_LOGITS_STD)


def _spread(layer: nn.Module, features: Tensor, std: float) -> None:
    """Scale a last layer so that what it gives has zero mean and the standard deviation `std` for each channel."""
    nn.init.zeros_(layer.bias)
    given = layer(features).transpose(0, 1).flatten(1)
    scale = std / given.std(dim=1)
    layer.weight *= scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
    layer.bias -= given.mean(dim=1) * scale


def untrained() -> nn.Module:
    """detectron2's Mask R-CNN R50-FPN (3x config), with the weights that its initializers give.

    Where torchvision's architecture differs from the config's, its choice is taken: strides in the 3x3 convolutions,
    90 classes, RoIAlign with two samples a side per bin and without the half-pixel shift.
    """
    from detc.frontend.detectron2 import build_model, load_config

    config = load_config(CONFIGS / "configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml")
    config.MODEL.RESNETS.STRIDE_IN_1X1 = False
    config.MODEL.ROI_HEADS.NUM_CLASSES = FOREGROUND
    for head in (config.MODEL.ROI_BOX_HEAD, config.MODEL.ROI_MASK_HEAD):
        head.POOLER_SAMPLING_RATIO = 2
        head.POOLER_TYPE = "ROIAlign"
    return build_model(config)


def with_peer_weights(model: nn.Module, source: nn.Module) -> nn.Module:
    """Give the full-size model the peer's weights."""
    own = _from_peer(source.state_dict(), torch.tensor(source.transform.image_std))
    missing, unexpected = model.load_state_dict(own, strict=False)
    left = [name for name in missing if not name.startswith("pixel_") and "anchor" not in name]
    if left or unexpected:
        raise RuntimeError(f"the peer's weights do not fit: missing {left}, unexpected {unexpected}")
    return model


def small() -> nn.Module:
    """The zoo's small trained Mask R-CNN."""
    from detc.frontend.detectron2 import load_model

    folder = ZOO / "mask_rcnn_R_50_FPN"
    return load_model(folder / "config.yaml", folder / "model_final.pth")


MODELS = {SMALL: small, FULL: untrained}
"""What is compiled: weights that find nothing do there, for capture runs nothing."""


_PREFIXES = {
    "backbone.body.conv1.": "backbone.bottom_up.stem.conv1.",
    "backbone.body.bn1.": "backbone.bottom_up.stem.conv1.norm.",
    "rpn.head.conv.0.0.": "proposal_generator.rpn_head.conv.",
    "rpn.head.cls_logits.": "proposal_generator.rpn_head.objectness_logits.",
    "rpn.head.bbox_pred.": "proposal_generator.rpn_head.anchor_deltas.",
    "roi_heads.box_head.fc6.": "roi_heads.box_head.fc1.",
    "roi_heads.box_head.fc7.": "roi_heads.box_head.fc2.",
    "roi_heads.box_predictor.": "roi_heads.box_predictor.",
    "roi_heads.mask_predictor.conv5_mask.": "roi_heads.mask_head.deconv.",
    "roi_heads.mask_predictor.mask_fcn_logits.": "roi_heads.mask_head.predictor.",
    **{f"roi_heads.mask_head.{i}.0.": f"roi_heads.mask_head.mask_fcn{i + 1}." for i in range(4)},
    **{f"backbone.fpn.inner_blocks.{i}.0.": f"backbone.fpn_lateral{i + 2}." for i in range(4)},
    **{f"backbone.fpn.layer_blocks.{i}.0.": f"backbone.fpn_output{i + 2}." for i in range(4)},
}
_BLOCK_PARTS = {
    **{f"conv{i}": f"conv{i}" for i in (1, 2, 3)},
    **{f"bn{i}": f"conv{i}.norm" for i in (1, 2, 3)},
    "downsample.0": "shortcut",
    "downsample.1": "shortcut.norm",
}


def _from_peer(state: Mapping[str, Tensor], image_std: Tensor) -> dict[str, Tensor]:
    """torchvision's weights under detectron2's names, in its order of channels and classes."""
    own: dict[str, Tensor] = {}
    for name, value in state.items():
        if not name.endswith("num_batches_tracked"):
            own[_own_name(name)] = value.clone()
    stem = "backbone.bottom_up.stem.conv1.weight"
    # detectron2's picture is BGR, 0 to 255, and its standard deviations are 1.
    own[stem] = (own[stem] / (255 * image_std)[:, None, None]).flip(1)
    for part in ("weight", "bias"):
        # torchvision's background is its first class, detectron2's the last, and it has no boxes or masks.
        scores = f"roi_heads.box_predictor.cls_score.{part}"
        own[scores] = own[scores].roll(-1, dims=0)
        deltas = f"roi_heads.box_predictor.bbox_pred.{part}"
        own[deltas] = own[deltas][4:].clone()
        masks = f"roi_heads.mask_head.predictor.{part}"
        own[masks] = own[masks][1:].clone()
    return own


def _own_name(name: str) -> str:
    for prefix, ours in _PREFIXES.items():
        if name.startswith(prefix):
            return ours + name.removeprefix(prefix)
    # backbone.body.layer1.0.downsample.1.running_var
    parts = name.removeprefix("backbone.body.layer").split(".")
    layer, block, middle, leaf = parts[0], parts[1], ".".join(parts[2:-1]), parts[-1]
    return f"backbone.bottom_up.res{int(layer) + 1}.{block}.{_BLOCK_PARTS[middle]}.{leaf}"
