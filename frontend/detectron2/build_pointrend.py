"""Builds PointRend's heads from configs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..errors import InputError
from .config import Config
from .layers import ShapeSpec
from .point_head import ImplicitPointHead, StandardPointHead
from .pointrend import ConvFCHead, ImplicitPointRendMaskHead, PointRendMaskHead
from .registry import look_up, select_features

Shapes = Mapping[str, ShapeSpec]


def _channels(shapes: Shapes, names: list[str], key: str) -> int:
    return sum(shape.channels or 0 for shape in select_features(shapes, names, key))


def _point_channels(cfg: Config, shapes: Shapes, classes_key: str) -> int:
    """Channels of the features that the point head takes; its classes must be those of `classes_key`."""
    *sections, last = classes_key.split(".")
    node = cfg
    for section in sections:
        node = node[section]
    num_classes = node[last]
    if num_classes != cfg.MODEL.POINT_HEAD.NUM_CLASSES:
        raise InputError(
            f"{classes_key} and MODEL.POINT_HEAD.NUM_CLASSES differ: "
            f"{num_classes} and {cfg.MODEL.POINT_HEAD.NUM_CLASSES}"
        )
    return _channels(shapes, cfg.MODEL.POINT_HEAD.IN_FEATURES, "MODEL.POINT_HEAD.IN_FEATURES")


def build_standard_point_head(cfg: Config, shapes: Shapes, classes_key: str) -> StandardPointHead:
    """The point head of a mask or segmentation head whose number of classes is the config's `classes_key`."""
    look_up(_STANDARD_POINT_HEADS, cfg, "MODEL.POINT_HEAD.NAME")
    head = cfg.MODEL.POINT_HEAD
    return StandardPointHead(
        input_channels=_point_channels(cfg, shapes, classes_key),
        num_classes=head.NUM_CLASSES,
        fc_dim=head.FC_DIM,
        num_fc=head.NUM_FC,
        cls_agnostic_mask=head.CLS_AGNOSTIC_MASK,
        coarse_pred_each_layer=head.COARSE_PRED_EACH_LAYER,
    )


def _build_implicit_point_head(cfg: Config, shapes: Shapes) -> ImplicitPointHead:
    look_up(_IMPLICIT_POINT_HEADS, cfg, "MODEL.POINT_HEAD.NAME")
    head, implicit = cfg.MODEL.POINT_HEAD, cfg.MODEL.IMPLICIT_POINTREND
    return ImplicitPointHead(
        input_channels=_point_channels(cfg, shapes, "MODEL.ROI_HEADS.NUM_CLASSES"),
        num_classes=1 if head.CLS_AGNOSTIC_MASK else head.NUM_CLASSES,
        fc_dim=head.FC_DIM,
        num_fc=head.NUM_FC,
        image_feature_enabled=implicit.IMAGE_FEATURE_ENABLED,
        pos_enc_enabled=implicit.POS_ENC_ENABLED,
    )


def _mask_head_options(cfg: Config, shapes: Shapes | ShapeSpec) -> dict[str, Any]:
    if isinstance(shapes, ShapeSpec):
        raise InputError(f'{cfg.MODEL.ROI_MASK_HEAD.NAME} needs MODEL.ROI_MASK_HEAD.POOLER_TYPE: ""')
    mask, point = cfg.MODEL.ROI_MASK_HEAD, cfg.MODEL.POINT_HEAD
    return {
        "feature_scales": {name: 1.0 / (shape.stride or 1) for name, shape in shapes.items()},
        "in_features": mask.IN_FEATURES,
        "pooler_size": mask.POOLER_RESOLUTION,
        "point_in_features": point.IN_FEATURES,
        "init_resolution": mask.OUTPUT_SIDE_RESOLUTION,
        "subdivision_steps": point.SUBDIVISION_STEPS,
        "subdivision_num_points": point.SUBDIVISION_NUM_POINTS,
    }


def _build_region_head(cfg: Config, shapes: Shapes, output_shape: tuple[int, ...]) -> ConvFCHead:
    head = cfg.MODEL.ROI_MASK_HEAD
    channels = _channels(shapes, head.IN_FEATURES, "MODEL.ROI_MASK_HEAD.IN_FEATURES")
    return ConvFCHead(
        ShapeSpec(channels, head.POOLER_RESOLUTION, head.POOLER_RESOLUTION),
        conv_dim=head.CONV_DIM,
        fc_dims=[head.FC_DIM] * head.NUM_FC,
        output_shape=output_shape,
    )


def build_pointrend_mask_head(cfg: Config, shapes: Any) -> PointRendMaskHead:
    """PointRend's mask head on the feature maps of `shapes`."""
    options = _mask_head_options(cfg, shapes)
    side = cfg.MODEL.ROI_MASK_HEAD.OUTPUT_SIDE_RESOLUTION
    point_head = None
    if cfg.MODEL.ROI_MASK_HEAD.POINT_HEAD_ON:
        point_head = build_standard_point_head(cfg, shapes, "MODEL.ROI_HEADS.NUM_CLASSES")
    return PointRendMaskHead(
        coarse_head=_build_region_head(cfg, shapes, (cfg.MODEL.ROI_HEADS.NUM_CLASSES, side, side)),
        point_head=point_head,
        **options,
    )


def build_implicit_pointrend_mask_head(cfg: Config, shapes: Any) -> ImplicitPointRendMaskHead:
    """Implicit PointRend's mask head on the feature maps of `shapes`."""
    options = _mask_head_options(cfg, shapes)
    point_head = _build_implicit_point_head(cfg, shapes)
    return ImplicitPointRendMaskHead(
        coarse_head=_build_region_head(cfg, shapes, (point_head.num_params,)),
        point_head=point_head,
        **options,
    )


_STANDARD_POINT_HEADS: dict[str, Callable[..., nn.Module]] = {"StandardPointHead": StandardPointHead}
_IMPLICIT_POINT_HEADS: dict[str, Callable[..., nn.Module]] = {"ImplicitPointHead": ImplicitPointHead}
