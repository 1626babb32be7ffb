"""Our caffe2.proto against the one that the real Caffe2 was built with."""

from __future__ import annotations

from google.protobuf import descriptor_pb2
from google.protobuf.message import Message

from detc.backends.caffe2.proto import POOL

from .client import RealCaffe2


def _enums(message: Message) -> dict[str, dict[str, int]]:
    return {enum.name: {value.name: value.number for value in enum.value} for enum in message.enum_type}


def _fields(message: Message) -> dict[str, tuple[object, ...]]:
    return {
        field.name: (
            field.number,
            field.label,
            field.type,
            field.type_name,
            field.default_value,
            field.options.packed,
        )
        for field in message.field
    }


def test_the_messages_are_caffe2s(real: RealCaffe2) -> None:
    theirs = descriptor_pb2.FileDescriptorProto.FromString(real.descriptor())
    ours = descriptor_pb2.FileDescriptorProto()
    POOL.FindFileByName("detc/caffe2.proto").CopyToProto(ours)
    by_name = {message.name: message for message in theirs.message_type}
    assert ours.package == theirs.package
    assert _enums(ours) == _enums(theirs)
    for message in ours.message_type:
        their_message = by_name[message.name]
        assert _fields(message) == _fields(their_message), message.name
        assert _enums(message) == _enums(their_message), message.name
        nested = {inner.name: _fields(inner) for inner in message.nested_type}
        assert nested == {inner.name: _fields(inner) for inner in their_message.nested_type}, message.name
