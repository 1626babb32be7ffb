"""Caffe2's protobuf messages, made from `caffe2.proto` in a descriptor pool of their own.

The private pool is what lets an old `caffe2`, whose generated code registers messages of the same names in
the default pool, live in the same process. No protoc is needed: the few constructs that `caffe2.proto` uses
are parsed here, and a test compares the result, field by field, with the descriptors inside the real Caffe2.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Token = re.compile(r"//[^\n]*|\s+|(?P<token>[A-Za-z_][\w.]*|-?\d+|\"[^\"]*\"|[{}\[\]=;,])")
_LABELS = {
    "optional": descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
    "required": descriptor_pb2.FieldDescriptorProto.LABEL_REQUIRED,
    "repeated": descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED,
}
_SCALARS = {
    name: getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{name.upper()}")
    for name in ("bool", "bytes", "double", "float", "int32", "int64", "string", "uint32")
}


def _tokens(text: str) -> list[str]:
    """The tokens of a .proto file, last first: a stack to pop from."""
    found, position = [], 0
    while position < len(text):
        match = _Token.match(text, position)
        if match is None:
            raise SyntaxError(f"caffe2.proto: unexpected {text[position : position + 20]!r}")
        if match["token"]:
            found.append(match["token"])
        position = match.end()
    return found[::-1]


def _expect(tokens: list[str], wanted: str) -> None:
    found = tokens.pop()
    if found != wanted:
        raise SyntaxError(f"caffe2.proto: {wanted!r} expected, {found!r} found")


def _enum(tokens: list[str]) -> descriptor_pb2.EnumDescriptorProto:
    """`NAME { VALUE = number; ... }`, after the keyword."""
    enum = descriptor_pb2.EnumDescriptorProto(name=tokens.pop())
    _expect(tokens, "{")
    while tokens[-1] != "}":
        name = tokens.pop()
        _expect(tokens, "=")
        enum.value.add(name=name, number=int(tokens.pop()))
        _expect(tokens, ";")
    tokens.pop()
    return enum


def _field(tokens: list[str]) -> descriptor_pb2.FieldDescriptorProto:
    """`label type name = number [default = x, packed = true];`"""
    label, kind, name = tokens.pop(), tokens.pop(), tokens.pop()
    _expect(tokens, "=")
    field = descriptor_pb2.FieldDescriptorProto(name=name, number=int(tokens.pop()), label=_LABELS[label])
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        # Message or enum: the pool finds out which, by the scoping rules of the language.
        field.type_name = kind
    if tokens[-1] == "[":
        while tokens.pop() in "[,":
            option = tokens.pop()
            _expect(tokens, "=")
            if option == "default":
                field.default_value = tokens.pop()
            else:
                setattr(field.options, option, tokens.pop() == "true")
    _expect(tokens, ";")
    return field


def _message(tokens: list[str]) -> descriptor_pb2.DescriptorProto:
    """`NAME { enums, messages and fields }`, after the keyword."""
    message = descriptor_pb2.DescriptorProto(name=tokens.pop())
    _expect(tokens, "{")
    while tokens[-1] != "}":
        if tokens[-1] == "enum":
            tokens.pop()
            message.enum_type.append(_enum(tokens))
        elif tokens[-1] == "message":
            tokens.pop()
            message.nested_type.append(_message(tokens))
        else:
            message.field.append(_field(tokens))
    tokens.pop()
    return message


def parse_proto(text: str) -> descriptor_pb2.FileDescriptorProto:
    """The descriptor of a .proto file that keeps to the constructs used in `caffe2.proto`.

    The file is named `detc/caffe2.proto` in its pool. Raises SyntaxError for anything else.
    """
    file = descriptor_pb2.FileDescriptorProto(name="detc/caffe2.proto")
    tokens = _tokens(text)
    while tokens:
        keyword = tokens.pop()
        if keyword == "message":
            file.message_type.append(_message(tokens))
        elif keyword == "enum":
            file.enum_type.append(_enum(tokens))
        elif keyword == "package":
            file.package = tokens.pop()
            _expect(tokens, ";")
        elif keyword == "syntax":
            _expect(tokens, "=")
            _expect(tokens, '"proto2"')
            _expect(tokens, ";")
        else:
            raise SyntaxError(f"caffe2.proto: unexpected {keyword!r}")
    return file


POOL = descriptor_pool.DescriptorPool()
"""The private pool. Reading the text form needs it, to look up extensions."""

POOL.AddSerializedFile(
    parse_proto(resources.files(__package__).joinpath("caffe2.proto").read_text()).SerializeToString()
)


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"caffe2.{name}"))


if TYPE_CHECKING:
    # The classes are made at run time, so a checker knows nothing about their fields.
    class _Message:
        def __init__(self, **fields: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    class Argument(_Message): ...

    class DeviceOption(_Message): ...

    class NetDef(_Message): ...

    class OperatorDef(_Message): ...

    class TensorProto(_Message): ...
else:
    Argument = _class("Argument")
    DeviceOption = _class("DeviceOption")
    NetDef = _class("NetDef")
    OperatorDef = _class("OperatorDef")
    TensorProto = _class("TensorProto")
