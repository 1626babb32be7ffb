from .emit import TorchScriptModel, emit
from .pipeline import torchscript_pipeline
from .program import ExportedModel, ExportedRuntime, export
from .runtime import TorchScriptRuntime
from .scripting import (
    constant_training_mode,
    dump_torchscript_IR,
    is_tracing,
    script,
    script_function,
    source_module,
    standing_in,
    tracing_paused,
)

__all__ = [
    "ExportedModel",
    "ExportedRuntime",
    "TorchScriptModel",
    "TorchScriptRuntime",
    "constant_training_mode",
    "dump_torchscript_IR",
    "emit",
    "export",
    "is_tracing",
    "script",
    "script_function",
    "source_module",
    "standing_in",
    "torchscript_pipeline",
    "tracing_paused",
]
