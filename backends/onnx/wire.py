"""Writing a large ONNX file without holding its weights a second time.

protobuf's Python API copies every tensor into the message, and serializing copies all of them again. But a
message is the concatenation of its fields: the small parts are serialized as usual, and each weight's bytes go
from the tensor straight into the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import onnx
import torch

from .schemas import ELEMENT_TYPES

_LENGTH_DELIMITED = 2
SIZE_LIMIT = 2**31 - 1
"""What protobuf readers take at most, in bytes."""


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """The tensor's elements, row-major and little-endian; no copy where it is contiguous on the CPU."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def model_chunks(
    skeleton: onnx.ModelProto, weights: Mapping[str, torch.Tensor]
) -> Iterator[bytes | memoryview]:
    """The file's bytes: the model `skeleton` with `weights` added to its initializers, piece by piece."""
    head = onnx.ModelProto()
    head.CopyFrom(skeleton)
    head.ClearField("graph")
    yield head.SerializeToString()
    graph = skeleton.graph.SerializeToString()
    yield _prefix(
        onnx.ModelProto.DESCRIPTOR,
        "graph",
        len(graph)
        + sum(map(len, _initializer_heads(weights)))
        + sum(tensor.numel() * tensor.element_size() for tensor in weights.values()),
    )
    yield graph
    for start, tensor in zip(_initializer_heads(weights), weights.values(), strict=True):
        yield start
        yield tensor_bytes(tensor)


def model_size(skeleton: onnx.ModelProto, weights: Mapping[str, torch.Tensor]) -> int:
    """The file's length in bytes."""
    payload = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    size: int = skeleton.ByteSize()
    # Each length prefix takes up to 10 bytes.
    return size + payload + sum(map(len, _initializer_heads(weights))) + 10


def _initializer_heads(weights: Mapping[str, torch.Tensor]) -> Iterator[bytes]:
    """For each weight all that stands before its elements: the two lengths, its name, type and dimensions."""
    for name, tensor in weights.items():
        proto = onnx.TensorProto(name=name, data_type=ELEMENT_TYPES[tensor.dtype], dims=list(tensor.shape))
        header = proto.SerializeToString()
        size = tensor.numel() * tensor.element_size()
        header += _prefix(onnx.TensorProto.DESCRIPTOR, "raw_data", size)
        yield _prefix(onnx.GraphProto.DESCRIPTOR, "initializer", len(header) + size) + header


def _prefix(descriptor: Any, field: str, length: int) -> bytes:
    """Tag and length of a length-delimited field."""
    number = descriptor.fields_by_name[field].number
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
