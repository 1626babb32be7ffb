"""`add_export_config` on the kinds of configs that users have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from yacs.config import CfgNode

from detc.export import add_export_config
from detc.frontend.detectron2 import Config
from detc.ir import InputError


@pytest.mark.parametrize("make", [dict, CfgNode, Config])
def test_options_are_added_in_place(make: Callable[..., Any]) -> None:
    cfg = make({"VERSION": 2})
    assert add_export_config(cfg) is cfg
    assert cfg["EXPORT_CAFFE2"] == {"USE_HEATMAP_MAX_KEYPOINT": False}
    assert cfg["VERSION"] == 2
    if make is not dict:
        assert cfg.EXPORT_CAFFE2.USE_HEATMAP_MAX_KEYPOINT is False


def test_a_users_options_are_kept() -> None:
    cfg = CfgNode({"EXPORT_CAFFE2": CfgNode({"USE_HEATMAP_MAX_KEYPOINT": True, "OTHER": 1})})
    assert add_export_config(cfg).EXPORT_CAFFE2 == {"USE_HEATMAP_MAX_KEYPOINT": True, "OTHER": 1}


def test_a_frozen_config_stays_frozen() -> None:
    cfg = CfgNode({"MODEL": CfgNode({"X": 1})})
    cfg.freeze()
    add_export_config(cfg)
    assert cfg.is_frozen()
    with pytest.raises(AttributeError, match="immutable"):
        cfg.EXPORT_CAFFE2.USE_HEATMAP_MAX_KEYPOINT = True


def test_what_is_no_config() -> None:
    with pytest.raises(InputError, match="not NoneType"):
        add_export_config(None)
