"""detc: the compiler for object-detection models.

import detc

model = detc.load_model("config.yaml", "model_final.pth")  # detectron2's call convention
artifact = detc.compile(model, target="onnx")
artifact.save("model.onnx")
artifact([{"image": image}])  # [{"instances": Instances}]
"""

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
)

from .api import compile, emit, pipeline
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
    "compile",
    "emit",
    "importer",
    "load_artifact",
    "load_model",
    "parse_graph",
    "pipeline",
]
