from . import dialect
from .emit import OnnxModel, emit
from .load import load
from .openvino import OpenVinoModel
from .runtime import OnnxRuntimeModel

__all__ = ["OnnxModel", "OnnxRuntimeModel", "OpenVinoModel", "dialect", "emit", "load"]
