"""The quick rules for torch's result types give what torch's own shape propagation gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from detc.backends.torchscript.pipeline import torchscript_pipeline
from detc.ir import Symbol, TensorType, aten, aten_shapes, evaluate, symbol
from detc.ir.aten import overload_of, torchs_types
from detc.ir.aten_shapes import quick_types
from detc.ir.dims import SymExpr
from detc.ir.ops import get_op
from detc.ir.types import type_symbols
from tests.models import captured

N, H, K = symbol("N"), symbol("H", 32), symbol("K")
F32, F64, I32, I64, BOOL = torch.float32, torch.float64, torch.int32, torch.int64, torch.bool


def t(*shape: Any, dtype: torch.dtype = F32) -> TensorType:
    return TensorType(dtype, shape)


ELEMENTWISE = [
    "relu",
    "sigmoid",
    "tanh",
    "exp",
    "log",
    "sqrt",
    "rsqrt",
    "sin",
    "cos",
    "reciprocal",
    "floor",
    "ceil",
    "round",
    "abs",
    "neg",
    "silu",
    "gelu",
    "leaky_relu",
    "hardswish",
    "hardsigmoid",
    "erf",
    "elu",
    "relu6",
    "hardtanh",
    "mish",
    "softplus",
    "isfinite",
    "isnan",
    "logical_not",
    "zeros_like",
]
BINARY = ["add", "sub", "mul", "div", "remainder", "lt", "le", "gt", "ge", "eq", "ne"]
LOGIC = [
    "bitwise_and.Tensor",
    "bitwise_or.Tensor",
    "__and__.Tensor",
    "__or__.Tensor",
    "logical_and",
    "logical_or",
]
WITH_NUMBER = ["add", "sub", "rsub", "div", "remainder", "lt", "le", "gt", "ge", "eq", "ne"]
CASES: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    *((f"aten.{name}", (t(N, 3),), {}) for name in ELEMENTWISE),
    ("aten.softmax.int", (t(N, 3),), {"dim": 1}),
    ("aten._softmax", (t(N, 3),), {"dim": 1, "half_to_float": False}),
    ("aten.log_softmax.int", (t(N, 3),), {"dim": 1}),
    ("aten.clamp_max", (t(N, 3),), {"max": 0.5}),
    ("aten.clamp_min", (t(N, dtype=I64),), {"min": 0}),
    ("aten.clamp", (t(N),), {"min": 0, "max": 2.5}),
    *((f"aten.{name}.Tensor", (t(N, 1, 4), t(K, 4)), {}) for name in BINARY),
    ("aten.add.Tensor", (t(N, dtype=I64), t(dtype=F32)), {"alpha": 2}),
    ("aten.add.Tensor", (t(N), t(dtype=F64)), {}),
    ("aten.mul.Tensor", (t(N), t(1, dtype=F64)), {}),
    ("aten.minimum", (t(3, 1, dtype=I32), t(N, dtype=I64)), {}),
    ("aten.maximum", (t(N), t(N)), {}),
    ("aten.div.Tensor_mode", (t(N, dtype=I64), t(N, dtype=I64)), {"rounding_mode": "floor"}),
    *((f"aten.{name}", (t(N, 1, dtype=BOOL), t(K, dtype=BOOL)), {}) for name in LOGIC),
    *((f"aten.{name}.Scalar", (t(N),), {"other": 2}) for name in WITH_NUMBER),
    *((f"aten.{name}.Scalar", (t(N, dtype=I64),), {"other": 2}) for name in ("mul", "floor_divide", "eq")),
    ("aten.where.self", (t(N, 1, dtype=BOOL), t(4), t(N, 4)), {}),
    ("aten.where.ScalarOther", (t(N, 1, dtype=BOOL), t(4)), {"other": 0}),
    ("aten._to_copy", (t(N),), {"dtype": I64}),
    ("aten.floor_divide", (t(N, dtype=I64),), {"other": 2}),
    ("aten.floor_divide", (t(N, dtype=I64), t(dtype=I64)), {}),
    ("aten.index_fill.int_Scalar", (t(N), t(K, dtype=I64)), {"dim": 0, "value": -1.0}),
    ("aten.prod.dim_int", (t(N, 3, dtype=I64),), {"dim": 1}),
    ("aten.bucketize.Tensor", (t(N, K), t(5)), {}),
    ("aten.full_like", (t(N),), {"fill_value": 2.0}),
    ("aten.ones_like", (t(N),), {"dtype": F64}),
    ("aten.unsqueeze", (t(N, 3),), {"dim": -1}),
    ("aten.squeeze.dim", (t(N, 1, 3),), {"dim": 1}),
    ("aten.permute", (t(N, 3, H, K),), {"dims": (0, -2, -1, 1)}),
    ("aten.transpose.int", (t(N, 3, H),), {"dim0": 0, "dim1": -1}),
    ("aten.reshape", (t(N, 12, H),), {"shape": (N * 3, H * 4)}),
    ("aten.view", (t(N, 12, H),), {"size": (N, 3, 4, H)}),
    ("aten.view", (t(N, 12, H),), {"size": (-1, 4)}),
    ("aten.reshape", (t(N, 12, H),), {"shape": (N, -1)}),
    ("aten.reshape_as", (t(N, 12), t(N, 3, 4)), {}),
    ("aten.view_as", (t(N, 12), t(N, 3, 4)), {}),
    ("aten.flatten.using_ints", (t(N, 3, H, K),), {"start_dim": 1, "end_dim": -2}),
    ("aten.split.Tensor", (t(N, 7),), {"split_size": 3, "dim": 1}),
    ("aten.split.sizes", (t(N, 7),), {"split_size": (3, 4), "dim": 1}),
    ("aten.split_with_sizes", (t(N, H),), {"split_sizes": (K, H - K), "dim": 1}),
    ("aten.chunk", (t(N, 7),), {"chunks": 3, "dim": 1}),
    ("aten.unbind.int", (t(N, 3),), {"dim": 1}),
    ("aten.to.dtype", (t(N, 3),), {"dtype": I64}),
    *((f"aten.{name}", (t(N, 3),), {}) for name in ("contiguous", "clone", "alias", "detach")),
    ("aten.conv2d", (t(N, 6, H, K), t(8, 3, 3, 5), t(8)), {"stride": (2, 1), "padding": (1,), "groups": 2}),
    ("aten.conv2d", (t(N, 6, 9, K), t(8, 6, 3, 3)), {"dilation": (2, 3)}),
    ("aten.conv1d", (t(N, 6, K), t(8, 6, 3)), {"padding": (1,)}),
    ("aten.conv_transpose2d.input", (t(N, 6, H, K), t(6, 4, 2, 3)), {"stride": (2, 2), "groups": 2}),
    ("aten.max_pool2d", (t(N, 6, H, K),), {"kernel_size": (3, 2), "stride": (2,), "padding": (1,)}),
    ("aten.avg_pool2d", (t(N, 6, H, K),), {"kernel_size": (2, 2)}),
    ("aten.adaptive_avg_pool2d", (t(N, 6, H, K),), {"output_size": (1, 3)}),
    ("aten.linear", (t(N, K, 6), t(8, 6), t(8)), {}),
    ("aten.matmul", (t(N, 2, K, 6), t(N, 2, 6, K)), {}),
    ("aten.bmm", (t(N, K, 6), t(N, 6, 3)), {}),
    ("aten.scaled_dot_product_attention", (t(N, 2, K, 8), t(N, 2, H, 8), t(N, 2, H, 8)), {}),
    ("aten.batch_norm", (t(N, 6, H, K), t(6), t(6), t(6), t(6)), {"eps": 1e-5}),
    ("aten.group_norm", (t(N, 6, H, K), t(6), t(6)), {"num_groups": 2}),
    ("aten.layer_norm", (t(N, K, 6), t(6), t(6)), {"normalized_shape": (6,)}),
    (
        "aten._native_batch_norm_legit_no_training",
        (t(N, 6), t(6), t(6), t(6), t(6)),
        {"momentum": 0.1, "eps": 1e-5},
    ),
    *(
        (f"aten.{name}", (t(N, 6),), {"p": 0.5, "train": False})
        for name in ("feature_dropout", "alpha_dropout")
    ),
    ("aten.dropout", (t(N, 6),), {"p": 0.5, "train": False}),
    ("aten.upsample_nearest2d.vec", (t(N, 6, H, K),), {"output_size": None, "scale_factors": (2.0, 0.5)}),
    *(
        (name, (t(N, 6, H, K),), {"output_size": (K, 7), "align_corners": False, "scale_factors": None})
        for name in ("aten.upsample_bilinear2d.vec", "aten.upsample_bicubic2d.vec")
    ),
    (
        "aten.grid_sampler",
        (t(N, 6, H, K), t(N, K, 3, 2)),
        {"interpolation_mode": 0, "padding_mode": 0, "align_corners": False},
    ),
    ("aten.pad", (t(N, 6, H, K),), {"pad": (0, 7 * ((K + 6) // 7) - K, 1, 2)}),
    ("aten.constant_pad_nd", (t(N, K),), {"pad": (1, 2)}),
    ("aten.flip", (t(N, H),), {"dims": (1,)}),
    ("aten.roll", (t(N, H),), {"shifts": (-3,), "dims": (1,)}),
    ("aten.topk", (t(N, K),), {"k": 1}),
    ("aten.searchsorted.Tensor", (t(5), t(N, K)), {}),
    ("aten.ones", (), {"size": (N, 3), "dtype": I64}),
    ("aten.new_zeros", (t(N),), {"size": (K,), "dtype": I64}),
    ("aten.new_full", (t(N),), {"size": (K,), "fill_value": 1.0}),
    ("aten.zeros", (), {"size": (N, 3)}),
    ("aten.new_ones", (t(N, dtype=I64),), {"size": (K,)}),
    ("aten.scatter.src", (t(N, 3), t(N, 2, dtype=I64), t(N, 2)), {"dim": 1}),
    ("aten.index_put", (t(N, 3), (t(K, dtype=I64),), t(K, 3)), {}),
    ("aten.select_scatter", (t(N, 5), t(N)), {"dim": 1, "index": 1}),
    ("aten.slice_scatter", (t(N, 5), t(N, 2)), {"dim": 1, "start": 1, "end": 3}),
    ("aten.index.Tensor", (t(N, 3), (t(K, 2, dtype=I64),)), {}),
    ("aten.index.Tensor", (t(N, 3), (t(N, dtype=BOOL),)), {}),
    ("aten.masked_select", (t(N, 3), t(N, 3, dtype=BOOL)), {}),
    ("aten.repeat_interleave.Tensor", (t(N, dtype=I64),), {}),
    ("aten.repeat_interleave.self_Tensor", (t(N, 3), t(N, dtype=I64)), {"dim": 0}),
    ("aten.mul.Tensor", (t(N),), {"other": 0.5}),
    ("aten.mul.Scalar", (t(N, dtype=I64),), {"other": H}),
    (
        "torchvision.roi_align",
        (t(N, 6, H, K), t(K, 5)),
        {"spatial_scale": 0.25, "pooled_height": 7, "pooled_width": 5, "sampling_ratio": 2, "aligned": True},
    ),
    ("aten.expand", (t(N, 1, 3),), {"size": (K, N, 7, -1)}),
    ("aten.select.int", (t(N, 5),), {"dim": 1, "index": -2}),
    ("aten.slice.Tensor", (t(N, 5),), {"dim": 1, "start": -4, "end": -1, "step": 2}),
    ("aten.slice.Tensor", (t(N, 5),), {"dim": 0, "start": 0, "end": 2**63 - 1}),
    ("aten.slice.Tensor", (t(N),), {"dim": 0, "start": 1, "end": 4}),
    ("aten.slice.Tensor", (t(N, 7 * ((H + 6) // 7)),), {"dim": 1, "end": H}),
    ("aten.slice.Tensor", (t(N, H),), {"dim": 1, "start": H - 3, "end": -1}),
    ("aten.fill.Scalar", (t(N),), {"value": 1}),
    ("aten.fill.Tensor", (t(N), t()), {}),
    ("aten.masked_fill.Scalar", (t(N, 3), t(N, 1, dtype=BOOL)), {"value": -100.0}),
    ("aten.unflatten.int", (t(N, 12, H),), {"dim": 1, "sizes": (3, -1)}),
    ("aten.cat", ((t(N, 2), t(N, 3), t(N, K)),), {"dim": -1}),
    ("aten.stack", ((t(N, 2), t(N, 2)),), {"dim": -1}),
    ("aten.index_select", (t(N, H), t(K, dtype=I64)), {"dim": 1}),
    ("aten.index_copy", (t(N, 3), t(K, dtype=I64), t(K, 3)), {"dim": 0}),
    ("aten.index_fill.int_Scalar", (t(N), t(K, dtype=I64)), {"dim": 0, "value": 1}),
    ("aten.gather", (t(N, 3), t(N, 1, dtype=I64)), {"dim": 1}),
    ("aten.full", (), {"size": (N, 3), "fill_value": 1.0, "dtype": F32}),
    ("aten.arange", (), {"end": H * 2, "dtype": I64}),
    ("aten.nonzero", (t(N, 3, dtype=BOOL),), {}),
    ("aten.amax", (t(N, 3),), {"dim": (0,), "keepdim": True}),
    ("aten.amin", (t(N, 3),), {"dim": (-1,)}),
    ("aten.any.dim", (t(N, 3, dtype=BOOL),), {"dim": 1, "keepdim": True}),
    ("aten.mean.dim", (t(N, 3, H),), {"dim": (1,)}),
    ("aten.sort", (t(N, 3),), {"dim": 1}),
    ("aten.all.dim", (t(N, 3, dtype=BOOL),), {"dim": 1}),
    ("aten.sum.dim_IntList", (t(N, 3, H),), {"dim": (-1, 0)}),
    ("aten.cumsum", (t(N, 3),), {"dim": 0}),
    ("aten.sort.stable", (t(N, 3),), {"stable": True, "dim": 1}),
    ("torchvision.nms", (t(N, 4), t(N)), {"iou_threshold": 0.5}),
]

LEFT_TO_TORCH: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("aten.add.Tensor", (t(N), t(K)), {}),
    ("aten.add.Tensor", (t(N), t(3)), {}),
    ("aten.div.Tensor", (t(N, dtype=I64), t(N, dtype=I64)), {}),
    ("aten.div.Scalar", (t(N, dtype=I64),), {"other": 2}),
    ("aten.mul.Scalar", (t(N, dtype=I64),), {"other": 0.5}),
    ("aten.exp", (t(N, dtype=I64),), {}),
    ("aten.sub.Tensor", (t(N, dtype=BOOL), t(N, dtype=BOOL)), {}),
    ("aten.unsqueeze", (t(N),), {"dim": 3}),
    ("aten.squeeze.dim", (t(N),), {"dim": 0}),
    ("aten.reshape", (t(N, 12),), {"shape": (N, 11)}),
    ("aten.reshape", (t(N, 12),), {"shape": (-1, 5)}),
    ("aten.conv2d", (t(N, 6, H, K), t(8, 5, 3, 3)), {}),
    ("aten.conv2d", (t(N, 6, 2, 2), t(8, 6, 3, 3)), {}),
    ("aten.max_pool2d", (t(N, 6, H, K),), {"kernel_size": (3,), "ceil_mode": True}),
    ("aten.linear", (t(N, 5), t(8, 6)), {}),
    ("aten.matmul", (t(N, 2, 3), t(3, 4)), {}),
    ("aten.split.Tensor", (t(N, K),), {"split_size": 3, "dim": 1}),
    ("aten.topk", (t(N, 3),), {"k": 4}),
    ("aten.expand", (t(3),), {"size": (4,)}),
    ("aten.select.int", (t(5),), {"dim": 0, "index": 5}),
    ("aten.slice.Tensor", (t(N),), {"dim": 0, "start": 1, "end": 4, "step": 2}),
    ("aten.cat", ((t(N, 2), t(N, 3, dtype=I64)),), {"dim": 1}),
    ("aten.cat", ((t(N, 2), t(K, 3)),), {"dim": 1}),
    ("aten.index_select", (t(N), t(dtype=I64)), {"dim": 0}),
    ("aten.sum.dim_IntList", (t(N, dtype=I64),), {"dim": (0,)}),
    ("torchvision.nms", (t(N, 5), t(N)), {"iou_threshold": 0.5}),
]


OF_DEVICE = "aten._native_batch_norm_legit_no_training"
SIZES = {"N": 2, "H": 64, "K": 5}


def is_fresh(dim: Any) -> bool:
    symbol = dim.as_symbol if isinstance(dim, SymExpr) else None
    return symbol is not None and symbol.name.startswith("fresh__")


def is_as_torch_says(name: str, operands: Sequence[Any], attributes: dict[str, Any], found: Any) -> bool:
    """Whether types are those that torch infers. What torch has to compute first is computed, at some sizes."""
    op, overload = get_op(name), overload_of(name)
    assert overload is not None
    # What batch_norm keeps besides differs from device to device, and only a run tells what the CPU's keeps.
    if name != OF_DEVICE and not any(is_fresh(dim) for type in found for dim in type.shape):
        return list(found) == torchs_types(overload, operands, attributes)
    sizes = {s.name: SIZES.get(s.name, 3 + i) for i, s in enumerate(symbols_in(operands))}
    results = op.body(*(real(operand, sizes) for operand in operands), **attributes)
    for type, result in zip(found, results if isinstance(results, tuple) else [results], strict=True):
        dims = zip(type.shape, result.shape, strict=True)
        if type.dtype != result.dtype or any(not is_fresh(d) and evaluate(d, sizes) != n for d, n in dims):
            return False
    return True


def symbols_in(operands: Sequence[Any]) -> list[Symbol]:
    types = [t for o in operands for t in (o if isinstance(o, tuple) else (o,))]
    return list(dict.fromkeys(s for type in types for s in type_symbols(type)))


def real(operand: Any, sizes: dict[str, int]) -> Any:
    if isinstance(operand, tuple):
        return tuple(real(one, sizes) for one in operand)
    shape = [evaluate(dim, sizes) for dim in operand.shape]
    return torch.ones(shape).to(operand.dtype)


@pytest.mark.parametrize(
    ("name", "operands", "attributes"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)]
)
def test_as_torch_says(name: str, operands: tuple[Any, ...], attributes: dict[str, Any]) -> None:
    quick = quick_types(name, operands, attributes)
    assert quick is not None
    assert is_as_torch_says(name, operands, attributes, quick)


def test_each_rule_has_a_case() -> None:
    assert aten_shapes._rules.keys() == {name for name, _, _ in CASES}


@pytest.mark.parametrize(
    ("name", "operands", "attributes"),
    LEFT_TO_TORCH,
    ids=[f"{i}-{c[0]}" for i, c in enumerate(LEFT_TO_TORCH)],
)
def test_what_is_not_plain_is_left_to_torch(
    name: str, operands: tuple[Any, ...], attributes: dict[str, Any]
) -> None:
    assert quick_types(name, operands, attributes) is None


def test_all_that_a_detector_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def noted(name: str, operands: Any, attributes: Any) -> Any:
        found = quick_types(name, operands, attributes)
        if found is not None:
            asked.append((name, operands, dict(attributes), found))
        return found

    monkeypatch.setattr(aten, "quick_types", noted)
    monkeypatch.setattr(aten, "_inferred", {})
    torchscript_pipeline(postprocess=True).run(captured("faster_rcnn_R_50_FPN"))
    assert len(asked) > 100
    for name, operands, attributes, found in asked:
        assert is_as_torch_says(name, operands, attributes, found), (name, operands)
