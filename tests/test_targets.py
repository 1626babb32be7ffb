"""The commonest kinds of detectors on every target give what detectron2 gave: what an environment is judged by first."""

from __future__ import annotations

import pytest

from tests.test_architectures import assert_gives_what_detectron2_gave


@pytest.mark.parametrize("name", ["mask_rcnn_R_50_FPN", "retinanet_R_50_FPN"])
@pytest.mark.parametrize("target", ["onnx", "torchscript", "torch-export", "caffe2"])
def test_gives_what_detectron2_gave(target, name, compiled, loaded):
    assert_gives_what_detectron2_gave(name, compiled(name, target=target), loaded(name))
