"""Nets from strangers: whatever they say, they run nothing, take no more memory than a detector, and fail in words."""

from __future__ import annotations

import functools
import json
from types import MappingProxyType
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import detc
from detc.backends.caffe2 import Caffe2Runtime
from detc.backends.caffe2.arguments import make_operator, set_argument
from detc.backends.caffe2.proto import NetDef
from detc.backends.caffe2.read import read_net
from detc.export import Caffe2Model
from detc.ir import InputError

from .zoo import ZOO

EMPTY = NetDef(name="init")
IMAGE = [{"image": torch.rand(3, 40, 56) * 255}]


def _net(
    *ops: Any, inputs: tuple[str, ...] = ("data",), outputs: tuple[str, ...] = ("y",), **arguments: Any
) -> NetDef:
    net = NetDef(name="net", op=ops, external_input=inputs, external_output=outputs)
    for name, value in arguments.items():
        set_argument(net.arg.add(), name, value)
    return net


RELU = make_operator("Relu", ["data"], ["y"])


def _fill(type_: str, **arguments: Any) -> NetDef:
    return NetDef(name="init", op=[make_operator(type_, [], ["w"], arguments)])


@pytest.mark.parametrize(
    ("init", "match"),
    [
        (_fill("ConstantFill", shape=[1 << 40], value=1.0), "more than 2 GiB"),
        (_fill("ConstantFill", shape=[1 << 16, 1 << 16], value=1.0), "more than 2 GiB"),
        (_fill("GivenTensorFill", shape=[0, 1 << 62, 1 << 62], values=[]), "is too large"),
        (_fill("GivenTensorFill", shape=[1] * 100, values=[1.0]), "is too large"),
        (_fill("GivenTensorFill", shape=[-1], values=[1.0]), r"the shape \[-1\]"),
        (_fill("GivenTensorFill", shape=[2, 3], values=[1.0]), "1 values for the shape"),
        (
            _fill("Int8GivenTensorFill", shape=[1], values=b"a", Y_scale=1.0),
            r"Int8GivenTensorFill \(quantized\)",
        ),
    ],
)
def test_weights_that_cannot_be(init: NetDef, match: str) -> None:
    with pytest.raises(InputError, match=match):
        Caffe2Model(_net(make_operator("Relu", ["w"], ["y"])), init)


def test_many_fills_of_an_allowed_size() -> None:
    fills = [
        make_operator("ConstantFill", [], [f"w{i}"], {"shape": [1 << 28], "value": 0.0}) for i in range(20)
    ]
    with pytest.raises(InputError, match="more than 2 GiB of weights"):
        Caffe2Model(_net(RELU), NetDef(name="init", op=fills))


def _doubled(times: int) -> NetDef:
    ops = [make_operator("Relu", ["data"], ["x0"])]
    ops += [make_operator("Concat", [f"x{i}"] * 2, [f"x{i + 1}", f"s{i}"], {"axis": 0}) for i in range(times)]
    return _net(*ops, outputs=(f"x{times}",))


@pytest.mark.parametrize(
    "net",
    [
        _doubled(60),
        _net(make_operator("ConstantFill", [], ["y"], {"shape": [1 << 20, 1 << 20], "value": 1.0})),
        _net(make_operator("Tile", ["data"], ["y"], {"tiles": 1 << 40, "axis": 0})),
        _net(make_operator("PadImage", ["data"], ["y"], {"pads": [1 << 30] * 4})),
        _net(make_operator("ResizeNearest", ["data"], ["y"], {"width_scale": 3e4, "height_scale": 3e4})),
        _net(make_operator("UpsampleBilinear", ["data"], ["y"], {"width_scale": 1e8, "height_scale": 1e8})),
    ],
)
def test_results_larger_than_any_memory(net: NetDef) -> None:
    graph = Caffe2Model(net, EMPTY).graph
    with pytest.raises(InputError, match=r"cannot be run on these inputs: caffe2\.\w+ makes .* elements"):
        Caffe2Runtime(graph).run({value.name: torch.zeros(1, 3, 32, 32) for value in graph.inputs})


@pytest.mark.parametrize(
    ("net", "match"),
    [
        (
            _net(make_operator("FC", ["data", "w", "b"], ["y"]), inputs=("data", "w", "b")),
            "takes blobs that the init net does not make: w, b; is it another",
        ),
        (
            _net(
                make_operator("Add", ["data", "b"], ["a"]),
                make_operator("Relu", ["a"], ["b"]),
                outputs=("b",),
            ),
            "used before they are made: b$",
        ),
        (
            _net(
                make_operator("Add", ["c", "b"], ["a"]), make_operator("Relu", ["a"], ["b"]), outputs=("b",)
            ),
            "nothing makes: c; blobs that are used before they are made: b",
        ),
        (_net(make_operator("ResizeNearest", ["data"], ["y"], {"width_scale": float("nan")})), "NaN|nan"),
        (_net(RELU, outputs=()), "no outputs"),
        (_net(RELU, detc="[" * 100_000), "'detc' is not what detc writes"),
        (_net(RELU, detc="[1]"), "'detc' is not what detc writes"),
        (_net(RELU, detc='{"inputs": {"data": {"type": "f32[N**9]"}}}'), "'detc' is not what detc writes"),
    ],
)
def test_nets_that_are_refused(net: NetDef, match: str) -> None:
    with pytest.raises(InputError, match=match):
        Caffe2Model(net, EMPTY)


@functools.cache
def _original() -> tuple[NetDef, NetDef]:
    folder = ZOO / "mask_rcnn_R_50_FPN" / "caffe2_original"
    return read_net(folder / "model.pb"), read_net(folder / "model_init.pb")


def _original_with(**arguments: Any) -> Caffe2Model:
    net, init = _original()
    net = NetDef.FromString(net.SerializeToString())
    kept = [argument for argument in net.arg if argument.name not in arguments]
    del net.arg[:]
    net.arg.extend(kept)
    for name, value in arguments.items():
        set_argument(net.arg.add(), name, value)
    return Caffe2Model(net, init)


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"size_divisibility": 1 << 40}, "size_divisibility is 1099511627776, not a whole number"),
        ({"size_divisibility": -1}, "size_divisibility is -1"),
        ({"size_divisibility": "32"}, "size_divisibility is '32'"),
        (
            {"detc": json.dumps({"mask_threshold": [], "class_names": 3})},
            "mask_threshold is .*; class_names is 3",
        ),
        ({"detc": json.dumps({"instances": {"instances": 1}})}, "instances is"),
        ({"detc": json.dumps({"min_size_test": 1 << 40})}, "min_size_test is"),
        (
            {"detc": json.dumps({"inputs": {"im_info": {"type": f"f32[{1 << 40},3]"}}})},
            "takes 1099511627776 images at once",
        ),
    ],
)
def test_what_a_net_says_of_itself(said: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        _original_with(**said)(IMAGE)


def test_onnx_files_are_checked_too() -> None:
    class Runtime:
        metadata = MappingProxyType({"size_divisibility": 1 << 40})
        input_names = ("data", "im_info")
        output_names = ("boxes",)

    with pytest.raises(InputError, match="size_divisibility"):
        detc.Detector(Runtime())


_NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-3, 70),
    st.floats(width=32),
    st.sampled_from([0.5, -1.0, 1e30]),
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_nets_with_other_arguments_run_or_say_why_not(data: st.DataObject) -> None:
    predict, init = _original()
    net = NetDef.FromString(predict.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        op = data.draw(st.sampled_from([op for op in net.op if op.arg]))
        argument = data.draw(st.sampled_from(list(op.arg)))
        name, old = argument.name, argument
        value = data.draw(st.one_of(_NUMBERS, st.lists(_NUMBERS, max_size=5)))
        if isinstance(value, list) and value and not all(isinstance(item, type(value[0])) for item in value):
            value = [float(item) for item in value]
        old.Clear()
        set_argument(old, name, value)
    try:
        Caffe2Model(net, init)(IMAGE)
    except InputError as error:
        assert str(error)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damaged_init_nets(data: st.DataObject) -> None:
    predict, init = _original()
    content = bytearray(init.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    try:
        Caffe2Model(predict, bytes(content))
    except InputError as error:
        assert str(error)
