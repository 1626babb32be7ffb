"""From a graph of the level `caffe2` to the pair of nets that Caffe2's clients load.

Blobs are called as the graph's values are: inputs and outputs by their names, weights by theirs, what has no name by
the module path that it comes from. What only one operator uses is overwritten by it where Caffe2 can. The init net
fills the weights; what the graph's metadata says goes into the predict net's arguments, those that detectron2's
exporter wrote as it wrote them, and all of it once more as JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from google.protobuf import text_format

from detc.ir import Constant, Graph, InputError, IRError, Node, Value
from detc.ir.files import atomic_write

from .arguments import make_operator, set_argument
from .dialect import ALL_OUTPUTS, LEAST_OUTPUTS
from .load import INIT_FILE, METADATA, PREDICT_FILE, SIZE_LIMIT, TEXT_FILE, multiples
from .proto import NetDef

_FILLS = {
    torch.float32: "GivenTensorFill",
    torch.float64: "GivenTensorDoubleFill",
    torch.int64: "GivenTensorInt64Fill",
    torch.int32: "GivenTensorIntFill",
    torch.int16: "GivenTensorInt16Fill",
    torch.bool: "GivenTensorBoolFill",
}
_IN_PLACE = frozenset(f"caffe2.{name}" for name in ("Relu", "Add", "Sub", "Mul", "Sigmoid"))
"""Operators that Caffe2 lets write their result into their first operand."""
_NO_ARGUMENTS = {"Split": ("output_count",)}
"""Attributes that a net says otherwise."""


@dataclass(frozen=True)
class Caffe2Nets:
    """A model as Caffe2 has it.

    Attributes:
        predict_net: takes the inputs and the weights, gives the outputs.
        init_net: makes the weights.
    """

    predict_net: NetDef
    init_net: NetDef

    def save_protobuf(self, folder: str | os.PathLike[str]) -> None:
        """Write model.pb, model_init.pb and, to be read by people, model.pbtxt into a folder, made if need be.

        Each old file stays as it is until its new one is complete.

        Errors:
            InputError: a net is larger than a protobuf can be, or the folder cannot be written.
        """
        for net in (self.predict_net, self.init_net):
            if net.ByteSize() > SIZE_LIMIT:
                raise InputError(
                    f"the weights take {net.ByteSize() / 2**30:.1f} GiB; a net holds at most 2 GiB"
                )
        path = Path(folder)
        if path.exists() and not path.is_dir():
            raise InputError(f"the output is no folder: {path}")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the folder {path}: {error.strerror}") from None
        # The weights first: a reader that finds the net finds what it needs.
        for name, content in (
            (INIT_FILE, self.init_net.SerializeToString()),
            (PREDICT_FILE, self.predict_net.SerializeToString()),
            (TEXT_FILE, text_format.MessageToString(self.predict_net).encode()),
        ):
            with atomic_write(path / name) as file:
                file.write(content)


def emit(graph: Graph, *, in_place: bool = True) -> Caffe2Nets:
    """The nets of a graph. With `in_place` false no blob is written twice.

    Errors:
        IRError: the graph is not of the level `caffe2`, or holds what no net can.
    """
    if graph.level != "caffe2":
        raise IRError(f"only graphs of the level 'caffe2' become Caffe2 nets, not {graph.level!r}")
    return _Emitter(graph, in_place).emit()


class _Emitter:
    def __init__(self, graph: Graph, in_place: bool) -> None:
        self._graph = graph
        self._in_place = in_place
        self._taken: set[str] = set()
        self._counters: dict[str, int] = {}
        self._blobs: dict[Value, str] = {}
        self._predict = NetDef(name=graph.name)
        self._init = NetDef(name=f"{graph.name}_init")

    def emit(self) -> Caffe2Nets:
        graph, predict = self._graph, self._predict
        for value in graph.inputs:
            predict.external_input.append(self._name(value, value.name, exact=True))
        aliases: list[tuple[str, Value]] = []
        for name, value in graph.outputs.items():
            if value.producer is not None and value not in self._blobs:
                self._name(value, name, exact=True)
            elif self._blobs.get(value) != name:
                aliases.append((name, value))
                self._reserve(name)
        for weight in graph.weights.values():
            self._fill(weight, weight.name)
        for node in graph:
            self._operator(node)
        for name, value in aliases:
            # An output that is an input, a weight, or another output too.
            source = self._constant(value) if isinstance(value, Constant) else self._blobs[value]
            predict.op.append(make_operator("Copy", [source], [name]))
        predict.external_output.extend(graph.outputs)
        self._arguments()
        return Caffe2Nets(predict, self._init)

    # Names

    def _reserve(self, name: str) -> str:
        if name in self._taken:
            raise IRError(f"two inputs or outputs are called {name!r}")
        self._taken.add(name)
        return name

    def _name(self, value: Value, stem: str, exact: bool = False) -> str:
        name = self._reserve(stem) if exact else self._unique(stem)
        self._blobs[value] = name
        return name

    def _unique(self, stem: str) -> str:
        name = stem
        while name in self._taken:
            self._counters[stem] = self._counters.get(stem, 0) + 1
            name = f"{stem}_{self._counters[stem]}"
        self._taken.add(name)
        return name

    # Operators

    def _fill(self, constant: Constant, stem: str) -> str:
        kind = _FILLS.get(constant.dtype)
        if kind is None:
            raise IRError(f"a constant of {constant.dtype} has no fill in Caffe2")
        name = self._name(constant, stem)
        arguments = {"shape": list(constant.data.shape), "values": constant.data.reshape(-1)}
        self._init.op.append(make_operator(kind, [], [name], arguments))
        self._predict.external_input.append(name)
        return name

    def _constant(self, constant: Constant, source: str = "") -> str:
        known = self._blobs.get(constant)
        return known if known is not None else self._fill(constant, f"{source}.constant".lstrip("."))

    def _operator(self, node: Node) -> None:
        type_ = node.op.name.partition(".")[2]
        inputs = [self._input(value, node) for value in self._flat(node)]
        results = node.results[: self._output_count(node, type_)]
        outputs = [self._output(result) for result in results]
        hidden = _NO_ARGUMENTS.get(type_, ())
        arguments = {
            name: value for name, value in node.attributes.items() if name not in hidden and value is not None
        }
        for name, value in arguments.items():
            if not _is_plain(value):
                raise IRError(f"{node.op.name}: no net can hold {name}={value!r}")
        self._predict.op.append(make_operator(type_, inputs, outputs, arguments))

    def _flat(self, node: Node) -> Iterator[Value]:
        for operand in node.operands:
            if isinstance(operand, tuple):
                yield from (value for value in operand if value is not None)
            elif operand is not None:
                yield operand
            else:
                raise IRError(f"{node.op.name}: an operand is left out before one that is given")

    def _input(self, value: Value, node: Node) -> str:
        if isinstance(value, Constant):
            return self._constant(value, node.source)
        return self._blobs[value]

    def _output_count(self, node: Node, type_: str) -> int:
        """Without the last results that nobody wants, where Caffe2 allows to leave them out."""
        count = len(node.results)
        least = count if type_ in ALL_OUTPUTS else LEAST_OUTPUTS.get(type_, 1)
        while count > least:
            last = node.results[count - 1]
            if last.is_used or last.name:
                break
            count -= 1
        return count

    def _output(self, value: Value) -> str:
        """The blob of a result, which is the one that what is computed in place of it has in the end."""
        chain = [value]
        while chain[-1] not in self._blobs and (later := self._overwritten_by(chain[-1])) is not None:
            chain.append(later)
        last = chain[-1]
        blob = self._blobs.get(last) or self._unique(last.name or _stem(last))
        self._blobs.update(dict.fromkeys(chain, blob))
        return blob

    def _overwritten_by(self, value: Value) -> Value | None:
        """The value that can be computed in the memory of this one: by its only use, unless it has its own name."""
        user = value.only_user
        if not self._in_place or user is None:
            return None
        if user.op.name not in _IN_PLACE or user.operands[0] is not value:
            return None
        if sum(operand is value for operand in user.operand_values) > 1 or user.result.type != value.type:
            return None
        return user.result if value.name in ("", user.result.name) else None

    # Arguments

    def _arguments(self) -> None:
        metadata = dict(self._graph.metadata)
        kept: Mapping[str, Any] = metadata.pop("net_arguments", {})
        values: dict[str, Any] = {
            "size_divisibility": int(metadata.get("size_divisibility", 0)),
            "device": "cpu",
        }
        if "meta_architecture" in metadata:
            values["meta_architecture"] = metadata["meta_architecture"]
        values.update(kept)
        metadata["inputs"] = {
            value.name: {"type": str(value.type), "multiples": multiples(value.type)}
            for value in self._graph.inputs
        }
        values[METADATA] = json.dumps(metadata)
        for name, value in values.items():
            set_argument(self._predict.arg.add(), name, value)


def _stem(value: Value) -> str:
    node = value.producer
    assert node is not None
    stem = f"{node.source}/{node.op.name.partition('.')[2]}".lstrip("/")
    return stem if value.index == 0 else f"{stem}_{value.index}"


def _is_plain(value: object) -> bool:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return all(isinstance(item, bool | int | float) for item in value)
    return isinstance(value, bool | int | float | str)
