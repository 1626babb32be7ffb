"""Reading nets: what is one is read, whatever else is refused in words."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from detc.backends.caffe2.arguments import make_operator, operator_arguments
from detc.backends.caffe2.errors import InputError
from detc.backends.caffe2.proto import NetDef
from detc.backends.caffe2.read import read_net

from .zoo import EXPORTED, ZOO


@functools.cache
def small_net() -> NetDef:
    net = NetDef(name="small", type="simple", external_input=["data", "w"], external_output=["out"])
    net.op.append(make_operator("Conv", ["data", "w"], ["x"], {"kernels": [1, 1], "order": "NCHW"}))
    net.op.append(make_operator("Clip", ["x"], ["out"], {"min": 0.0, "max": 6.0}))
    net.arg.add(name="device", s=b"cpu")
    return net


def _attempt(content: bytes) -> None:
    """A net or a clear error; and the same for the arguments of its operators."""
    try:
        net = read_net(content)
    except InputError as error:
        assert str(error)
        return
    for op in net.op:
        try:
            operator_arguments(op)
        except InputError as error:
            assert str(error)


@pytest.mark.parametrize("name", EXPORTED)
def test_both_forms_hold_the_same_net(name: str) -> None:
    folder = ZOO / name / "caffe2_original"
    net = read_net(folder / "model.pb")
    assert len(net.op) > 100
    assert read_net(folder / "model.pbtxt") == net
    assert net.SerializeToString() == (folder / "model.pb").read_bytes()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    net = small_net()
    assert read_net(net.SerializeToString()) == net
    path = tmp_path / "net.pbtxt"
    path.write_text(text_format.MessageToString(net))
    assert read_net(path) == net


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n", "not a Caffe2 net"),
        (b"PK\x03\x04" + bytes(30), "not a Caffe2 net"),
        (b"<html></html>", "not a Caffe2 net in text form"),
        (b"op { typo: 1 }", "no field named"),
        (b"\x08\x07\x12\x04test\x3a\x02\x0a\x00", "not a Caffe2 net"),  # ONNX: version, producer, graph
        (b"\x0a\x04\x0a\x02\x12\x00", "is no name|no operator"),  # TensorFlow: a node
        (b"\x12\x02\x0a\x00", "has no type"),
        (b"\x12\x06\x22\x04\xff\xfe\xfd\xfc", "is no name|do not parse"),
        (b'op { type: "Relu" input: "a\\001" }', "is no name"),
    ],
)
def test_foreign_content(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_net(content)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the net .*absent.pb"):
        read_net(tmp_path / "absent.pb")
    with pytest.raises(InputError, match="cannot read the net"):
        read_net(tmp_path)
    with pytest.raises(InputError, match="not a file name"):
        read_net("a\0b")


def test_every_truncation() -> None:
    content = small_net().SerializeToString()
    refused = 0
    for length in range(len(content)):
        try:
            net = read_net(content[:length])
        except InputError:
            refused += 1
        else:
            # Cut between two fields, a net is a shorter net: its outputs, which come last, are gone.
            assert not net.external_output
    assert refused > 0.9 * len(content)


@pytest.mark.parametrize("depth", [90, 2000])
def test_deep_nesting(depth: int) -> None:
    with pytest.raises(InputError):
        read_net(("op { type: 'If' arg { n { " * depth).encode())
    net = small_net()
    for _ in range(depth):
        outer = NetDef(name="outer")
        op = outer.op.add(type="If")
        op.arg.add(name="then_net").n.ParseFromString(net.SerializePartialToString()[: 1 << 16])
        content = outer.SerializePartialToString()
        try:
            net = read_net(content)
        except InputError:
            return
    pytest.fail("unbounded nesting was read")


@given(st.binary(max_size=300))
def test_any_bytes(content: bytes) -> None:
    _attempt(content)


@given(st.text(max_size=300))
def test_any_text(content: str) -> None:
    _attempt(content.encode("utf-8", "surrogatepass"))


@settings(max_examples=300)
@given(st.data())
def test_damaged_nets(data: st.DataObject) -> None:
    content = bytearray(small_net().SerializeToString())
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["flip", "insert", "delete", "repeat"])):
            case "flip":
                content[position] ^= 1 << data.draw(st.integers(0, 7))
            case "insert":
                content[position:position] = data.draw(st.binary(min_size=1, max_size=5))
            case "delete":
                del content[position : position + data.draw(st.integers(1, 5))]
            case "repeat":
                content[position:position] = content[position : position + data.draw(st.integers(1, 30))]
        content = content or bytearray(b"\x12")
    _attempt(bytes(content))


@settings(max_examples=200)
@given(st.data())
def test_damaged_text(data: st.DataObject) -> None:
    text = text_format.MessageToString(small_net())
    position = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 20))
    fragments = [
        "{",
        "}",
        "<",
        ">",
        "[a.b]",
        "9" * 30,
        "-1",
        "'",
        '"',
        "\\x",
        "1e999",
        "nan",
        ": [",
        "# ",
        "inf",
        ";",
    ]
    inserted = data.draw(st.one_of(st.sampled_from(fragments), st.text(max_size=10)))
    _attempt((text[:position] + inserted + text[position + length :]).encode("utf-8", "surrogatepass"))
