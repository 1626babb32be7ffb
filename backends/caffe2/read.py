"""Reading nets: bytes or text to a `NetDef`, and nothing else. No operator runs, no pickle is opened."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, TypeAlias

from google.protobuf import text_format, unknown_fields
from google.protobuf.message import DecodeError

from .errors import InputError
from .proto import POOL, NetDef

Source: TypeAlias = str | os.PathLike[str] | bytes | NetDef
"""A net's file, its bytes, or the message itself."""

_TEXT_CONTROLS: Final = frozenset(b"\t\n\r")


def read_net(source: str | os.PathLike[str] | bytes) -> NetDef:
    """The net in a file (.pb, .pbtxt) or in bytes, in protobuf's binary or text form, whichever it is.

    Errors:
        InputError: the file cannot be read, is empty or truncated, or holds something else than a Caffe2 net.
    """
    if isinstance(source, bytes):
        return _parse(source, "the given bytes")
    try:
        content = Path(source).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the net {os.fspath(source)}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"not a file name: {source!r}: {error}") from error
    return _parse(content, os.fspath(source))


def as_net(source: Source) -> NetDef:
    """The net, read if need be. A message of another protobuf library, such as Caffe2's own, is taken too.

    Errors:
        InputError: see `read_net`; it is neither a file nor bytes nor a message.
    """
    if isinstance(source, str | bytes | os.PathLike):
        return read_net(source)
    if not isinstance(source, NetDef):
        if not hasattr(source, "SerializeToString"):
            raise InputError(f"a net is a NetDef message, a file or bytes, not {type(source).__name__}")
        return _parse(source.SerializeToString(), "the given message")
    return source


def _parse(content: bytes, where: str) -> NetDef:
    if not content:
        raise InputError(f"{where}: empty, where a Caffe2 net was expected")
    net = _parse_text(content, where) if _is_text(content) else _parse_binary(content, where)
    _check(net, where)
    return net


def _is_text(content: bytes) -> bool:
    """Whether these are a text's bytes. The binary form starts every operator with the control byte 0x12."""
    head = content[: 1 << 16]
    if any(byte < 0x20 and byte not in _TEXT_CONTROLS for byte in head):
        return False
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _parse_text(content: bytes, where: str) -> NetDef:
    net = NetDef()
    try:
        text_format.Parse(content.decode("utf-8"), net, descriptor_pool=POOL)
    except text_format.ParseError as error:
        raise InputError(f"{where}: not a Caffe2 net in text form: {error}") from error
    except RecursionError as error:
        raise InputError(f"{where}: nets are nested in it too deeply to read") from error
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        # What the parser lets through where a number, a string or an extension in the text cannot be taken.
        raise InputError(f"{where}: not a Caffe2 net in text form: {error}") from error
    return net


def _parse_binary(content: bytes, where: str) -> NetDef:
    net = NetDef()
    try:
        net.ParseFromString(content)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"{where}: truncated, or not a Caffe2 net: its {len(content)} bytes do not parse as one"
        ) from error
    if not net.IsInitialized():
        raise InputError(
            f"{where}: truncated, or not a Caffe2 net: {', '.join(net.FindInitializationErrors())}"
        )
    return net


def _check(net: NetDef, where: str) -> None:
    """Tell a net from another format that happens to parse as one: protobuf takes unknown fields silently."""
    strangers = sorted({field.field_number for field in unknown_fields.UnknownFieldSet(net)})
    if strangers:
        raise InputError(
            f"{where}: not a Caffe2 net: a protobuf of another kind, with the top-level fields {strangers}"
        )
    if not net.op and not net.name and not net.external_output:
        raise InputError(f"{where}: not a Caffe2 net: no operator is in it")
    for position, op in enumerate(net.op):
        if not op.type:
            raise InputError(f"{where}: not a Caffe2 net: operator {position} has no type")
        for name in (op.type, *op.input, *op.output):
            if not _is_name(name):
                raise InputError(f"{where}: not a Caffe2 net: {name!r} in operator {position} is no name")
        for argument in op.arg:
            if not _is_name(argument.name):
                raise InputError(f"{where}: not a Caffe2 net: {argument.name!r} is no name of an argument")
    for name in (
        net.name,
        *net.external_input,
        *net.external_output,
        *(argument.name for argument in net.arg),
    ):
        if not _is_name(name):
            raise InputError(f"{where}: not a Caffe2 net: {name!r} is no name")


def _is_name(name: str | bytes) -> bool:
    """Whether it can be a name. A string field whose bytes are not UTF-8 comes as bytes."""
    return isinstance(name, str) and name.isprintable()
