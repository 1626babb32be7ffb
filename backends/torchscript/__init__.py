"""TorchScript: lowering to torch's operators, emitting modules and exported programs, and running them."""

from .emit import TorchScriptModel, emit
from .pipeline import torchscript_pipeline
from .program import ExportedModel, ExportedRuntime, export
from .runtime import TorchScriptRuntime

__all__ = [
    "ExportedModel",
    "ExportedRuntime",
    "TorchScriptModel",
    "TorchScriptRuntime",
    "emit",
    "export",
    "torchscript_pipeline",
]
