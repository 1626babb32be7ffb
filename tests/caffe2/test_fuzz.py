"""Damaged nets: the loader raises InputError or reads a net that verifies, and never anything else."""

from __future__ import annotations

import functools

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detc.backends.caffe2.load import load_nets
from detc.backends.caffe2.proto import NetDef
from detc.backends.caffe2.read import read_net
from detc.ir import InputError, verify

from .zoo import ZOO

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@functools.cache
def _contents() -> tuple[bytes, NetDef]:
    folder = ZOO / "keypoint_rcnn_R_50_FPN" / "caffe2_original"
    return (folder / "model.pb").read_bytes(), read_net(folder / "model_init.pb")


def _try(predict: bytes | NetDef) -> None:
    try:
        graph = load_nets(predict, _contents()[1])
    except InputError:
        return
    verify(graph)


@SETTINGS
@given(st.data())
def test_flipped_bytes(data: st.DataObject) -> None:
    content = bytearray(_contents()[0])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    _try(bytes(content))


@SETTINGS
@given(st.data())
def test_pieces(data: st.DataObject) -> None:
    content = _contents()[0]
    start = data.draw(st.sampled_from([0, 0, 0, 7, 100]))
    _try(content[start : data.draw(st.integers(0, len(content)))])


@SETTINGS
@given(st.binary(max_size=200))
def test_anything(content: bytes) -> None:
    _try(content)


@SETTINGS
@given(st.data())
def test_operators_wired_differently(data: st.DataObject) -> None:
    net = read_net(_contents()[0])
    blobs = ["data", "im_info", *(blob for op in net.op for blob in op.output)]
    for _ in range(data.draw(st.integers(1, 4))):
        op = net.op[data.draw(st.integers(0, len(net.op) - 1))]
        match data.draw(st.integers(0, 4)):
            case 0 if op.input:
                op.input[data.draw(st.integers(0, len(op.input) - 1))] = data.draw(st.sampled_from(blobs))
            case 1:
                op.input.append(data.draw(st.sampled_from(blobs)))
            case 2 if op.input:
                op.input.pop()
            case 3 if op.arg:
                argument = op.arg[data.draw(st.integers(0, len(op.arg) - 1))]
                values = data.draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5))
                argument.ClearField("ints")
                argument.ClearField("i")
                argument.ints.extend(values)
                if values and data.draw(st.booleans()):
                    argument.ClearField("ints")
                    argument.i = values[0]
            case 4:
                op.type = data.draw(st.sampled_from([other.type for other in net.op]))
    _try(net)
