"""From a pair of nets to a graph of the level `caffe2`: weights out of the init net, operators out of the other.

Nothing is executed. A blob that is written twice becomes two values; the operators that only fill a blob with given
numbers become weights, wherever they stand.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from detc.ir import (
    Builder,
    DetcError,
    Graph,
    InputError,
    IRError,
    TensorType,
    Type,
    UnsupportedError,
    Value,
    get_op,
    parse_type,
    symbol,
    verify,
)

from . import dialect as _dialect  # noqa: F401  (registers caffe2.*)
from .anchors import read_anchor_generator
from .arguments import operator_arguments, run_operator, unsupported_operators
from .proto import Argument, NetDef, OperatorDef
from .read import Source, as_net

METADATA = "detc"
"""The net argument in which detc writes what it knows about the model, as JSON."""
SIZE_LIMIT = 2**31 - 1
"""What protobuf readers take at most, in bytes."""
SERIALIZED_ANCHORS = "serialized_anchor_generator"
PREDICT_FILE, INIT_FILE, TEXT_FILE = "model.pb", "model_init.pb", "model.pbtxt"


def load(folder: str | os.PathLike[str], *, inputs: Mapping[str, TensorType] | None = None) -> Graph:
    """The graph of the nets in a folder, `model.pb` and `model_init.pb`. See `load_nets`.

    Errors:
        InputError: the folder lacks one of the files, or see `load_nets`.
    """
    predict, init = net_files(folder)
    return load_nets(predict, init, inputs=inputs)


def net_files(folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """The files of a folder's predict net and init net.

    Errors:
        InputError: the folder lacks one of them.
    """
    path = Path(folder)
    missing = [name for name in (PREDICT_FILE, INIT_FILE) if not (path / name).is_file()]
    if missing:
        raise InputError(f"{path} is no folder with a Caffe2 model: it lacks {' and '.join(missing)}")
    return path / PREDICT_FILE, path / INIT_FILE


def load_nets(predict: Source, init: Source, *, inputs: Mapping[str, TensorType] | None = None) -> Graph:
    """The graph of two nets: files, bytes or messages. Values and weights are called as the blobs are.

    `inputs` gives the types of inputs. Without it, `data` is f32[N,C,H,W], with H and W multiples of the net's
    `size_divisibility`, and `im_info` f32[N,3]; a net of detc's says itself what it takes.

    Errors:
        InputError: a file is truncated or none of Caffe2's; blobs are used that nothing makes; an operator has
            arguments or operands that it cannot take; the type of an input is not known.
        UnsupportedError: operators that are not known; all of them are listed.
    """
    return _Loader(as_net(predict), as_net(init), inputs or {}).load()


def net_arguments(net: NetDef) -> dict[str, Any]:
    """The arguments of a net by name: numbers, text, and lists of them.

    A pickled anchor generator of RetinaNet's original exporter is read as data, without unpickling it, and comes as
    the plain arguments that it holds: `anchors_<level>`, `anchor_strides` and `anchor_offset`.

    Errors:
        InputError: an argument of a kind that nets of detectors do not have.
    """
    values: dict[str, Any] = {}
    for argument in net.arg:
        if argument.name == SERIALIZED_ANCHORS:
            generator = read_anchor_generator(argument.s)
            for level, cells in enumerate(generator.cell_anchors):
                values[f"anchors_{level}"] = cells.flatten().tolist()
            values["anchor_strides"] = list(generator.strides)
            values["anchor_offset"] = generator.offset
        else:
            values[argument.name] = _argument(argument)
    return values


def _argument(argument: Argument) -> Any:
    for field in ("i", "f"):
        if argument.HasField(field):
            return getattr(argument, field)
    try:
        if argument.HasField("s"):
            return argument.s.decode()
        if argument.strings:
            return [text.decode() for text in argument.strings]
    except UnicodeDecodeError:
        raise InputError(f"the net's argument {argument.name} is no text") from None
    return list(argument.floats) or list(argument.ints)


class _Loader:
    def __init__(self, predict: NetDef, init: NetDef, inputs: Mapping[str, TensorType]) -> None:
        self._predict, self._init = predict, init
        self._given = dict(inputs)
        self._graph = Graph(_graph_name(predict.name), "caffe2")
        self._builder = Builder(self._graph, created_by="load")
        self._blobs: dict[str, Value] = {}
        self._elements = 0

    def load(self) -> Graph:
        self._refuse_unknown()
        self._metadata()
        for op in self._init.op:
            self._weight(op)
        made = set(self._blobs)
        missing: list[str] = []
        self._refuse_absent_weights(made)
        for name in self._predict.external_input:
            if name not in made and name not in self._blobs:
                self._blobs[name] = self._graph.add_input(name, self._input_type(name))
        for op in self._predict.op:
            lacking = [name for name in op.input if name not in self._blobs]
            missing += lacking
            if missing:
                # What it would make is not missing itself.
                self._blobs.update(dict.fromkeys(op.output, self._placeholder()))
            else:
                self._operator(op)
        missing += [name for name in self._predict.external_output if name not in self._blobs]
        if missing:
            self._refuse_missing(missing)
        self._graph.set_outputs({name: self._blobs[name] for name in self._predict.external_output})
        if not self._graph.outputs:
            raise InputError("the net has no outputs")
        self._graph.prune_weights()
        try:
            verify(self._graph, after="load")
        except IRError as error:
            raise InputError(str(error)) from error
        return self._graph

    def _placeholder(self) -> Value:
        return Value(TensorType(torch.float32, ()))

    def _refuse_absent_weights(self, made: Collection[str]) -> None:
        known = {*made, *self._given, "data", "im_info"}
        absent = [name for name in dict.fromkeys(self._predict.external_input) if name not in known]
        if absent:
            raise InputError(
                f"the predict net takes blobs that the init net does not make: {', '.join(absent)}; is it another "
                "model's init net? If they are inputs, give their types"
            )

    def _refuse_missing(self, missing: Sequence[str]) -> None:
        later = {name for op in self._predict.op for name in op.output}
        kinds = {
            "blobs that nothing makes": [name for name in missing if name not in later],
            "blobs that are used before they are made": [name for name in missing if name in later],
        }
        problems = [f"{kind}: {', '.join(dict.fromkeys(names))}" for kind, names in kinds.items() if names]
        raise InputError("; ".join(problems))

    def _refuse_unknown(self) -> None:
        unknown = [line for net in (self._init, self._predict) for line in unsupported_operators(net)]
        if unknown:
            lines = "\n  ".join(dict.fromkeys(unknown))
            raise UnsupportedError(f"operators that cannot be run:\n  {lines}")

    def _metadata(self) -> None:
        arguments = net_arguments(self._predict)
        own = arguments.pop(METADATA, None)
        try:
            metadata = json.loads(own) if own is not None else {}
            types = metadata.pop("inputs", {})
            for name, text in types.items():
                type = parse_type(text["type"], text.get("multiples", {}))
                if isinstance(type, TensorType):
                    self._given.setdefault(name, type)
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError, IRError) as error:
            raise InputError(f"the net's argument {METADATA!r} is not what detc writes: {error}") from error
        self._graph.metadata.update(metadata)
        self._graph.metadata["net_arguments"] = arguments
        for name in ("size_divisibility", "meta_architecture"):
            if name in arguments:
                self._graph.metadata.setdefault(name, arguments[name])

    def _weight(self, op: OperatorDef) -> None:
        if op.input or len(op.output) != 1 or "Fill" not in op.type:
            raise InputError(
                f"the init net holds the operator {op.type}; only fills with given values can be weights"
            )
        shape = operator_arguments(op).get("shape", ())
        self._elements += max(math.prod(shape), 0)
        if 4 * self._elements > SIZE_LIMIT:
            raise InputError(
                "the init net asks for more than 2 GiB of weights, which is more than a net can hold"
            )
        (data,) = run_operator(op, ())
        name = op.output[0]
        # A blob that is filled twice is what it was filled with last.
        self._graph.weights.pop(name, None)
        self._blobs[name] = self._graph.add_weight(name, data)

    def _input_type(self, name: str) -> TensorType:
        if name in self._given:
            return self._given[name]
        if name == "data":
            step = self._graph.metadata.get("size_divisibility", 1)
            multiple = max(step, 1) if isinstance(step, int) else 1
            dims = (symbol("N"), symbol("C"), symbol("H", multiple), symbol("W", multiple))
            return TensorType(torch.float32, dims)
        return TensorType(torch.float32, (symbol("N"), 3))  # im_info

    def _operator(self, op: OperatorDef) -> None:
        if op.type.startswith("GivenTensor") and not op.input and len(op.output) == 1:
            (data,) = run_operator(op, ())
            name = self._graph.fresh_weight_name(op.output[0])
            self._blobs[op.output[0]] = self._graph.add_weight(name, data)
            return
        attributes = operator_arguments(op)
        values = [self._blobs[name] for name in op.input]
        try:
            known = get_op(f"caffe2.{op.type}")
            operands: Sequence[Any] = values
            if known.operands and known.operands[-1].variadic:
                operands = [tuple(values)]
            node = self._builder.node(known, operands, attributes)
        except (DetcError, ArithmeticError, ValueError, TypeError, IndexError) as error:
            # The last ones where a rule computes with what an argument says, such as a scale of NaN.
            made = ", ".join(op.output) or "nothing"
            raise InputError(f"the operator {op.type} that makes {made}: {error}") from error
        if len(op.output) > len(node.results):
            raise InputError(
                f"the operator {op.type} has {len(op.output)} outputs, {len(node.results)} at most are expected"
            )
        for name, result in zip(op.output, node.results, strict=False):
            result.name = name
            self._blobs[name] = result


def _graph_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name) or "predict"


def multiples(type: Type) -> dict[str, int]:
    """The symbols of a type that stand for multiples of a number, with it."""
    found: dict[str, int] = {}
    if isinstance(type, TensorType):
        for dim in type.shape:
            if not isinstance(dim, int):
                found.update({s.name: s.multiple for s in dim.symbols() if s.multiple != 1})
    return found
