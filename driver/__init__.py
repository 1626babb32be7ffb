"""detc: the compiler for object-detection models.

import detc

model = detc.load_model("config.yaml", "model_final.pth")  # detectron2's call convention
artifact = detc.compile(model, target="onnx")
artifact.save("model.onnx")
artifact([{"image": image}])  # [{"instances": Instances}]
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detc.backends.detector import Artifact, Detector
    from detc.frontend import capture, importer, load_model, register
    from detc.ir import DetcError, Graph, InputError, UnsupportedError, parse_graph
    from detc.passes import (
        CheckNumerics,
        CountNodes,
        DumpIR,
        ExpensiveChecks,
        NoMatch,
        Observer,
        Pass,
        Pipeline,
        PrintAfter,
        PrintBefore,
        PrintChanged,
        RewriteRule,
        Timing,
        apply_rules,
        bisect,
        load_graph,
        load_inputs,
        parse_passes,
        save_graph,
    )

    from .api import compile, emit, pipeline
    from .check.parity import Parity, check_parity
    from .load import load_artifact

__all__ = [
    "Artifact",
    "CheckNumerics",
    "CountNodes",
    "DetcError",
    "Detector",
    "DumpIR",
    "ExpensiveChecks",
    "Graph",
    "InputError",
    "NoMatch",
    "Observer",
    "Parity",
    "Pass",
    "Pipeline",
    "PrintAfter",
    "PrintBefore",
    "PrintChanged",
    "RewriteRule",
    "Timing",
    "UnsupportedError",
    "apply_rules",
    "bisect",
    "capture",
    "check_parity",
    "compile",
    "emit",
    "importer",
    "load_artifact",
    "load_graph",
    "load_inputs",
    "load_model",
    "parse_graph",
    "parse_passes",
    "pipeline",
    "register",
    "save_graph",
]

_HOMES = {
    "detc.api": ("compile", "emit", "pipeline"),
    "detc.check.parity": ("Parity", "check_parity"),
    "detc.backends.detector": ("Artifact", "Detector"),
    "detc.frontend": ("capture", "importer", "load_model", "register"),
    "detc.ir": ("DetcError", "Graph", "InputError", "UnsupportedError", "parse_graph"),
    "detc.load": ("load_artifact",),
}
"""Where the names are from; those that are not listed are from detc.passes."""


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, and `detc --help` imports this package: names are looked up when first used.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((module for module, names in _HOMES.items() if name in names), "detc.passes")
    globals()[name] = found = getattr(import_module(home), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
