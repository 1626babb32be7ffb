"""The commonest kinds of detectors on every target give what detectron2 gave: what an environment is judged by first."""

from __future__ import annotations

import pytest
import torch
from torch.torch_version import TorchVersion

import detc
from detc.backends.torchscript.program import OLDEST_TORCH
from tests.test_architectures import assert_gives_what_detectron2_gave


@pytest.mark.parametrize("name", ["mask_rcnn_R_50_FPN", "retinanet_R_50_FPN"])
@pytest.mark.parametrize("target", ["onnx", "torchscript", "torch-export", "caffe2"])
def test_gives_what_detectron2_gave(target, name, compiled, loaded):
    if target == "torch-export" and TorchVersion(torch.__version__) < OLDEST_TORCH:
        with pytest.raises(
            detc.InputError, match=r"need torch 2\.13 or later, and this is 2\..*--target torchscript"
        ):
            compiled(name, target=target)
        return
    assert_gives_what_detectron2_gave(name, compiled(name, target=target), loaded(name))
