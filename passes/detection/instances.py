"""Taking `Instances` apart: after `FlattenInstances` every value is a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from typing_extensions import override

from detc.ir import Builder, Graph, InstancesType, IRError, Node, TensorType, Type, Value

from ..core.base import Context, Pass, erase_if_unused

FLAT_NAMES = {
    "pred_boxes": "boxes",
    "proposal_boxes": "boxes",
    "scores": "scores",
    "objectness_logits": "scores",
    "pred_classes": "classes",
    "batch_index": "batch_index",
    "pred_masks": "masks",
    "pred_keypoints": "keypoints",
}
"""detectron2's field -> what the tensor is called among a graph's outputs. Other fields keep their name."""

_ORDER = ("boxes", "scores", "classes", "batch_index")


def flat_names(outputs: Mapping[str, Type]) -> dict[tuple[str, str], str]:
    """The names of the tensors that instances among the outputs turn into: (output, field) -> name, in order.

    A field is called what `FLAT_NAMES` says. Where two outputs would share a name, the output's own name and
    an underscore come before it.
    """
    plain = {
        (output, field): FLAT_NAMES.get(field, field)
        for output, type in outputs.items()
        if isinstance(type, InstancesType)
        for field, _ in type.fields
    }
    others = [output for output, type in outputs.items() if not isinstance(type, InstancesType)]
    taken = [*others, *plain.values()]
    named: dict[tuple[str, str], str] = {}
    for output in outputs:
        mine = [(key, name) for key, name in plain.items() if key[0] == output]
        mine.sort(key=lambda item: _ORDER.index(item[1]) if item[1] in _ORDER else len(_ORDER))
        for key, name in mine:
            named[key] = name if taken.count(name) == 1 else f"{output}_{name}"
    return named


def input_name(name: str, field: str) -> str:
    """What a field of an instances input is called as an input of its own."""
    return f"{name}_{field}"


@dataclass(frozen=True)
class FlattenInstances(Pass):
    """Replace instances by their fields (scalar replacement), and outputs that are instances by tensors.

    Before:
        %d: instances<...> = instances.make([%b, %s, %i], names=("pred_boxes", "scores", "batch_index"))
        %m: instances<...> = instances.set(%d, %masks, field="pred_masks")
        return instances=%m
    After:
        return boxes=%b, scores=%s, batch_index=%i, masks=%masks

    An input that is instances becomes one input for each field, `<input>_<field>`. The level is `flat`
    afterwards, and the metadata `instances` says what the outputs were: output -> its field -> the tensor's name.

    Errors:
        IRError: an op that takes or gives instances is left, such as `det.postprocess`.
    """

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        changed = False
        for value in list(graph.inputs):
            if isinstance(value.type, InstancesType):
                with context.rewrite(f"the input {value.name}"):
                    _split_input(graph, value, value.type, context)
                changed = True
        fields: dict[Value, dict[str, Value]] = {}
        left: list[str] = []
        for node in graph:
            if node.op.name == "instances.get" and node.operand(0) in fields:
                with context.rewrite(node.op.name):
                    graph.replace_uses(node.result, fields[node.operand(0)][str(node.attributes["field"])])
                    graph.erase(node)
                changed = True
            elif node.op.dialect == "instances":
                _note_fields(node, fields)
            elif _touches_instances(node):
                left.append(f"{node.op.name} at {node.source or '(no module path)'}")
        if left:
            raise IRError(f"ops on instances are left: {', '.join(left)}")
        if graph.level != "flat":
            with context.rewrite("the outputs"):
                _split_outputs(graph, fields)
                for node in reversed(graph):
                    if node.op.dialect == "instances":
                        erase_if_unused(graph, node)
                graph.level = "flat"
            changed = True
        return changed


def _split_input(graph: Graph, value: Value, type: InstancesType, context: Context) -> None:
    """Take the fields one by one, and make the instances of them."""
    names, types = zip(*type.fields, strict=True)
    position = graph.inputs.index(value)
    before = len(graph.inputs)
    given = [graph.add_input(input_name(value.name, n), t) for n, t in zip(names, types, strict=True)]
    graph.inputs[:] = [*graph.inputs[:position], *given, *graph.inputs[position:before]]
    b = Builder(graph, before=next(iter(graph), None), created_by=context.pass_name)
    graph.replace_uses(value, b.instances.make(given, names=names))
    graph.remove_input(value)


def _note_fields(node: Node, fields: dict[Value, dict[str, Value]]) -> None:
    """Note what the fields of a node's instances are, if that can be told: another kind of op may have given them."""
    if node.op.name == "instances.make":
        names = node.attributes["names"]
        if not isinstance(names, tuple):
            raise IRError("the names of instances.make must be a tuple")
        fields[node.result] = dict(zip(map(str, names), node.operand_list(0), strict=True))
    elif node.op.name == "instances.set" and node.operand(0) in fields:
        name = str(node.attributes["field"])
        kept = {n: v for n, v in fields[node.operand(0)].items() if n != name}
        fields[node.result] = {**kept, name: node.operand(1)}


def _touches_instances(node: Node) -> bool:
    return any(isinstance(v.type, InstancesType) for v in (*node.operand_values, *node.results))


def _split_outputs(graph: Graph, fields: dict[Value, dict[str, Value]]) -> None:
    names = flat_names({name: value.type for name, value in graph.outputs.items()})
    structure: dict[str, dict[str, str]] = {}
    for (owner, field), name in names.items():
        structure.setdefault(owner, {})[field] = name
    if structure:
        graph.metadata["instances"] = structure
    outputs: dict[str, Value] = {}
    for output, value in graph.outputs.items():
        if isinstance(value.type, TensorType):
            outputs[output] = value
            continue
        for (owner, field), name in names.items():
            if owner == output:
                outputs[name] = fields[value][field]
    graph.set_outputs(outputs)
