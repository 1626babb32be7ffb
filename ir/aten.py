"""The `aten` dialect: torch's own operators, taken from torch's registry. Nothing is declared again here.

`aten.relu` is the overload `default`; other overloads are spelled out: `aten.add.Tensor`. Arguments of a
tensor kind are operands, all others attributes; a plain number where a tensor may stand is an attribute of
that name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch

from . import aten_layers, torch_parts  # noqa: F401  (aten_layers registers its rules)
from .aten_shapes import quick_types
from .equality import attribute_key
from .errors import DetcError, IRError, SizeIsNoNumber
from .node import Attribute
from .ops import Op, OperandType, Parameter, register_dialect
from .questions import questions_so_far
from .symbolic import meta, on_meta, sizes_in, type_of
from .types import TensorType, Type

# Arguments that say nothing about an inference graph. Given these values, they are left out of it.
_INERT_ARGUMENTS: dict[str, dict[str, Any]] = {
    "aten::batch_norm": {"training": False, "momentum": 0.0, "cudnn_enabled": False},
}
_TENSOR_KINDS = {"Tensor": (False, False), "Optional[Tensor]": (True, False), "List[Tensor]": (False, True)}


def operand_kind(argument: Any) -> tuple[bool, bool] | None:
    """(optional, variadic) of a schema argument that holds tensors, None for any other argument."""
    text = str(argument.type)
    if text in _TENSOR_KINDS:
        return _TENSOR_KINDS[text]
    if text == "List[Optional[Tensor]]":
        return (False, True)
    return None


def inert_arguments(overload: torch_parts.OpOverload) -> Mapping[str, Any]:
    """Arguments that do not matter at inference, with the value that they are taken to have."""
    return _INERT_ARGUMENTS.get(torch_parts.schema(overload).name, {})


def default_of(overload: torch_parts.OpOverload, argument: Any) -> Any:
    """The value that a left-out argument has, `inspect.Parameter.empty` where it must be given."""
    inert = inert_arguments(overload)
    if argument.name in inert:
        return inert[argument.name]
    if argument.has_default_value():
        return argument.default_value
    return None if str(argument.type).startswith("Optional[") else inspect.Parameter.empty


def overload_name(overload: torch_parts.OpOverload) -> str:
    """The op's name in the IR: `aten.add.Tensor`, and `aten.relu` for a default overload."""
    schema = torch_parts.schema(overload)
    name = schema.name.replace("::", ".")
    return f"{name}.{schema.overload_name}" if schema.overload_name else name


def overload_of(name: str) -> torch_parts.OpOverload | None:
    """The torch operator behind an op's name, None if torch has none of that name."""
    namespace, base, *rest = name.split(".")
    try:
        packet = getattr(getattr(torch.ops, namespace), base)
        overload = getattr(packet, rest[0] if rest else "default")
    except AttributeError:
        return None
    return overload if isinstance(overload, torch_parts.OpOverload) else None


def call_arguments(
    overload: torch_parts.OpOverload, operands: Sequence[Any], attributes: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments for the torch operator."""
    waiting = list(operands)
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for argument in torch_parts.schema(overload).arguments:
        if argument.name in attributes:
            value = attributes[argument.name]
        elif operand_kind(argument) is not None and waiting:
            value = waiting.pop(0)
            if isinstance(value, tuple):
                value = list(value)
        else:
            value = default_of(overload, argument)
        if value is inspect.Parameter.empty:
            raise IRError(f"{overload_name(overload)}: the argument {argument.name!r} is missing")
        if argument.kwarg_only:
            keywords[argument.name] = value
        else:
            positional.append(value)
    return positional, keywords


def flat_results(result: Any) -> list[torch.Tensor]:
    """The tensors that an operator returned, lists flattened."""
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, list | tuple):
        return [tensor for item in result for tensor in flat_results(item)]
    raise IRError(f"an operator returned {type(result).__name__}, not tensors")


def _make_body(overload: torch_parts.OpOverload) -> Callable[..., Any]:
    def body(*operands: Any, **attributes: Any) -> Any:
        positional, keywords = call_arguments(overload, operands, attributes)
        results = flat_results(overload(*positional, **keywords))
        return results[0] if len(results) == 1 else tuple(results)

    return body


# Most nodes of a network share a few signatures, and every pass is verified: the cache is what makes that cheap.
_inferred: dict[Hashable, list[Type]] = {}
_CACHE_LIMIT = 16384


def _signature(
    overload: Any, operands: tuple[OperandType, ...], attributes: Mapping[str, Attribute]
) -> Hashable:
    # `attribute_key` tells 1 from 1.0 and from True, which are equal to each other: they promote differently.
    return overload, operands, tuple(attributes), attribute_key(tuple(attributes.values()))


def _make_infer(overload: torch_parts.OpOverload) -> Callable[..., list[Type]]:
    name = overload_name(overload)

    def infer(*operands: OperandType, **attributes: Attribute) -> list[Type]:
        key = _signature(overload, operands, attributes)
        types = _inferred.get(key)
        if types is None:
            if len(_inferred) >= _CACHE_LIMIT:
                _inferred.clear()
            asked = questions_so_far()
            types = quick_types(name, operands, attributes)
            if types is None:
                types = torchs_types(overload, operands, attributes)
            # Whoever comes next has to ask again.
            if asked == questions_so_far():
                _inferred[key] = types
        return types

    return infer


def torchs_types(
    overload: torch_parts.OpOverload, operands: Sequence[OperandType], attributes: Mapping[str, Attribute]
) -> list[Type]:
    """The result types by torch's own shape propagation.

    Errors:
        IRError: torch refuses the operands, or would have to fix one of their sizes.
    """

    def without_data(operand: OperandType) -> Any:
        if isinstance(operand, tuple):
            return [without_data(item) for item in operand]
        if operand is None:
            return None
        if not isinstance(operand, TensorType):
            raise IRError(f"{overload_name(overload)} takes tensors, not {operand}")
        return meta(operand)

    values = {name: sizes_in(value) for name, value in attributes.items()}
    positional, keywords = call_arguments(overload, [without_data(o) for o in operands], values)
    try:
        return [type_of(result) for result in flat_results(on_meta(overload, positional, keywords))]
    except SizeIsNoNumber as error:
        raise SizeIsNoNumber(error.size, overload_name(overload)) from None
    except DetcError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise IRError(
            f"{overload_name(overload)} refuses its operands: {reason[0] if reason else error}"
        ) from None


def _resolve(name: str) -> Op | None:
    overload = overload_of(name)
    if overload is None:
        return None
    schema = torch_parts.schema(overload)
    operands: list[Parameter] = []
    attributes: dict[str, Any] = {}
    for argument in schema.arguments:
        kind = operand_kind(argument)
        if kind is not None:
            operands.append(Parameter(argument.name, *kind))
        else:
            attributes[argument.name] = default_of(overload, argument)
    return Op(
        name,
        tuple(operands),
        attributes,
        _make_body(overload),
        _make_infer(overload),
        doc=f"torch's {schema}",
        has_effects=schema.is_mutable,
        is_random=torch.Tag.nondeterministic_seeded in overload.tags,
    )


register_dialect("aten", _resolve)
register_dialect("torchvision", _resolve)
