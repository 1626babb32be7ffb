"""ONNX: lowering to ai.onnx operators, emitting models, and running them in onnxruntime."""

from . import dialect
from .emit import OnnxModel, emit
from .runtime import OnnxRuntimeModel

__all__ = ["OnnxModel", "OnnxRuntimeModel", "dialect", "emit"]
