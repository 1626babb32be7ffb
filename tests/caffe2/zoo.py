"""The nets that detectron2's own exporter wrote, and what the real Caffe2 made of them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from detc.backends.caffe2.proto import NetDef
from tests.zoo import ZOO

EXPORTED = sorted(path.parent.name for path in ZOO.glob("*/caffe2_original"))
"""The models that the original exporter wrote."""
NETS = [name for name in EXPORTED if (ZOO / name / "caffe2_original" / "model_init.pb").exists()]
"""Those of them whose weights and outputs are here, too."""


def inputs(scene: str, size_divisibility: int) -> dict[str, np.ndarray]:
    """`data` f32[1, 3, H, W], BGR and padded with zeros, and `im_info` f32[1, 3] of a scene."""
    image = np.asarray(Image.open(ZOO / "scenes" / f"{scene}.png").convert("RGB"), dtype=np.float32)
    height, width = image.shape[:2]
    step = max(size_divisibility, 1)
    data = np.zeros((1, 3, -(-height // step) * step, -(-width // step) * step), dtype=np.float32)
    data[0, :, :height, :width] = image[..., ::-1].transpose(2, 0, 1)
    return {"data": data, "im_info": np.array([[height, width, 1.0]], dtype=np.float32)}


def size_divisibility(net: NetDef) -> int:
    return next(argument.i for argument in net.arg if argument.name == "size_divisibility")
