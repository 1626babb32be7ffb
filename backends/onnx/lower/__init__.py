"""placeholder"""
from dataclasses import dataclass
from detc.passes.conversion import Conversion
from . import det
@dataclass(frozen=True)
class LowerToOnnx(Conversion):
    target="onnx"; level="onnx"
    @property
    def table(self): return det.TABLE
