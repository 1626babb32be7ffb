"""Operators' arguments: between protobuf and Python's values, typed as the operators' functions say."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from .errors import InputError
from .ops import BODIES
from .ops.fill import Values
from .proto import Argument, NetDef, OperatorDef

_FLOATS_TAG: Final = 0x2D
"""Field 5, four bytes: what stands before each value of `Argument.floats`."""
_PACKED_FLOATS_TAG: Final = b"\x2a"
"""Field 5, length-delimited: the packed form, which every parser of protobuf takes too."""

_WINDOWED: Final = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool", "PadImage"})
_WITHOUT_EFFECT: Final[Mapping[str, frozenset[str]]] = {
    # Settings of kernels that are not these.
    **dict.fromkeys(
        ("Conv", "ConvTranspose", "MaxPool", "AveragePool"),
        frozenset(
            {
                "ws_nbytes_limit",
                "exhaustive_search",
                "cudnn_exhaustive_search",
                "deterministic",
                "enable_tensor_core",
                "float16_compute",
                "shared_buffer",
                "no_bias",
                "auto_pad",
            }
        ),
    ),
    "FC": frozenset({"float16_compute", "enable_tensor_core"}),
    "Dropout": frozenset({"no_gradient_to_input"}),
    "SpatialBN": frozenset({"num_batches", "cudnn_exhaustive_search"}),
    # Left over by detectron2's exporter; Caffe2 reads `epsilon`.
    "GroupNorm": frozenset({"eps"}),
    # Of detectron2's first releases; later Caffe2 has `legacy_plus_one` in its place and does not read it.
    "GenerateProposals": frozenset({"correct_transform_coords"}),
    "BBoxTransform": frozenset({"correct_transform_coords"}),
    "BoxWithNMSLimit": frozenset({"correct_transform_coords"}),
}
"""Arguments that may be there and that Caffe2 1.9.1 does not let change a result on a CPU."""


def unsupported_operators(net: NetDef) -> list[str]:
    """What of the net cannot be run here, one line for each type of operator, with the first that has it."""
    lines = {}
    for op in net.op:
        if op.type not in BODIES and op.type not in lines:
            kind = "quantized" if op.type.startswith("Int8") else "unknown"
            lines[op.type] = (
                f"{op.type} ({kind}), first as the producer of {', '.join(op.output) or 'nothing'}"
            )
    return list(lines.values())


def operator_arguments(op: OperatorDef) -> dict[str, Any]:
    """The arguments of an operator, as keyword arguments for its function. What is missing has its default.

    The singular forms of a window's arguments (`kernel`, `pad_t`, ...) come as the plural ones.

    Errors:
        InputError: an operator that is not supported, an argument that it does not have or of the wrong type.
    """
    if op.type not in BODIES:
        raise InputError(f"operators that cannot be run: {unsupported_operators(NetDef(op=[op]))[0]}")
    arguments = {}
    for argument in op.arg:
        if argument.name in arguments:
            raise InputError(f"{_where(op)}: the argument {argument.name} is given twice")
        arguments[argument.name] = argument
    if op.type in _WINDOWED:
        arguments = _plural(arguments, op)
    decoders = _decoders(op.type)
    ignored = _WITHOUT_EFFECT.get(op.type, frozenset())
    values = {}
    for name, argument in arguments.items():
        if name in decoders:
            values[name] = decoders[name](argument, op)
        elif name not in ignored:
            known = ", ".join(decoders) or "none"
            raise InputError(f"{_where(op)}: there is no argument {name}; known: {known}")
    if "output_count" in inspect.signature(BODIES[op.type]).parameters:
        values["output_count"] = len(op.output)
    return values


def run_operator(op: OperatorDef, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The operator's outputs for these inputs, as many as it names.

    Errors:
        InputError: see `operator_arguments`; operands that it cannot take; more outputs than it has.
    """
    return call_body(op, operator_arguments(op), operands)


def call_body(
    op: OperatorDef, arguments: Mapping[str, Any], operands: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """As `run_operator`, with the arguments already decoded."""
    body = BODIES[op.type]
    least, most = _operand_counts(op.type)
    if most is not None and not least <= len(operands) <= most:
        raise InputError(f"{_where(op)}: {len(operands)} inputs, {least} to {most} are expected")
    try:
        result = body(operands, **arguments) if most is None else body(*operands, **arguments)
    except InputError as error:
        raise InputError(f"{_where(op)}: {error}") from error
    except (RuntimeError, LookupError, ValueError, TypeError, OverflowError) as error:
        # What torch says of tensors whose types or shapes its kernels cannot take.
        given = ", ".join(f"{operand.dtype} {list(operand.shape)}" for operand in operands)
        raise InputError(f"{_where(op)} cannot take {given or 'its arguments'}: {error}") from error
    results = result if isinstance(result, tuple) else (result,)
    if len(op.output) > len(results):
        raise InputError(f"{_where(op)}: {len(op.output)} outputs, it has {len(results)}")
    return results[: len(op.output)]


def make_operator(
    type_: str, inputs: Iterable[str], outputs: Iterable[str], arguments: Mapping[str, Any] | None = None, /
) -> OperatorDef:
    """An operator. Arguments may be bool, int, float, str, bytes, sequences of one of these, or arrays."""
    op = OperatorDef(type=type_)
    op.input.extend(inputs)
    op.output.extend(outputs)
    for name, value in (arguments or {}).items():
        set_argument(op.arg.add(), name, value)
    return op


def set_argument(argument: Argument, name: str, value: Any) -> None:
    """Write a named value into an empty argument (of an operator or of a net).

    Errors:
        TypeError: a value that Caffe2 has no field for.
    """
    argument.name = name
    if isinstance(value, Tensor | np.ndarray):
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        if array.dtype == np.float32:
            _set_floats(argument, array)
            return
        value = array.reshape(-1).tolist()
    match value:
        case bool() | int():
            argument.i = int(value)
        case float():
            argument.f = value
        case str():
            argument.s = value.encode()
        case bytes():
            argument.s = value
        case [float(), *_]:
            argument.floats.extend(value)
        case [] | [bool() | int(), *_]:
            argument.ints.extend(map(int, value))
        case [str(), *_]:
            argument.strings.extend(text.encode() for text in value)
        case [bytes(), *_]:
            argument.strings.extend(value)
        case _:
            raise TypeError(f"an argument cannot hold {value!r}")


def _set_floats(argument: Argument, array: np.ndarray) -> None:
    """Fill `floats` with a network's weights as bytes: a loop over Python's floats takes seconds."""
    content = np.ascontiguousarray(array, dtype="<f4").tobytes()
    length, varint = len(content), bytearray()
    while length > 0x7F:
        varint.append(length & 0x7F | 0x80)
        length >>= 7
    argument.MergeFromString(_PACKED_FLOATS_TAG + bytes([*varint, length]) + content)


def argument_tensor(argument: Argument) -> Tensor:
    """The repeated numbers of an argument: f32[n] of floats, i64[n] of ints, not one by one."""
    count = len(argument.floats)
    if not count:
        return torch.tensor(argument.ints, dtype=torch.int64)
    # Nothing but the floats, so that the bytes are tag and value in turn.
    alone = Argument()
    alone.CopyFrom(argument)
    for other in ("name", "f", "i", "s", "ints", "strings", "n", "nets", "t", "tensors", "qtensors"):
        alone.ClearField(other)
    alone.DiscardUnknownFields()
    content = np.frombuffer(alone.SerializeToString(), dtype=np.uint8)
    if len(content) == 5 * count and bool((content[::5] == _FLOATS_TAG).all()):
        values = content.reshape(count, 5)[:, 1:].copy().view("<f4").reshape(-1)
    else:
        values = np.array(argument.floats, dtype=np.float32)
    return torch.from_numpy(values.astype(np.float32, copy=False))


def _where(op: OperatorDef) -> str:
    return f"the operator {op.type} that makes {', '.join(op.output) or 'nothing'}"


@functools.cache
def _operand_counts(type_: str) -> tuple[int, int | None]:
    """How many operands the function takes at least and at most; None if it takes a sequence of them."""
    operands = [
        parameter
        for parameter in inspect.signature(BODIES[type_]).parameters.values()
        if parameter.kind is not parameter.KEYWORD_ONLY
    ]
    hints = typing.get_type_hints(BODIES[type_])
    if any(typing.get_origin(hints[operand.name]) is collections.abc.Sequence for operand in operands):
        return 0, None
    return sum(operand.default is operand.empty for operand in operands), len(operands)


_Decoder = Callable[[Argument, OperatorDef], Any]


@functools.cache
def _decoders(type_: str) -> dict[str, _Decoder]:
    """By name, how to read each argument of an operator: its function's annotations say it."""
    hints = typing.get_type_hints(BODIES[type_])
    return {
        parameter.name: functools.partial(_decode, hints[parameter.name])
        for parameter in inspect.signature(BODIES[type_]).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name != "output_count"
    }


def _decode(hint: Any, argument: Argument, op: OperatorDef) -> Any:
    if hint == Values:
        return argument_tensor(argument)
    origin = typing.get_origin(hint)
    if origin is collections.abc.Sequence:
        field = {int: "ints", float: "floats", bytes: "strings"}[typing.get_args(hint)[0]]
        others = {"f", "i", "s", "floats", "ints", "strings"} - {field}
        if not any(_is_set(argument, other) for other in others):
            return tuple(getattr(argument, field))
        raise InputError(f"{_where(op)}: the argument {argument.name} should hold {field}")
    choices = typing.get_args(hint) if origin in (typing.Union, types.UnionType) else (hint,)
    for choice in choices:
        if choice is bool and argument.HasField("i"):
            return bool(argument.i)
        if choice is int and argument.HasField("i"):
            return argument.i
        if choice is float and argument.HasField("f"):
            return argument.f
        if (choice is str or typing.get_origin(choice) is typing.Literal) and argument.HasField("s"):
            return argument.s.decode("utf-8", "replace")
    raise InputError(f"{_where(op)}: the argument {argument.name} is not of its type, {hint}")


def _is_set(argument: Argument, field: str) -> bool:
    return argument.HasField(field) if len(field) == 1 else bool(getattr(argument, field))


def _plural(arguments: dict[str, Argument], op: OperatorDef) -> dict[str, Argument]:
    """`kernel` = 3, or `kernel_h` and `kernel_w`, as `kernels`, and so on."""
    rewritten = dict(arguments)
    for plural, singular, suffixes in (
        ("kernels", "kernel", ("h", "w")),
        ("strides", "stride", ("h", "w")),
        ("dilations", "dilation", ("h", "w")),
        ("adjs", "adj", ("h", "w")),
        ("pads", "pad", ("t", "l", "b", "r")),
    ):
        parts = [f"{singular}_{suffix}" for suffix in suffixes]
        if singular in arguments:
            values = [rewritten.pop(singular).i] * len(suffixes)
        elif all(part in arguments for part in parts):
            values = [rewritten.pop(part).i for part in parts]
        else:
            continue
        if plural in arguments:
            raise InputError(f"{_where(op)}: both {plural} and {singular} are given")
        rewritten[plural] = Argument(name=plural, ints=values)
    legacy = rewritten.pop("legacy_pad", None)
    if legacy is not None and legacy.i != 0:
        raise InputError(f"{_where(op)}: the padding schemes of legacy_pad are not supported")
    return rewritten
