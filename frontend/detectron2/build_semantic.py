"""Builds segmentation heads from configs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from .build_pointrend import build_standard_point_head
from .config import Config
from .layers import ShapeSpec
from .pointrend import PointRendSemSegHead
from .registry import look_up, select_features
from .semantic import SemSegFPNHead

Shapes = Mapping[str, ShapeSpec]


def build_sem_seg_head(cfg: Config, shapes: Shapes) -> nn.Module:
    """The head that MODEL.SEM_SEG_HEAD.NAME names."""
    return look_up(SEM_SEG_HEADS, cfg, "MODEL.SEM_SEG_HEAD.NAME")(cfg, shapes)


def _build_sem_seg_fpn_head(cfg: Config, shapes: Shapes) -> SemSegFPNHead:
    head = cfg.MODEL.SEM_SEG_HEAD
    select_features(shapes, head.IN_FEATURES, "MODEL.SEM_SEG_HEAD.IN_FEATURES")
    return SemSegFPNHead(
        {name: shape for name, shape in shapes.items() if name in head.IN_FEATURES},
        num_classes=head.NUM_CLASSES,
        conv_dims=head.CONVS_DIM,
        common_stride=head.COMMON_STRIDE,
        norm=head.NORM,
        ignore_value=head.IGNORE_VALUE,
    )


def _build_pointrend_sem_seg_head(cfg: Config, shapes: Shapes) -> PointRendSemSegHead:
    point = cfg.MODEL.POINT_HEAD
    build_coarse = look_up(COARSE_SEM_SEG_HEADS, cfg, "MODEL.POINT_HEAD.COARSE_SEM_SEG_HEAD_NAME")
    return PointRendSemSegHead(
        coarse_sem_seg_head=build_coarse(cfg, shapes),
        point_head=build_standard_point_head(cfg, shapes, "MODEL.SEM_SEG_HEAD.NUM_CLASSES"),
        in_features=point.IN_FEATURES,
        subdivision_steps=point.SUBDIVISION_STEPS,
        subdivision_num_points=point.SUBDIVISION_NUM_POINTS,
    )


COARSE_SEM_SEG_HEADS: dict[str, Callable[[Config, Shapes], SemSegFPNHead]] = {
    "SemSegFPNHead": _build_sem_seg_fpn_head,
}
SEM_SEG_HEADS: dict[str, Callable[[Config, Shapes], nn.Module]] = {
    **COARSE_SEM_SEG_HEADS,
    "PointRendSemSegHead": _build_pointrend_sem_seg_head,
}
