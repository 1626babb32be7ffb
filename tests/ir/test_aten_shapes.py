"""The quick rules for torch's result types give what torch's own shape propagation gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from detc.backends.torchscript.pipeline import torchscript_pipeline
from detc.ir import TensorType, aten, symbol
from detc.ir.aten import overload_of, torchs_types
from detc.ir.aten_shapes import quick_types
from detc.ir.dims import SymExpr
from tests.models import captured

N, H, K = symbol("N"), symbol("H", 32), symbol("K")
F32, F64, I32, I64, BOOL = torch.float32, torch.float64, torch.int32, torch.int64, torch.bool


def t(*shape: Any, dtype: torch.dtype = F32) -> TensorType:
    return TensorType(dtype, shape)


CASES: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    *((f"aten.{name}", (t(N, 3),), {}) for name in ("relu", "sigmoid", "exp", "abs", "isfinite")),
    ("aten.softmax.int", (t(N, 3),), {"dim": 1}),
    ("aten.clamp_min", (t(N, dtype=I64),), {"min": 0}),
    ("aten.clamp", (t(N),), {"min": 0, "max": 2.5}),
    *((f"aten.{name}.Tensor", (t(N, 1, 4), t(K, 4)), {}) for name in ("add", "sub", "mul", "div", "lt")),
    ("aten.add.Tensor", (t(N, dtype=I64), t(dtype=F32)), {"alpha": 2}),
    ("aten.add.Tensor", (t(N), t(dtype=F64)), {}),
    ("aten.mul.Tensor", (t(N), t(1, dtype=F64)), {}),
    ("aten.minimum", (t(3, 1, dtype=I32), t(N, dtype=I64)), {}),
    ("aten.bitwise_and.Tensor", (t(N, 1, dtype=BOOL), t(K, dtype=BOOL)), {}),
    *((f"aten.{name}.Scalar", (t(N),), {"other": 2}) for name in ("add", "rsub", "div", "remainder", "ge")),
    *((f"aten.{name}.Scalar", (t(N, dtype=I64),), {"other": 2}) for name in ("mul", "floor_divide", "eq")),
    ("aten.where.self", (t(N, 1, dtype=BOOL), t(4), t(N, 4)), {}),
    ("aten.where.ScalarOther", (t(N, 1, dtype=BOOL), t(4)), {"other": 0}),
    ("aten._to_copy", (t(N),), {"dtype": I64}),
    ("aten.ones_like", (t(N),), {"dtype": F64}),
    ("aten.unsqueeze", (t(N, 3),), {"dim": -1}),
    ("aten.squeeze.dim", (t(N, 1, 3),), {"dim": 1}),
    ("aten.permute", (t(N, 3, H, K),), {"dims": (0, -2, -1, 1)}),
    ("aten.transpose.int", (t(N, 3, H),), {"dim0": 0, "dim1": -1}),
    ("aten.reshape", (t(N, 12, H),), {"shape": (N * 3, H * 4)}),
    ("aten.view", (t(N, 12, H),), {"size": (N, 3, 4, H)}),
    ("aten.expand", (t(N, 1, 3),), {"size": (K, N, 7, -1)}),
    ("aten.select.int", (t(N, 5),), {"dim": 1, "index": -2}),
    ("aten.slice.Tensor", (t(N, 5),), {"dim": 1, "start": -4, "end": -1, "step": 2}),
    ("aten.slice.Tensor", (t(N, 5),), {"dim": 0, "start": 0, "end": 2**63 - 1}),
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
    ("aten.reshape", (t(N, 12),), {"shape": (-1, 4)}),
    ("aten.reshape", (t(N, 12),), {"shape": (N, 11)}),
    ("aten.expand", (t(3),), {"size": (4,)}),
    ("aten.select.int", (t(5),), {"dim": 0, "index": 5}),
    ("aten.slice.Tensor", (t(N),), {"dim": 0, "start": 1, "end": 4}),
    ("aten.cat", ((t(N, 2), t(N, 3, dtype=I64)),), {"dim": 1}),
    ("aten.cat", ((t(N, 2), t(K, 3)),), {"dim": 1}),
    ("aten.index_select", (t(N), t(dtype=I64)), {"dim": 0}),
    ("aten.sum.dim_IntList", (t(N, dtype=I64),), {"dim": (0,)}),
    ("torchvision.nms", (t(N, 5), t(N)), {"iou_threshold": 0.5}),
]


def anonymous(types: Sequence[Any]) -> list[tuple[torch.dtype, tuple[Any, ...]]]:
    """Each fresh size by its order of appearance, whatever torch called it."""
    names: dict[str, int] = {}

    def known(dim: Any) -> Any:
        name = dim.as_symbol.name if isinstance(dim, SymExpr) and dim.as_symbol else ""
        return ("fresh", names.setdefault(name, len(names))) if name.startswith("fresh__") else dim

    return [(type.dtype, tuple(known(dim) for dim in type.shape)) for type in types]


@pytest.mark.parametrize(
    ("name", "operands", "attributes"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)]
)
def test_as_torch_says(name: str, operands: tuple[Any, ...], attributes: dict[str, Any]) -> None:
    overload = overload_of(name)
    assert overload is not None
    quick = quick_types(name, operands, attributes)
    assert quick is not None
    assert anonymous(quick) == anonymous(torchs_types(overload, operands, attributes))


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
        overload = overload_of(name)
        assert overload is not None
        assert anonymous(found) == anonymous(torchs_types(overload, operands, attributes)), (name, operands)
