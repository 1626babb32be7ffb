"""Operators' arguments, between protobuf and Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from detc.backends.caffe2.arguments import (
    argument_tensor,
    make_operator,
    operator_arguments,
    run_operator,
    set_argument,
    unsupported_operators,
)
from detc.backends.caffe2.errors import InputError
from detc.backends.caffe2.proto import Argument, NetDef, OperatorDef


@pytest.mark.parametrize(
    ("value", "field", "stored"),
    [
        (True, "i", 1),
        (-7, "i", -7),
        (0.5, "f", 0.5),
        ("cpu", "s", b"cpu"),
        (b"\x00\xff", "s", b"\x00\xff"),
        ([1, 2], "ints", [1, 2]),
        ((1.0, 2.5), "floats", [1.0, 2.5]),
        (["a", "b"], "strings", [b"a", b"b"]),
        (np.array([1, 2], dtype=np.int64), "ints", [1, 2]),
        (torch.tensor([[1.5], [2.5]]), "floats", [1.5, 2.5]),
        ([], "ints", []),
    ],
)
def test_a_value_has_its_field(value: Any, field: str, stored: Any) -> None:
    argument = Argument()
    set_argument(argument, "x", value)
    read = getattr(Argument.FromString(argument.SerializeToString()), field)
    assert (list(read) if isinstance(stored, list) else read) == stored
    assert argument.name == "x"


def test_a_value_without_a_field() -> None:
    with pytest.raises(TypeError, match="cannot hold"):
        set_argument(Argument(), "x", {})


@pytest.mark.parametrize("count", [0, 1, 127, 128, 5000, 70000])
def test_weights_survive_bit_by_bit(count: int) -> None:
    bits = np.random.default_rng(0).integers(0, 1 << 32, size=count, dtype=np.uint32)
    values = bits.view(np.float32)
    argument = Argument()
    set_argument(argument, "values", values)
    assert len(argument.floats) == count
    restored = argument_tensor(Argument.FromString(argument.SerializeToString())).numpy()
    if count:
        np.testing.assert_array_equal(restored.view(np.uint32), bits)


def test_whole_numbers() -> None:
    argument = Argument(name="values", ints=[1, -2, 1 << 60])
    assert argument_tensor(argument).tolist() == [1, -2, 1 << 60]


def _arguments(type_: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return operator_arguments(make_operator(type_, ["a"], ["b"], arguments))


def test_types_are_the_functions() -> None:
    given = {"spatial_scale": 0.25, "pooled_h": 7, "aligned": 1, "order": "NCHW"}
    assert _arguments("RoIAlign", given) == {
        "spatial_scale": 0.25,
        "pooled_h": 7,
        "aligned": True,
        "order": "NCHW",
    }
    assert _arguments("BBoxTransform", {"weights": [1.0, 2.0, 3.0, 4.0]}) == {"weights": (1.0, 2.0, 3.0, 4.0)}
    assert _arguments("Cast", {"to": "FLOAT"}) == {"to": "FLOAT"}
    assert _arguments("Cast", {"to": 1}) == {"to": 1}
    assert _arguments("Split", {"axis": 0}) == {"axis": 0, "output_count": 1}


def test_singular_windows() -> None:
    assert _arguments("Conv", {"kernel": 3, "stride_h": 1, "stride_w": 2, "pad": 1, "legacy_pad": 0}) == {
        "kernels": (3, 3),
        "strides": (1, 2),
        "pads": (1, 1, 1, 1),
    }


def test_arguments_without_effect() -> None:
    assert _arguments("GroupNorm", {"eps": 1e-5, "group": 8}) == {"group": 8}
    assert _arguments("Conv", {"kernels": [1, 1], "ws_nbytes_limit": 4}) == {"kernels": (1, 1)}


@pytest.mark.parametrize(
    ("type_", "arguments", "message"),
    [
        ("RoIAlign", {"pooled": 7}, "RoIAlign that makes b: there is no argument pooled; known: order"),
        ("RoIAlign", {"pooled_h": 7.0}, "pooled_h is not of its type"),
        ("RoIAlign", {"order": 1}, "order is not of its type"),
        ("BBoxTransform", {"weights": [1, 2, 3, 4]}, "weights should hold floats"),
        ("Conv", {"kernel": 3, "kernels": [3, 3]}, "both kernels and kernel"),
        ("Conv", {"legacy_pad": 3}, "legacy_pad are not supported"),
        ("Int8Conv", {}, r"Int8Conv \(quantized\)"),
        ("ATen", {}, r"ATen \(unknown\)"),
    ],
)
def test_what_is_refused(type_: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _arguments(type_, arguments)


def test_an_argument_that_is_given_twice() -> None:
    op = make_operator("Clip", ["a"], ["b"], {"min": 0.0})
    op.arg.add(name="min", f=1.0)
    with pytest.raises(InputError, match="given twice"):
        operator_arguments(op)


def test_all_unsupported_operators_are_listed() -> None:
    net = NetDef(
        op=[
            OperatorDef(type="Relu", output=["a"]),
            OperatorDef(type="Int8Conv", output=["b"]),
            OperatorDef(type="ATen", output=["c", "d"]),
            OperatorDef(type="Int8Conv", output=["e"]),
        ]
    )
    assert unsupported_operators(net) == [
        "Int8Conv (quantized), first as the producer of b",
        "ATen (unknown), first as the producer of c, d",
    ]


@pytest.mark.parametrize(
    ("type_", "operands", "arguments"),
    [
        ("Relu", [torch.zeros(2, dtype=torch.bool)], {}),
        ("Conv", [torch.zeros(1, 1, 4, 4, dtype=torch.float64), torch.zeros(1, 1, 1, 1)], {}),
        ("FC", [torch.zeros(2, 3), torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)], {}),
        ("RoIAlign", [torch.zeros(1, 1, 4, 4), torch.zeros(1, 5, dtype=torch.int64)], {}),
        ("Tile", [torch.zeros(3)], {"tiles": -1}),
        ("GivenTensorFill", [], {"values": [1.0], "shape": [-1]}),
        ("ConstantFill", [], {"shape": [1 << 40, 1 << 40]}),
        ("GenerateProposals", [torch.zeros(1, 1, 4, 4, dtype=torch.int64)] * 4, {}),
    ],
)
def test_operands_that_cannot_be_taken(
    type_: str, operands: list[torch.Tensor], arguments: dict[str, Any]
) -> None:
    op = make_operator(type_, ["a"] * len(operands), ["b"], arguments)
    with pytest.raises(InputError, match=f"the operator {type_} that makes b"):
        run_operator(op, operands)


def test_numbers_of_inputs_and_outputs() -> None:
    with pytest.raises(InputError, match="2 inputs, 1 to 1 are expected"):
        run_operator(make_operator("Relu", ["a", "b"], ["c"]), [torch.zeros(1), torch.zeros(1)])
    with pytest.raises(InputError, match="2 outputs, it has 1"):
        run_operator(make_operator("Relu", ["a"], ["b", "c"]), [torch.zeros(1)])
    with pytest.raises(InputError, match="1 inputs, 3 to 3 are expected"):
        run_operator(make_operator("FC", ["a"], ["b"]), [torch.zeros(1)])
