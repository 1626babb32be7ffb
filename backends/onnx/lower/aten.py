"""What the ONNX backend takes of aten and torchvision, as data: direct, lowered, unsupported."""

from __future__ import annotations

from detc.passes.rewrite.conversion import LoweringRule

from . import convolution, linear, normalization, pointwise, reductions, resize, shapes
from .rules import direct, refuse

DIRECT: dict[str, str] = {
    "aten.abs": "Abs",
    "aten.neg": "Neg",
    "aten.sign": "Sign",
    "aten.isnan": "IsNaN",
    "aten.isinf": "IsInf",
    "aten.hardswish": "HardSwish",
    "aten.mish": "Mish",
    "aten.selu": "Selu",
    "aten.matmul": "MatMul",
    "aten.bmm": "MatMul",
    "aten.mv": "MatMul",
    "aten.dot": "MatMul",
}
"""aten op -> the ONNX operator that has its operands and means the same."""

LOWERED: dict[str, LoweringRule] = {
    **pointwise.TABLE,
    **convolution.TABLE,
    **normalization.TABLE,
    **linear.TABLE,
    **resize.TABLE,
    **shapes.TABLE,
    **reductions.TABLE,
}
"""aten or torchvision op -> the rule that builds it from ONNX operators."""

UNSUPPORTED: dict[str, str] = {
    **dict.fromkeys(
        ("aten.rand", "aten.randn", "aten.randint", "aten.randperm", "aten.rand_like", "aten.randn_like"),
        "its result is random",
    ),
    **dict.fromkeys(
        ("aten.masked_select", "aten.unique_dim", "aten._unique2", "aten.bincount"),
        "a result whose size depends on the data stands for nothing that a detector needs; use det.* ops",
    ),
    **dict.fromkeys(
        (
            "aten._upsample_bilinear2d_aa",
            "aten._upsample_bilinear2d_aa.vec",
            "aten._upsample_bicubic2d_aa",
            "aten._upsample_bicubic2d_aa.vec",
        ),
        "onnxruntime's antialiasing does not compute what torch's does",
    ),
    "aten.grid_sampler_3d": "onnxruntime samples volumes by no such rule",
    "aten.adaptive_avg_pool3d": "volumes are not pooled adaptively in ONNX",
    "aten.lstm.input": "recurrent layers are not lowered",
    "aten.gru.input": "recurrent layers are not lowered",
    "aten.item": "a tensor's value cannot become a Python number when the graph runs",
    "aten._local_scalar_dense": "a tensor's value cannot become a Python number when the graph runs",
}
"""Op -> why there is no rule."""

TABLE: dict[str, LoweringRule] = {
    **{name: direct(op_type) for name, op_type in DIRECT.items()},
    **LOWERED,
    **{name: refuse(reason) for name, reason in UNSUPPORTED.items()},
}
