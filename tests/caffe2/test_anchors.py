"""The pickled anchor generator of an exported RetinaNet, read without unpickling."""

from __future__ import annotations

import functools
import io
import os
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from detc.backends.caffe2.anchors import read_anchor_generator
from detc.backends.caffe2.errors import InputError
from detc.backends.caffe2.read import read_net

from .zoo import ZOO


@functools.cache
def _archive() -> bytes:
    net = read_net(ZOO / "retinanet_R_50_FPN" / "caffe2_original" / "model.pb")
    (archive,) = (argument.s for argument in net.arg if argument.name == "serialized_anchor_generator")
    return archive


def _members(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as members:
        return {name: members.read(name) for name in members.namelist()}


def _packed(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_the_anchors_are_the_configs() -> None:
    config = yaml.safe_load((ZOO / "retinanet_R_50_FPN" / "config.yaml").read_text())["MODEL"][
        "ANCHOR_GENERATOR"
    ]
    generator = read_anchor_generator(_archive())
    assert generator.strides == (8, 16, 32, 64, 128)
    assert generator.offset == config["OFFSET"]
    assert len(generator.cell_anchors) == 5
    (ratios,) = config["ASPECT_RATIOS"]
    for anchors, sizes in zip(generator.cell_anchors, config["SIZES"], strict=True):
        expected = []
        for size in sizes:
            for ratio in ratios:
                width = (size**2 / ratio) ** 0.5
                expected.append([-width / 2, -ratio * width / 2, width / 2, ratio * width / 2])
        torch.testing.assert_close(anchors, torch.tensor(expected))


class _Payload:
    """What runs a command when it is unpickled."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.touched}",)


def test_nothing_of_a_pickle_runs(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    members = _members(_archive())
    members["archive/data.pkl"] = pickle.dumps(_Payload(touched), protocol=2)
    with pytest.raises(InputError, match="no anchor generator that is known"):
        read_anchor_generator(_packed(members))
    assert not touched.exists()


def _swapped(old: bytes, new: bytes) -> bytes:
    members = _members(_archive())
    assert old in members["archive/data.pkl"]
    members["archive/data.pkl"] = members["archive/data.pkl"].replace(old, new)
    return _packed(members)


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (lambda: b"", "cannot be read"),
        (lambda: b"PK\x03\x04 and then nothing", "cannot be read"),
        (lambda: _packed({"archive/version": b"3\n"}), "no archive of torch.save"),
        (lambda: _packed(_members(_archive()), zipfile.ZIP_DEFLATED), "packed or huge"),
        (lambda: _packed({"archive/data.pkl": bytes(2 << 20)}), "packed or huge"),
        (
            lambda: _packed({"archive/data.pkl": _members(_archive())["archive/data.pkl"][:-1]}),
            "broken|truncated",
        ),
        (lambda: _packed({"archive/data.pkl": pickle.dumps(OrderedDict(), 2)}), "no anchor generator"),
        (lambda: _packed({"archive/data.pkl": pickle.dumps([1], 2)}), "malformed"),
        (lambda: _packed({"archive/data.pkl": b"\x80\x02U\x01a."}), "SHORT_BINSTRING: refused"),
        (lambda: _packed({"archive/data.pkl": b"\x80\x02)\x81."}), "broken|malformed"),
        (lambda: _swapped(b"FloatStorage", b"DoubleStorage"), "not float32"),
        (lambda: _swapped(b"_rebuild_tensor_v2", b"_rebuild_parameter"), "where its anchors should be"),
        (lambda: _swapped(b"strides", b"stripes"), "no anchor generator"),
        (lambda: _swapped(b"K\x09K\x04\x86", b"K\x09K\x07\x86"), "unknown layout"),
        (lambda: _packed(_members(_archive()) | {"archive/data/3": bytes(10)}), "fewer bytes"),
        (
            lambda: _packed({k: v for k, v in _members(_archive()).items() if k != "archive/data/3"}),
            "cannot be read",
        ),
    ],
)
def test_what_is_refused(archive: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_anchor_generator(archive())


@settings(max_examples=300)
@given(st.data())
def test_damaged_archives(data: st.DataObject) -> None:
    members = _members(_archive())
    code = bytearray(members["archive/data.pkl"])
    opcodes = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
    for _ in range(data.draw(st.integers(1, 5))):
        position = data.draw(st.integers(0, len(code) - 1))
        new = data.draw(st.one_of(st.sampled_from(opcodes), st.binary(max_size=4)))
        code[position : position + data.draw(st.integers(0, 4))] = new
        code = code or bytearray(b".")
    members["archive/data.pkl"] = bytes(code)
    try:
        read_anchor_generator(_packed(members))
    except InputError as error:
        assert str(error)


@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    with pytest.raises(InputError):
        read_anchor_generator(content)
