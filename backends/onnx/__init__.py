"""ONNX: lowering to ai.onnx operators, emitting models, running them in onnxruntime, and reading them back."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
