"""detectron2's `Caffe2Tracer`, on detc's compiler."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from torch import nn

from detc.api import emit, pipeline
from detc.backends.arrays import batch_images
from detc.backends.caffe2.model import Caffe2Model
from detc.backends.caffe2.outputs import FindKeypoints
from detc.backends.onnx.artifact import OnnxArtifact
from detc.backends.torchscript.artifacts import TorchScriptArtifact
from detc.frontend import capture
from detc.frontend.detectron2 import load_config
from detc.ir import InputError

from .caffe2_onnx import caffe2_onnx
from .config import add_export_config


class Caffe2Tracer:
    """Makes deployable files of a detectron2 model: raw layer outputs, without postprocessing.

        tracer = Caffe2Tracer(cfg, model, inputs)
        tracer.export_caffe2().save_protobuf("net")

    Two tensors go in, as in detectron2: `data` f32[N,C,H,W], images (usually 0 to 255) padded to a multiple of the
    model's divisibility, and `im_info` f32[N,3], each image's (height, width, 1.0) before that. Unlike detectron2's
    class it runs nothing: any inputs do, and none. The model is neither copied nor changed.
    """

    def __init__(
        self,
        cfg: Mapping[str, Any] | str | os.PathLike[str],
        model: nn.Module,
        inputs: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Capture the model.

        Args:
            cfg: the model's config: a detectron2 CfgNode, another mapping, or a YAML file. Its `EXPORT_CAFFE2` section
                (see `add_export_config`) is read, and what it says of images and classes goes into the files.
            model: a detectron2 model with its weights, detc's or a live one, on the CPU.
            inputs: None, or inputs as the model takes them, [{"image": tensor [C,h,w]}, ...]. Only their number
                matters: a Caffe2 net is for that many images at once.

        Errors:
            InputError: the config, the model or the inputs are not as described.
            UnsupportedError: the model has a component that cannot be captured; the message names it.
        """
        if not isinstance(cfg, Mapping | str | os.PathLike):
            raise InputError(
                f"the config is a mapping, such as a CfgNode, or a YAML file, not {type(cfg).__name__}"
            )
        if not isinstance(model, nn.Module):
            raise InputError(f"the model is an nn.Module, not {type(model).__name__}")
        self._cfg = add_export_config(load_config(cfg))
        self._model = model
        self._batch = 1 if inputs is None else _count(inputs)
        with _in_eval_mode(model):
            self._graph = capture(model, cfg=self._cfg)

    def export_caffe2(self) -> Caffe2Model:
        """The model as Caffe2 nets, for as many images at once as the tracer was given.

        Errors:
            UnsupportedError: ops that Caffe2 cannot compute; all of them are listed, each with its module.
        """
        passes = pipeline("caffe2", batch=self._batch)
        if self._cfg["EXPORT_CAFFE2"]["USE_HEATMAP_MAX_KEYPOINT"]:
            passes.append(FindKeypoints())
        model = emit(passes.run(self._graph))
        assert isinstance(model, Caffe2Model)
        return model

    def export_onnx(self, *, caffe2_ops: bool = False) -> onnx.ModelProto:
        """The model as ONNX: standard operators, any number of images, detc's names of outputs (`boxes`, ...).

        With `caffe2_ops` it is what detectron2's method gives: the net of `export_caffe2`, with Caffe2's operators in
        the domain `org.pytorch._caffe2`, for those who convert that form further. No runtime but Caffe2 takes it.

        Errors:
            UnsupportedError: ops that the form cannot express; all of them are listed, each with its module.
        """
        if caffe2_ops:
            return caffe2_onnx(self.export_caffe2().nets)
        artifact = emit(pipeline("onnx").run(self._graph))
        assert isinstance(artifact, OnnxArtifact)
        return artifact.model.to_proto()

    def export_torchscript(self) -> torch.jit.ScriptModule:
        """The model as TorchScript: any number of images, the outputs of `export_onnx`. Its `save` writes the file.

        Errors:
            UnsupportedError: ops that cannot be expressed; all of them are listed, each with its module.
        """
        artifact = emit(pipeline("torchscript").run(self._graph))
        assert isinstance(artifact, TorchScriptArtifact)
        return artifact.model.module


def _count(inputs: Sequence[Mapping[str, Any]]) -> int:
    if isinstance(inputs, Mapping | str) or not isinstance(inputs, Sequence):
        raise InputError(
            f'the inputs are a list of {{"image": tensor}}, or None, not {type(inputs).__name__}'
        )
    for i, given in enumerate(inputs):
        if not isinstance(given, Mapping):
            raise InputError(f'input {i} is {type(given).__name__}, where {{"image": tensor}} is expected')
    return len(batch_images(inputs, 1)["data"])


@contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    """As detectron2's class takes a model in training mode; afterwards every module is in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
