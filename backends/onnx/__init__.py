"""ONNX: lowering to ai.onnx operators, emitting models, running them in onnxruntime, and reading them back."""

from . import dialect
from .emit import OnnxModel, emit
from .load import load
from .runtime import OnnxRuntimeModel

__all__ = ["OnnxModel", "OnnxRuntimeModel", "dialect", "emit", "load"]
