"""Passes on postprocessing, which brings results from the network's input into the output image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from typing_extensions import override

from detc.ir import (
    Builder,
    Graph,
    InstancesType,
    IRError,
    Node,
    Type,
    Value,
    infer_types,
)
from detc.ir.instances import BOX_FIELDS
from detc.ir.ops import FRESH_PREFIX
from detc.ir.sizes import matched_sizes
from detc.ir.types import substitute_type

from ..core.base import Context, Pass, attribute, erase_if_unused

_POSTPROCESSED = {"det.postprocess": 0, "det.sem_seg_postprocess": 0}
"""Ops that bring a result into the output image -> the operand that they take it from."""
_COMBINED = {"det.panoptic_combine"}
"""Ops that make a result of their own of what is in the output image already."""


@dataclass(frozen=True)
class RemovePostprocess(Pass):
    """Drop postprocessing: boxes stay in pixels of the network's input, masks as the head gave them.

    Before:
        input %output_size: i64[N,2]
        %r: instances<pred_boxes: f32[kept,4], ...> = det.postprocess(%d, %im_info, %output_size, ...)
        return instances=%r
    After:
        return instances=%d

    Semantic logits stay in the network's resolution too, and outputs that there are only in the output image, a
    panoptic combination, go away. So does an input that only postprocessing used, such as `output_size`.
    """

    changes_meaning = True

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        combined = [node for node in graph if node.op.name in _COMBINED]
        for node in combined:
            with context.rewrite(node.op.name):
                _drop(graph, node)
        removed = [node for node in graph if node.op.name in _POSTPROCESSED]
        for node in removed:
            with context.rewrite(node.op.name):
                _bypass(graph, node)
        return bool(removed or combined)


def _drop(graph: Graph, node: Node) -> None:
    """Take out a node with the outputs that it gives, and what only it used of instances."""
    graph.set_outputs({name: v for name, v in graph.outputs.items() if v.producer is not node})
    producers = dict.fromkeys(value.producer for value in node.operand_values)
    graph.erase(node)
    for producer in producers:
        if producer is not None and producer.op.dialect == "instances":
            erase_if_unused(graph, producer)


def _bypass(graph: Graph, node: Node) -> None:
    """Use what a node postprocesses in the place of what it gives."""
    raw = node.operand(_POSTPROCESSED[node.op.name])
    used = list(node.operand_values)
    graph.replace_uses(node.result, raw)
    graph.erase(node)
    for value in used:
        if value.graph is graph and not value.is_used:
            graph.remove_input(value)
    _retype(graph, {raw})


@dataclass(frozen=True)
class KeepRoiMasks(Pass):
    """Leave masks as the head gave them; boxes are still brought into the output image.

    Before:
        %r: instances<..., pred_masks: bool[kept,h,w]> = det.postprocess(%d, %im_info, %size,
        mask_threshold=0.5)
    After:
        %r: instances<..., pred_masks: f32[kept,1,28,28]> =
            det.postprocess(%d, %im_info, %size, mask_threshold=0.5, paste=False)

    An op that needs the pasted masks, such as a panoptic combination, has them pasted for it.
    """

    changes_meaning = True

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        changed = False
        for node in graph:
            if node.op.name != "det.postprocess" or not attribute(node, "paste"):
                continue
            before, after = node.operand(0).type, node.result.type
            if not isinstance(before, InstancesType) or not isinstance(after, InstancesType):
                raise IRError("det.postprocess takes and gives instances")
            masks = dict(before.fields).get("pred_masks")
            if masks is None:
                continue
            rows = after.field("pred_masks").shape[0]
            kept = masks.with_shape(rows, *masks.shape[1:])
            type = InstancesType(tuple((n, kept if n == "pred_masks" else t) for n, t in after.fields))
            with context.rewrite(node.op.name):
                _keep_masks(graph, node, type, context)
            changed = True
        return changed


def _keep_masks(graph: Graph, node: Node, type: InstancesType, context: Context) -> None:
    """Postprocess without pasting, which gives that type."""
    twin = context.builder(graph, node).node(
        node.op, node.operands, {**node.attributes, "paste": False}, [type]
    )
    _paste_for_users(graph, node, twin.result, context)
    graph.replace_uses(node.result, twin.result)
    graph.erase(node)
    _retype(graph, {twin.result})


def _paste_for_users(graph: Graph, node: Node, instances: Value, context: Context) -> None:
    """Paste the masks for the ops that combine them with something else in the output image.

    `instances` are what `node`, a `det.postprocess`, gives without pasting.
    """
    for getter in node.result.users:
        if getter.op.name != "instances.get" or getter.attributes["field"] != "pred_masks":
            continue
        for user in getter.result.users:
            if user.op.name in _COMBINED:
                b = context.builder(graph, user)
                names = ("pred_masks", "pred_boxes", "batch_index")
                fields = {name: b.instances.get(instances, field=name) for name in names}
                pasted = _paste(b, fields, node)
                graph.unify_sizes(getter.result, pasted)
                user.replace_operand(getter.result, pasted)


def _paste(b: Builder, fields: Mapping[str, Value], node: Node) -> Value:
    """The masks of postprocessed instances pasted as a `det.postprocess` says."""
    return b.det.paste_masks(
        fields["pred_masks"],
        fields["pred_boxes"],
        fields["batch_index"],
        node.operand(2),
        threshold=node.attributes["mask_threshold"],
    )


@dataclass(frozen=True)
class DecomposePostprocess(Pass):
    """Write postprocessing out as ops on the fields.

    Before:
        %r: instances<...> = det.postprocess(%d, %im_info, %output_size, mask_threshold=0.5)
    After:
        %b: f32[detections,4] = instances.get(%d, field="pred_boxes")
        %i: i64[detections] = instances.get(%d, field="batch_index")
        %s: f32[detections,4] = det.rescale_boxes(%b, %i, %im_info, %output_size)
        %k: i64[kept] = det.nonempty(%s)
        %b2: f32[kept,4] = aten.index_select(%s, %k, dim=0)                       # and so each field
        %p2: f32[kept,K,3] = det.rescale_keypoints(%p, %i2, %im_info, %output_size)
        %m2: bool[kept,h,w] = det.paste_masks(%m, %b2, %i2, %output_size, threshold=0.5)
        %r: instances<...> = instances.make([%b2, ...], names=("pred_boxes", ...))
    """

    @override
    def apply(self, graph: Graph, context: Context) -> bool:
        changed = False
        for node in graph:
            if node.op.name == "det.postprocess":
                with context.rewrite(node.op.name):
                    _decompose(graph, node, context)
                changed = True
        return changed


def _decompose(graph: Graph, node: Node, context: Context) -> None:
    b = context.builder(graph, node)
    instances, im_info, output_size = (node.operand(i) for i in range(3))
    before = instances.type
    if not isinstance(before, InstancesType):
        raise IRError("det.postprocess takes instances")
    fields = {name: b.instances.get(instances, field=name) for name, _ in before.fields}
    boxes = next((name for name in BOX_FIELDS if name in fields), None)
    if boxes is None:
        raise IRError(f"instances without boxes ({', '.join(BOX_FIELDS)}) cannot be postprocessed")
    fields[boxes] = b.det.rescale_boxes(fields[boxes], fields["batch_index"], im_info, output_size)
    rows = b.det.nonempty(fields[boxes])
    fields = {name: b.aten.index_select(field, rows, dim=0) for name, field in fields.items()}
    if "pred_keypoints" in fields:
        fields["pred_keypoints"] = b.det.rescale_keypoints(
            fields["pred_keypoints"], fields["batch_index"], im_info, output_size
        )
    if "pred_masks" in fields and attribute(node, "paste"):
        fields["pred_masks"] = _paste(b, fields, node)
    made = b.instances.make(list(fields.values()), names=tuple(fields))
    graph.replace_uses(node.result, made)
    graph.erase(node)


def _retype(graph: Graph, stale: set[Value]) -> None:
    """Infer again the types downstream of values whose type has changed."""
    for node in graph if stale else ():
        if not any(value in stale for value in node.operand_values):
            continue
        inferred = infer_types(node.op, node.operands, node.attributes)
        for result, type in zip(node.results, inferred, strict=True):
            renewed = _with_known_sizes(type, result.type)
            if renewed != result.type:
                result.type = renewed
                stale.add(result)


def _with_known_sizes(inferred: Type, declared: Type) -> Type:
    """The inferred type, in which a size that depends on data has the name that it was declared with."""
    fresh = {name for name in inferred.size_names if name.startswith(FRESH_PREFIX)}
    names = {name: dim for name, dim in matched_sizes(inferred, declared).items() if name in fresh}
    if missing := fresh - names.keys():
        raise IRError(f"no name is known for the size {', '.join(sorted(missing))}")
    return substitute_type(inferred, names)
