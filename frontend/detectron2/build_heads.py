"""Builds from configs what stands on a backbone: proposal generators and heads for regions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from ..errors import InputError
from .anchors import DefaultAnchorGenerator, RotatedAnchorGenerator
from .box_head import FastRCNNConvFCHead, FastRCNNOutputLayers
from .box_regression import Box2BoxTransform, Box2BoxTransformRotated, as_weights
from .build_pointrend import build_implicit_pointrend_mask_head, build_pointrend_mask_head
from .cascade import CascadeROIHeads
from .config import Config
from .keypoint_head import KRCNNConvDeconvUpsampleHead
from .layers import ShapeSpec, common_channels
from .mask_head import MaskRCNNConvUpsampleHead
from .pointrend import PointRendROIHeads
from .poolers import ROIPooler
from .registry import look_up, select_features
from .resnet import BottleneckBlock, ResNet
from .roi_heads import Res5ROIHeads, ROIHeads, StandardROIHeads
from .rotated import RRPN, RotatedFastRCNNOutputLayers, RROIHeads
from .rpn import RPN, StandardRPNHead

Shapes = Mapping[str, ShapeSpec]
AnchorGenerator = DefaultAnchorGenerator | RotatedAnchorGenerator


def _strides(shapes: Sequence[ShapeSpec]) -> list[int]:
    return [shape.stride or 0 for shape in shapes]


def build_anchor_generator(cfg: Config, shapes: Sequence[ShapeSpec]) -> AnchorGenerator:
    """The anchor generator that MODEL.ANCHOR_GENERATOR.NAME names, for features of these shapes."""
    return look_up(ANCHOR_GENERATORS, cfg, "MODEL.ANCHOR_GENERATOR.NAME")(cfg, shapes)


def _build_default_anchors(cfg: Config, shapes: Sequence[ShapeSpec]) -> DefaultAnchorGenerator:
    options = cfg.MODEL.ANCHOR_GENERATOR
    return DefaultAnchorGenerator(
        sizes=options.SIZES,
        aspect_ratios=options.ASPECT_RATIOS,
        strides=_strides(shapes),
        offset=options.OFFSET,
    )


def _build_rotated_anchors(cfg: Config, shapes: Sequence[ShapeSpec]) -> RotatedAnchorGenerator:
    options = cfg.MODEL.ANCHOR_GENERATOR
    return RotatedAnchorGenerator(
        sizes=options.SIZES,
        aspect_ratios=options.ASPECT_RATIOS,
        strides=_strides(shapes),
        angles=options.ANGLES,
        offset=options.OFFSET,
    )


def anchors_per_cell(generator: AnchorGenerator) -> int:
    """Anchors per cell, which a head that all levels share needs to be one number.

    Raises:
        InputError: levels differ.
    """
    counts = set(generator.num_anchors)
    if len(counts) != 1:
        raise InputError(
            "MODEL.ANCHOR_GENERATOR must give every level the same number of anchors, "
            f"not {generator.num_anchors}"
        )
    return counts.pop()


def build_proposal_generator(cfg: Config, shapes: Shapes) -> nn.Module | None:
    """The proposal generator that MODEL.PROPOSAL_GENERATOR.NAME names; None for "PrecomputedProposals"."""
    return look_up(PROPOSAL_GENERATORS, cfg, "MODEL.PROPOSAL_GENERATOR.NAME")(cfg, shapes)


def _rpn_options(cfg: Config, shapes: Shapes) -> dict[str, Any]:
    rpn = cfg.MODEL.RPN
    features = select_features(shapes, rpn.IN_FEATURES, "MODEL.RPN.IN_FEATURES")
    generator = build_anchor_generator(cfg, features)
    return {
        "in_features": rpn.IN_FEATURES,
        "head": look_up(RPN_HEADS, cfg, "MODEL.RPN.HEAD_NAME")(cfg, features),
        "anchor_generator": generator,
        "pre_nms_topk": (rpn.PRE_NMS_TOPK_TRAIN, rpn.PRE_NMS_TOPK_TEST),
        "post_nms_topk": (rpn.POST_NMS_TOPK_TRAIN, rpn.POST_NMS_TOPK_TEST),
        "nms_thresh": rpn.NMS_THRESH,
        "min_box_size": cfg.MODEL.PROPOSAL_GENERATOR.MIN_SIZE,
    }


def _build_rpn_head(cfg: Config, features: Sequence[ShapeSpec]) -> StandardRPNHead:
    generator = build_anchor_generator(cfg, features)
    return StandardRPNHead(
        in_channels=common_channels(features, "the features of MODEL.RPN.IN_FEATURES"),
        num_anchors=anchors_per_cell(generator),
        box_dim=generator.box_dim,
        conv_dims=cfg.MODEL.RPN.CONV_DIMS,
    )


def _build_rpn(cfg: Config, shapes: Shapes) -> RPN:
    weights = as_weights(cfg.MODEL.RPN.BBOX_REG_WEIGHTS, 4, "MODEL.RPN.BBOX_REG_WEIGHTS")
    return RPN(box2box_transform=Box2BoxTransform(weights), **_rpn_options(cfg, shapes))


def _build_rrpn(cfg: Config, shapes: Shapes) -> RRPN:
    weights = as_weights(cfg.MODEL.RPN.BBOX_REG_WEIGHTS, 5, "MODEL.RPN.BBOX_REG_WEIGHTS")
    return RRPN(box2box_transform=Box2BoxTransformRotated(weights), **_rpn_options(cfg, shapes))


def build_roi_heads(cfg: Config, shapes: Shapes) -> ROIHeads:
    """The heads that MODEL.ROI_HEADS.NAME names."""
    return look_up(ROI_HEADS, cfg, "MODEL.ROI_HEADS.NAME")(cfg, shapes)


def _build_pooler(head: Config, features: Sequence[ShapeSpec]) -> ROIPooler:
    return ROIPooler(
        output_size=head.POOLER_RESOLUTION,
        scales=[1.0 / stride for stride in _strides(features)],
        sampling_ratio=head.POOLER_SAMPLING_RATIO,
        pooler_type=head.POOLER_TYPE,
    )


def _pooled_shape(head: Config, features: Sequence[ShapeSpec]) -> ShapeSpec:
    channels = common_channels(features, "the features of MODEL.ROI_HEADS.IN_FEATURES")
    return ShapeSpec(channels=channels, height=head.POOLER_RESOLUTION, width=head.POOLER_RESOLUTION)


def _roi_features(cfg: Config, shapes: Shapes) -> list[ShapeSpec]:
    return select_features(shapes, cfg.MODEL.ROI_HEADS.IN_FEATURES, "MODEL.ROI_HEADS.IN_FEATURES")


def _build_box_head(cfg: Config, shape: ShapeSpec) -> FastRCNNConvFCHead:
    return look_up(ROI_BOX_HEADS, cfg, "MODEL.ROI_BOX_HEAD.NAME")(cfg, shape)


def _build_conv_fc_head(cfg: Config, shape: ShapeSpec) -> FastRCNNConvFCHead:
    head = cfg.MODEL.ROI_BOX_HEAD
    return FastRCNNConvFCHead(
        shape,
        conv_dims=[head.CONV_DIM] * head.NUM_CONV,
        fc_dims=[head.FC_DIM] * head.NUM_FC,
        conv_norm=head.NORM,
    )


def _predictor_options(cfg: Config) -> dict[str, Any]:
    return {
        "num_classes": cfg.MODEL.ROI_HEADS.NUM_CLASSES,
        "test_score_thresh": cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST,
        "test_nms_thresh": cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST,
        "test_topk_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
        "cls_agnostic_bbox_reg": cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG,
        "use_sigmoid_ce": cfg.MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE,
    }


def _build_box_predictor(cfg: Config, shape: ShapeSpec) -> FastRCNNOutputLayers:
    weights = as_weights(cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS, 4, "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS")
    return FastRCNNOutputLayers(shape, box2box_transform=Box2BoxTransform(weights), **_predictor_options(cfg))


def _box_options(cfg: Config, shapes: Shapes) -> dict[str, Any]:
    head, features = cfg.MODEL.ROI_BOX_HEAD, _roi_features(cfg, shapes)
    box_head = _build_box_head(cfg, _pooled_shape(head, features))
    return {
        "num_classes": cfg.MODEL.ROI_HEADS.NUM_CLASSES,
        "box_in_features": cfg.MODEL.ROI_HEADS.IN_FEATURES,
        "box_pooler": _build_pooler(head, features),
        "box_head": box_head,
        "box_predictor": _build_box_predictor(cfg, box_head.output_shape),
    }


def _mask_classes(cfg: Config) -> int:
    return 1 if cfg.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK else cfg.MODEL.ROI_HEADS.NUM_CLASSES


def _build_conv_upsample_head(cfg: Config, shape: ShapeSpec) -> nn.Module:
    head = cfg.MODEL.ROI_MASK_HEAD
    return MaskRCNNConvUpsampleHead(
        shape,
        num_classes=_mask_classes(cfg),
        conv_dims=[head.CONV_DIM] * (head.NUM_CONV + 1),  # the last is the deconvolution's
        conv_norm=head.NORM,
    )


def _mask_options(cfg: Config, shapes: Shapes) -> dict[str, Any]:
    if not cfg.MODEL.MASK_ON:
        return {}
    head, features = cfg.MODEL.ROI_MASK_HEAD, _roi_features(cfg, shapes)
    build = look_up(ROI_MASK_HEADS, cfg, "MODEL.ROI_MASK_HEAD.NAME")
    options: dict[str, Any] = {"mask_in_features": cfg.MODEL.ROI_HEADS.IN_FEATURES}
    if head.POOLER_TYPE:
        options["mask_pooler"] = _build_pooler(head, features)
        options["mask_head"] = build(cfg, _pooled_shape(head, features))
    else:
        # The head samples the feature maps itself.
        options["mask_head"] = build(cfg, {name: shapes[name] for name in cfg.MODEL.ROI_HEADS.IN_FEATURES})
    return options


def _keypoint_options(cfg: Config, shapes: Shapes) -> dict[str, Any]:
    if not cfg.MODEL.KEYPOINT_ON:
        return {}
    head, features = cfg.MODEL.ROI_KEYPOINT_HEAD, _roi_features(cfg, shapes)
    build = look_up(ROI_KEYPOINT_HEADS, cfg, "MODEL.ROI_KEYPOINT_HEAD.NAME")
    return {
        "keypoint_in_features": cfg.MODEL.ROI_HEADS.IN_FEATURES,
        "keypoint_pooler": _build_pooler(head, features),
        "keypoint_head": build(cfg, _pooled_shape(head, features)),
    }


def _build_keypoint_head(cfg: Config, shape: ShapeSpec) -> nn.Module:
    head = cfg.MODEL.ROI_KEYPOINT_HEAD
    return KRCNNConvDeconvUpsampleHead(shape, num_keypoints=head.NUM_KEYPOINTS, conv_dims=head.CONV_DIMS)


def _build_standard_roi_heads(cfg: Config, shapes: Shapes) -> StandardROIHeads:
    return StandardROIHeads(
        **_box_options(cfg, shapes), **_mask_options(cfg, shapes), **_keypoint_options(cfg, shapes)
    )


def _build_pointrend_roi_heads(cfg: Config, shapes: Shapes) -> PointRendROIHeads:
    if cfg.MODEL.MASK_ON and cfg.MODEL.ROI_MASK_HEAD.NAME == "CoarseMaskHead":
        # The first configs of PointRend; the head's name and its lack of a pooler were implied.
        cfg = cfg.clone()
        cfg.MODEL.ROI_MASK_HEAD.NAME, cfg.MODEL.ROI_MASK_HEAD.POOLER_TYPE = "PointRendMaskHead", ""
    return PointRendROIHeads(
        **_box_options(cfg, shapes), **_mask_options(cfg, shapes), **_keypoint_options(cfg, shapes)
    )


def _build_cascade_roi_heads(cfg: Config, shapes: Shapes) -> CascadeROIHeads:
    if not cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG:
        raise InputError("CascadeROIHeads needs MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG: True")
    key = "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS"
    stages = [as_weights(weights, 4, key) for weights in cfg.MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS]
    if not stages:
        raise InputError(f"{key} must have weights for at least one stage")
    head, features = cfg.MODEL.ROI_BOX_HEAD, _roi_features(cfg, shapes)
    box_heads = [_build_box_head(cfg, _pooled_shape(head, features)) for _ in stages]
    return CascadeROIHeads(
        num_classes=cfg.MODEL.ROI_HEADS.NUM_CLASSES,
        box_in_features=cfg.MODEL.ROI_HEADS.IN_FEATURES,
        box_pooler=_build_pooler(head, features),
        box_heads=box_heads,
        box_predictors=[
            FastRCNNOutputLayers(
                box_head.output_shape, box2box_transform=Box2BoxTransform(weights), **_predictor_options(cfg)
            )
            for box_head, weights in zip(box_heads, stages, strict=True)
        ],
        **_mask_options(cfg, shapes),
        **_keypoint_options(cfg, shapes),
    )


def _build_rotated_roi_heads(cfg: Config, shapes: Shapes) -> RROIHeads:
    if cfg.MODEL.MASK_ON or cfg.MODEL.KEYPOINT_ON:
        raise InputError("RROIHeads has no masks or keypoints: MODEL.MASK_ON and KEYPOINT_ON must be False")
    head, features = cfg.MODEL.ROI_BOX_HEAD, _roi_features(cfg, shapes)
    if head.POOLER_TYPE != "ROIAlignRotated":
        raise InputError(
            f"RROIHeads needs MODEL.ROI_BOX_HEAD.POOLER_TYPE ROIAlignRotated, not {head.POOLER_TYPE}"
        )
    weights = as_weights(head.BBOX_REG_WEIGHTS, 5, "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS")
    box_head = _build_box_head(cfg, _pooled_shape(head, features))
    return RROIHeads(
        num_classes=cfg.MODEL.ROI_HEADS.NUM_CLASSES,
        box_in_features=cfg.MODEL.ROI_HEADS.IN_FEATURES,
        box_pooler=_build_pooler(head, features),
        box_head=box_head,
        box_predictor=RotatedFastRCNNOutputLayers(
            box_head.output_shape,
            box2box_transform=Box2BoxTransformRotated(weights),
            **_predictor_options(cfg),
        ),
    )


def _build_res5_roi_heads(cfg: Config, shapes: Shapes) -> Res5ROIHeads:
    features, head, resnets = _roi_features(cfg, shapes), cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.RESNETS
    if len(features) != 1:
        raise InputError("Res5ROIHeads takes one feature: MODEL.ROI_HEADS.IN_FEATURES has more")
    if cfg.MODEL.KEYPOINT_ON:
        raise InputError("Res5ROIHeads has no keypoints: MODEL.KEYPOINT_ON must be False")
    if resnets.DEFORM_ON_PER_STAGE[-1]:
        raise InputError(
            "Res5ROIHeads has no deformable res5: MODEL.RESNETS.DEFORM_ON_PER_STAGE[3] must be False"
        )
    out_channels = resnets.RES2_OUT_CHANNELS * 8  # doubled at res3, res4 and res5
    res5 = ResNet.make_stage(
        BottleneckBlock,
        3,
        first_stride=2,
        in_channels=out_channels // 2,
        out_channels=out_channels,
        bottleneck_channels=resnets.NUM_GROUPS * resnets.WIDTH_PER_GROUP * 8,
        num_groups=resnets.NUM_GROUPS,
        norm=resnets.NORM,
        stride_in_1x1=resnets.STRIDE_IN_1X1,
    )
    mask_head = None
    if cfg.MODEL.MASK_ON:
        shape = ShapeSpec(out_channels, head.POOLER_RESOLUTION, head.POOLER_RESOLUTION)
        mask_head = look_up(ROI_MASK_HEADS, cfg, "MODEL.ROI_MASK_HEAD.NAME")(cfg, shape)
    return Res5ROIHeads(
        num_classes=cfg.MODEL.ROI_HEADS.NUM_CLASSES,
        in_features=cfg.MODEL.ROI_HEADS.IN_FEATURES,
        pooler=_build_pooler(head, features),
        res5=nn.Sequential(*res5),
        box_predictor=_build_box_predictor(cfg, ShapeSpec(channels=out_channels)),
        mask_head=mask_head,
    )


ANCHOR_GENERATORS: dict[str, Callable[[Config, Sequence[ShapeSpec]], AnchorGenerator]] = {
    "DefaultAnchorGenerator": _build_default_anchors,
    "RotatedAnchorGenerator": _build_rotated_anchors,
}
PROPOSAL_GENERATORS: dict[str, Callable[[Config, Shapes], nn.Module | None]] = {
    "RPN": _build_rpn,
    "RRPN": _build_rrpn,
    "PrecomputedProposals": lambda cfg, shapes: None,
}
RPN_HEADS: dict[str, Callable[[Config, Sequence[ShapeSpec]], nn.Module]] = {
    "StandardRPNHead": _build_rpn_head,
}
ROI_HEADS: dict[str, Callable[[Config, Shapes], ROIHeads]] = {
    "StandardROIHeads": _build_standard_roi_heads,
    "Res5ROIHeads": _build_res5_roi_heads,
    "CascadeROIHeads": _build_cascade_roi_heads,
    "RROIHeads": _build_rotated_roi_heads,
    "PointRendROIHeads": _build_pointrend_roi_heads,
}
ROI_BOX_HEADS: dict[str, Callable[[Config, ShapeSpec], FastRCNNConvFCHead]] = {
    "FastRCNNConvFCHead": _build_conv_fc_head,
}
ROI_MASK_HEADS: dict[str, Callable[[Config, Any], nn.Module]] = {
    "MaskRCNNConvUpsampleHead": _build_conv_upsample_head,
    "PointRendMaskHead": build_pointrend_mask_head,
    "ImplicitPointRendMaskHead": build_implicit_pointrend_mask_head,
}
ROI_KEYPOINT_HEADS: dict[str, Callable[[Config, ShapeSpec], nn.Module]] = {
    "KRCNNConvDeconvUpsampleHead": _build_keypoint_head,
}
