"""Builds models from configs.

Each registry below maps a name that stands in a config to what builds the component; `register` adds to them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..errors import InputError
from .anchors import DefaultAnchorGenerator
from .backbone import Backbone
from .box_regression import Box2BoxTransform, as_weights
from .build_heads import (
    anchors_per_cell,
    build_anchor_generator,
    build_proposal_generator,
    build_roi_heads,
)
from .build_semantic import build_sem_seg_head
from .checkpoint import load_into, load_state_dict
from .config import Config, load_config
from .dense import RetinaNet, RetinaNetHead
from .fpn import FPN, LastLevelMaxPool, LastLevelP6P7
from .layers import CNNBlockBase, ShapeSpec
from .meta_arch import GeneralizedRCNN, MetaArch, ProposalNetwork
from .panoptic import PanopticFPN
from .registry import look_up, select_features
from .resnet import BLOCKS_PER_STAGE, BasicBlock, BasicStem, BottleneckBlock, DeformBottleneckBlock, ResNet
from .semantic import SemanticSegmentor


def build_model(config: Config | str | os.PathLike[str] | Mapping[str, Any]) -> MetaArch:
    """Build the model of a config, for inference, with weights that are not trained.

    Args:
        config: what `load_config` takes or returns.

    Returns:
        The model in eval mode, without gradients, on torch's default device; the config is its attribute
        `cfg`.

    Raises:
        InputError: the config is wrong, or names a component that is not supported.
    """
    cfg = config if isinstance(config, Config) and "VERSION" in config else load_config(config)
    build = look_up(META_ARCHITECTURES, cfg, "MODEL.META_ARCHITECTURE")
    try:
        model = build(cfg)
    except InputError:
        raise
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # Layers refuse sizes that are negative, lists where numbers belong, and so on, each in its own way.
        raise InputError(f"{cfg.source}: no model can be built from its values: {error}") from error
    model.cfg = cfg
    return model.eval().requires_grad_(False)


def load_model(
    config: Config | str | os.PathLike[str] | Mapping[str, Any], weights: str | os.PathLike[str] | None = None
) -> MetaArch:
    """Build the model of a config and load its weights.

    Args:
        config: what `load_config` takes or returns.
        weights: the path of a checkpoint, see `load_state_dict`; by default the config's MODEL.WEIGHTS.

    Returns:
        As `build_model`, on the CPU unless torch's default device is another.

    Raises:
        InputError: the config or the checkpoint is wrong, or they do not fit each other.
    """
    cfg = config if isinstance(config, Config) and "VERSION" in config else load_config(config)
    path = weights if weights is not None else cfg.MODEL.WEIGHTS
    if not str(path):
        raise InputError(f"no weights are given, and {cfg.source} has no MODEL.WEIGHTS")
    state_dict = load_state_dict(path)
    model = build_model(cfg)
    load_into(model, state_dict, path)
    return model


def build_backbone(cfg: Config) -> Backbone:
    """The backbone that MODEL.BACKBONE.NAME names."""
    image = ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN))
    return look_up(BACKBONES, cfg, "MODEL.BACKBONE.NAME")(cfg, image)


def build_resnet_backbone(cfg: Config, input_shape: ShapeSpec) -> ResNet:
    """A ResNet as MODEL.RESNETS describes it, for images of that many channels."""
    resnets = cfg.MODEL.RESNETS
    depth = resnets.DEPTH
    if depth not in BLOCKS_PER_STAGE:
        raise InputError(f"MODEL.RESNETS.DEPTH {depth} is not supported; there are {list(BLOCKS_PER_STAGE)}")
    if resnets.RES5_DILATION not in (1, 2):
        raise InputError(f"MODEL.RESNETS.RES5_DILATION must be 1 or 2, not {resnets.RES5_DILATION}")
    if depth < 50:
        _check_basic_blocks(cfg)
    if len(resnets.DEFORM_ON_PER_STAGE) != 4:
        raise InputError("MODEL.RESNETS.DEFORM_ON_PER_STAGE must have four entries, for res2 to res5")
    stem = BasicStem(input_shape.channels or 0, resnets.STEM_OUT_CHANNELS, resnets.NORM)
    stages: list[list[CNNBlockBase]] = []
    in_channels, out_channels = resnets.STEM_OUT_CHANNELS, resnets.RES2_OUT_CHANNELS
    bottleneck_channels = resnets.NUM_GROUPS * resnets.WIDTH_PER_GROUP
    for index, num_blocks in enumerate(BLOCKS_PER_STAGE[depth]):
        dilation = resnets.RES5_DILATION if index == 3 else 1
        block_class: type[CNNBlockBase] = BasicBlock
        options: dict[str, Any] = {"norm": resnets.NORM}
        if depth >= 50:
            block_class = BottleneckBlock
            options.update(
                bottleneck_channels=bottleneck_channels,
                stride_in_1x1=resnets.STRIDE_IN_1X1,
                dilation=dilation,
                num_groups=resnets.NUM_GROUPS,
            )
        if resnets.DEFORM_ON_PER_STAGE[index]:
            block_class = DeformBottleneckBlock
            options.update(
                deform_modulated=resnets.DEFORM_MODULATED, deform_num_groups=resnets.DEFORM_NUM_GROUPS
            )
        stages.append(
            ResNet.make_stage(
                block_class,
                num_blocks,
                first_stride=1 if index == 0 or dilation == 2 else 2,
                in_channels=in_channels,
                out_channels=out_channels,
                **options,
            )
        )
        in_channels, out_channels, bottleneck_channels = (
            out_channels,
            out_channels * 2,
            bottleneck_channels * 2,
        )
    return ResNet(stem, stages, out_features=resnets.OUT_FEATURES, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT)


def _check_basic_blocks(cfg: Config) -> None:
    """ResNet-18 and -34 lack most options."""
    resnets = cfg.MODEL.RESNETS
    wanted = {"RES2_OUT_CHANNELS": 64, "RES5_DILATION": 1, "NUM_GROUPS": 1}
    for key, value in wanted.items():
        if resnets[key] != value:
            raise InputError(
                f"MODEL.RESNETS.{key} must be {value} with DEPTH {resnets.DEPTH}, not {resnets[key]}"
            )
    if any(resnets.DEFORM_ON_PER_STAGE):
        raise InputError(f"MODEL.RESNETS.DEFORM_ON_PER_STAGE is not supported with DEPTH {resnets.DEPTH}")


def _build_fpn(cfg: Config, bottom_up: ResNet, top_block: nn.Module) -> FPN:
    fpn = cfg.MODEL.FPN
    return FPN(bottom_up, fpn.IN_FEATURES, fpn.OUT_CHANNELS, fpn.NORM, top_block, fpn.FUSE_TYPE)


def build_resnet_fpn_backbone(cfg: Config, input_shape: ShapeSpec) -> FPN:
    """A feature pyramid p2 to p6 over a ResNet."""
    return _build_fpn(cfg, build_resnet_backbone(cfg, input_shape), LastLevelMaxPool())


def build_retinanet_resnet_fpn_backbone(cfg: Config, input_shape: ShapeSpec) -> FPN:
    """A feature pyramid p3 to p7 over a ResNet."""
    bottom_up = build_resnet_backbone(cfg, input_shape)
    shapes = bottom_up.output_shape()
    if "res5" not in shapes or shapes["res5"].channels is None:
        raise InputError("build_retinanet_resnet_fpn_backbone needs res5 in MODEL.RESNETS.OUT_FEATURES")
    return _build_fpn(cfg, bottom_up, LastLevelP6P7(shapes["res5"].channels, cfg.MODEL.FPN.OUT_CHANNELS))


def _pixel_options(cfg: Config) -> dict[str, Any]:
    return {"pixel_mean": cfg.MODEL.PIXEL_MEAN, "pixel_std": cfg.MODEL.PIXEL_STD}


def _rcnn_options(cfg: Config) -> dict[str, Any]:
    backbone = build_backbone(cfg)
    shapes = backbone.output_shape()
    return {
        "backbone": backbone,
        "proposal_generator": build_proposal_generator(cfg, shapes),
        "roi_heads": build_roi_heads(cfg, shapes),
        "input_format": cfg.INPUT.FORMAT,
        **_pixel_options(cfg),
    }


def _build_generalized_rcnn(cfg: Config) -> GeneralizedRCNN:
    return GeneralizedRCNN(**_rcnn_options(cfg))


def _build_proposal_network(cfg: Config) -> ProposalNetwork:
    backbone = build_backbone(cfg)
    proposal_generator = build_proposal_generator(cfg, backbone.output_shape())
    if proposal_generator is None:
        raise InputError(
            "a ProposalNetwork needs a MODEL.PROPOSAL_GENERATOR.NAME other than PrecomputedProposals"
        )
    return ProposalNetwork(backbone=backbone, proposal_generator=proposal_generator, **_pixel_options(cfg))


def _build_panoptic_fpn(cfg: Config) -> PanopticFPN:
    if not cfg.MODEL.MASK_ON:
        raise InputError("PanopticFPN combines masks: MODEL.MASK_ON must be True")
    options, combine = _rcnn_options(cfg), cfg.MODEL.PANOPTIC_FPN.COMBINE
    return PanopticFPN(
        sem_seg_head=build_sem_seg_head(cfg, options["backbone"].output_shape()),
        combine_overlap_thresh=combine.OVERLAP_THRESH,
        combine_stuff_area_thresh=combine.STUFF_AREA_LIMIT,
        combine_instances_score_thresh=combine.INSTANCES_CONFIDENCE_THRESH,
        **options,
    )


def _build_semantic_segmentor(cfg: Config) -> SemanticSegmentor:
    backbone = build_backbone(cfg)
    sem_seg_head = build_sem_seg_head(cfg, backbone.output_shape())
    return SemanticSegmentor(backbone=backbone, sem_seg_head=sem_seg_head, **_pixel_options(cfg))


def _build_retinanet(cfg: Config) -> RetinaNet:
    retinanet, backbone = cfg.MODEL.RETINANET, build_backbone(cfg)
    features = select_features(backbone.output_shape(), retinanet.IN_FEATURES, "MODEL.RETINANET.IN_FEATURES")
    generator = build_anchor_generator(cfg, features)
    if not isinstance(generator, DefaultAnchorGenerator):
        raise InputError("RetinaNet needs MODEL.ANCHOR_GENERATOR.NAME DefaultAnchorGenerator")
    head = RetinaNetHead(
        input_shape=features,
        num_classes=retinanet.NUM_CLASSES,
        num_anchors=anchors_per_cell(generator),
        conv_dims=[features[0].channels or 0] * retinanet.NUM_CONVS,
        norm=retinanet.NORM,
    )
    weights = as_weights(retinanet.BBOX_REG_WEIGHTS, 4, "MODEL.RETINANET.BBOX_REG_WEIGHTS")
    return RetinaNet(
        backbone=backbone,
        head=head,
        head_in_features=retinanet.IN_FEATURES,
        anchor_generator=generator,
        box2box_transform=Box2BoxTransform(weights),
        num_classes=retinanet.NUM_CLASSES,
        test_score_thresh=retinanet.SCORE_THRESH_TEST,
        test_topk_candidates=retinanet.TOPK_CANDIDATES_TEST,
        test_nms_thresh=retinanet.NMS_THRESH_TEST,
        max_detections_per_image=cfg.TEST.DETECTIONS_PER_IMAGE,
        input_format=cfg.INPUT.FORMAT,
        **_pixel_options(cfg),
    )


META_ARCHITECTURES: dict[str, Callable[[Config], MetaArch]] = {
    "GeneralizedRCNN": _build_generalized_rcnn,
    "ProposalNetwork": _build_proposal_network,
    "RetinaNet": _build_retinanet,
    "PanopticFPN": _build_panoptic_fpn,
    "SemanticSegmentor": _build_semantic_segmentor,
}

BACKBONES: dict[str, Callable[[Config, ShapeSpec], Backbone]] = {
    "build_resnet_backbone": build_resnet_backbone,
    "build_resnet_fpn_backbone": build_resnet_fpn_backbone,
    "build_retinanet_resnet_fpn_backbone": build_retinanet_resnet_fpn_backbone,
}
