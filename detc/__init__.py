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
    from detc.frontend import capture, importer, load_model
    from detc.ir import DetcError, Graph, InputError, UnsupportedError, parse_graph
    from detc.passes import (
        CheckNumerics,
        CountNodes,
        DumpIR,
        NoMatch,
        Observer,
        Pass,
        Pipeline,
        PrintAfter,
        PrintChanged,
        RewriteRule,
        Timing,
        apply_rules,
        bisect,
        load_dump,
    )

    from .api import compile, emit, pipeline
    from .checks import Parity, check_parity
    from .detector import Artifact, Detector
    from .load import load_artifact

__all__ = [
    "Artifact",
    "CheckNumerics",
    "CountNodes",
    "DetcError",
    "Detector",
    "DumpIR",
    "Graph",
    "InputError",
    "NoMatch",
    "Observer",
    "Parity",
    "Pass",
    "Pipeline",
    "PrintAfter",
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
    "load_dump",
    "load_model",
    "parse_graph",
    "pipeline",
]

_HOMES = ("detc.ir", "detc.passes", "detc.frontend", "detc.detector", "detc.load", "detc.checks", "detc.api")


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, and `detc --help` imports this package: names are looked up when first used.
    if name in __all__:
        for home in map(import_module, _HOMES):
            if name in vars(home):
                globals()[name] = found = getattr(home, name)
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
