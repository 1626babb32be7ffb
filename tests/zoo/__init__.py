"""Real checkpoints, and what real detectron2 makes of them; README.md says what the files hold."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ZOO = Path(__file__).resolve().parent
CONFIGS = ZOO / "detectron2_configs"
"""detectron2's own model zoo configs."""

RCNN_MODELS = (
    "cascade_mask_rcnn_R_50_FPN",
    "faster_rcnn_R_50_C4",
    "faster_rcnn_R_50_DC5",
    "faster_rcnn_R_50_FPN",
    "keypoint_rcnn_R_50_FPN",
    "mask_rcnn_R_50_C4",
    "mask_rcnn_R_50_FPN",
    "mask_rcnn_R_50_FPN_dconv",
    "mask_rcnn_X_FPN_gn",
    "panoptic_fpn_R_50",
    "pointrend_rcnn_R_50_FPN",
    "rotated_faster_rcnn_R_50_FPN",
)
MODELS = (*RCNN_MODELS, "retinanet_R_50_FPN", "rpn_R_50_FPN", "semantic_R_50_FPN")
BATCH_MODELS = tuple(name for name in MODELS if name != "semantic_R_50_FPN")
"""Those with goldens of a batch."""
SCENES = range(6)
BATCH = (0, 3, 5)
"""The scenes, of unlike sizes, that the goldens also have in one batch."""


def config_path(model: str) -> Path:
    return ZOO / model / "config.yaml"


def weights_path(model: str) -> Path:
    return ZOO / model / "model_final.pth"


def scene(index: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A scene as the models take it: BGR, [3, H, W], 0 to 255."""
    with Image.open(ZOO / "scenes" / f"scene{index}.png") as image:
        rgb = np.asarray(image.convert("RGB"))
    return torch.from_numpy(rgb[:, :, ::-1].transpose(2, 0, 1).copy()).to(dtype)


def single_input(index: int, dtype: torch.dtype = torch.float32) -> list[dict[str, object]]:
    """The input that the goldens `image{index}/output` are for: results at 1.5 times the size."""
    image = scene(index, dtype)
    return [{"image": image, "height": int(1.5 * image.shape[1]), "width": int(1.5 * image.shape[2])}]


def batch_input() -> list[dict[str, object]]:
    """The input that the goldens `batch/...` are for."""
    return [{"image": scene(index)} for index in BATCH]


class Golden:
    """What detectron2 computed for one model; keys are paths, see README.md."""

    def __init__(self, model: str) -> None:
        with np.load(ZOO / model / "golden.npz") as file:
            self._arrays = {key: file[key] for key in file.files}

    def __getitem__(self, key: str) -> np.ndarray:
        return self._arrays[key]

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """All arrays whose path starts with `prefix` and a slash, without that."""
        found = {
            k.removeprefix(f"{prefix}/"): v for k, v in self._arrays.items() if k.startswith(f"{prefix}/")
        }
        if not found:
            raise KeyError(f"the golden holds nothing under {prefix}")
        return found


@functools.cache
def golden(model: str) -> Golden:
    return Golden(model)


def preprocessed() -> np.ndarray:
    """f32[1, 3, H, W]: scene 0 as each model normalizes it."""
    return golden("mask_rcnn_R_50_FPN")["image0/preprocessed"]


def detectron2_configs() -> list[Path]:
    """Every config of detectron2's model zoo."""
    return sorted(CONFIGS.rglob("*.yaml"))
