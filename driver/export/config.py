"""The options of detectron2's Caffe2 export in a config."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, TypeVar

from detc.ir import InputError

C = TypeVar("C", bound=MutableMapping[str, Any])

_SECTION = "EXPORT_CAFFE2"
_DEFAULTS = {"USE_HEATMAP_MAX_KEYPOINT": False}


def add_export_config(cfg: C) -> C:
    """Give a config the options that `Caffe2Tracer` reads, in place, and return it.

    The options are `EXPORT_CAFFE2.USE_HEATMAP_MAX_KEYPOINT` (false: a keypoint net gives heatmaps, `kps_score`; true:
    it gives `keypoints_out`, found by the operator HeatmapMaxKeypoint). Those that the config has are kept. It may be
    a detectron2 or yacs CfgNode, frozen or not, a `Config` of detc's, or a plain dict. Source: detectron2 v0.6,
    `export/api.py`.

    Errors:
        InputError: it is no config.
    """
    if not isinstance(cfg, MutableMapping):
        raise InputError(
            f"add_export_config takes a config that is a mapping, such as a CfgNode, not {type(cfg).__name__}"
        )
    frozen = bool(getattr(cfg, "is_frozen", bool)())
    if frozen:
        cfg.defrost()  # type: ignore[attr-defined]  # a CfgNode's
    if not isinstance(cfg.get(_SECTION), MutableMapping):
        # A section of the config's own class, so that its options are attributes too where the config's are.
        cfg[_SECTION] = type(cfg)()
    for name, value in _DEFAULTS.items():
        cfg[_SECTION].setdefault(name, value)
    if frozen:
        cfg.freeze()  # type: ignore[attr-defined]  # a CfgNode's
    return cfg
