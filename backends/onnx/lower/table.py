"""All lowering rules to ONNX."""

from __future__ import annotations

from detc.passes.rewrite.conversion import LoweringRule

from . import aten, det

TABLE: dict[str, LoweringRule] = {**aten.TABLE, **det.TABLE}
