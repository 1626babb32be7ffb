"""The passes on instances and on postprocessing, on a small detector."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from detc.ir import Builder, Graph, IRError, run, verify
from detc.ir.dialects.instances import InstancesBatch
from detc.passes import (
    Canonicalize,
    CheckNumerics,
    Context,
    DeadCode,
    DecomposePostprocess,
    FlattenInstances,
    KeepRoiMasks,
    Pass,
    Pipeline,
    RemovePostprocess,
    compare,
    detection_groups,
)
from tests.checks import body_of, check_round_trip, check_use_lists, graph_of, joined
from tests.detection import detector, detector_inputs, fitting

INPUTS = [
    detector_inputs(),
    detector_inputs(images=1, rows=5, seed=1),
    detector_inputs(images=3, rows=9, seed=2),
    # No boxes at all, and an image without any.
    detector_inputs(rows=0),
    {**detector_inputs(rows=4), "index": torch.ones(4, dtype=torch.int64)},
]


def applied(item: Pass, graph: Graph) -> tuple[Graph, bool]:
    """The pass on a copy, with all that must hold afterwards."""
    result = graph.clone()
    changed = item.apply(result, Context(item.name))
    verify(result, after=item.name)
    check_use_lists(result)
    check_round_trip(result)
    return result, changed


def results(graph: Graph, inputs: dict[str, Any]) -> dict[str, Any]:
    return run(graph, fitting(graph, inputs))


def test_removing_postprocessing() -> None:
    graph, plain = detector(), detector(postprocess=False)
    result, changed = applied(RemovePostprocess(), graph)
    assert changed
    assert body_of(result) == body_of(plain)
    assert [value.name for value in result.inputs] == ["data", "im_info", "given", "index"]
    assert not applied(RemovePostprocess(), plain)[1]


def test_an_input_that_is_used_elsewhere_stays() -> None:
    graph = detector()
    graph.set_outputs({**graph.outputs, "size": graph.input("output_size")})
    result, _ = applied(RemovePostprocess(), graph)
    assert [value.name for value in result.inputs][-1] == "output_size"


def test_what_follows_postprocessing_is_typed_anew() -> None:
    graph = graph_of(
        joined("""
        input %boxes: f32[R,4]
        input %index: i64[R]
        input %masks: f32[R,1,4,4]
        input %im_info: f32[N,3]
        input %size: i64[N,2]
        %i: instances<pred_boxes: f32[R,4], batch_index: i64[R], pred_masks: f32[R,1,4,4]> =
            instances.make([%boxes, %index, %masks], names=("pred_boxes", "batch_index", "pred_masks"))
        %p: instances<pred_boxes: f32[kept,4], batch_index: i64[kept], pred_masks: bool[kept,h,w]> =
            det.postprocess(%i, %im_info, %size, mask_threshold=0.5)
        %b: f32[kept,4] = instances.get(%p, field="pred_boxes")
        %v: f32[2*kept,2] = aten.reshape(%b, shape=(2*kept, 2))
        %m: bool[kept,h,w] = instances.get(%p, field="pred_masks")
        %k: i64[few] = det.nonempty(%b)
        %s: instances<pred_boxes: f32[kept,4], pred_masks: bool[kept,h,w], batch_index: i64[kept]> =
            instances.set(%p, %index2, field="batch_index")
        return v=%v, m=%m, k=%k, s=%s""").replace(
            "%s:", '%index2: i64[kept] = instances.get(%p, field="batch_index")\n%s:'
        )
    )
    result, _ = applied(RemovePostprocess(), graph)
    types = {name: str(value.type) for name, value in result.outputs.items()}
    assert types["v"] == "f32[2*R,2]"
    assert types["m"] == "f32[R,1,4,4]"
    assert types["k"] == "i64[few]"
    kept, _ = applied(KeepRoiMasks(), graph)
    types = {name: str(value.type) for name, value in kept.outputs.items()}
    assert (types["v"], types["m"]) == ("f32[2*kept,2]", "f32[kept,1,4,4]")


@pytest.mark.parametrize("inputs", INPUTS, ids=range(len(INPUTS)))
def test_keeping_the_masks_as_the_head_gave_them(inputs: dict[str, Any]) -> None:
    graph = detector()
    result, changed = applied(KeepRoiMasks(), graph)
    assert changed
    assert not applied(KeepRoiMasks(), result)[1]
    assert not applied(KeepRoiMasks(), detector(masks=False))[1]
    before, after = results(graph, inputs)["instances"].fields, results(result, inputs)["instances"].fields
    assert after["pred_masks"].shape[1:] == (1, 6, 6)
    for name in set(before) - {"pred_masks"}:
        assert torch.equal(before[name], after[name])


@pytest.mark.parametrize("inputs", INPUTS, ids=range(len(INPUTS)))
@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("paste", [True, False])
def test_decomposing_postprocessing_changes_no_bit(
    inputs: dict[str, Any], *, masks: bool, paste: bool
) -> None:
    graph = detector(masks=masks)
    if not paste:
        KeepRoiMasks().apply(graph, Context())
    result, changed = applied(DecomposePostprocess(), graph)
    assert changed
    assert "det.postprocess" not in {node.op.name for node in result}
    before, after = results(graph, inputs)["instances"], results(result, inputs)["instances"]
    assert list(before.fields) == list(after.fields)
    for name, tensor in before.fields.items():
        assert torch.equal(tensor, after.fields[name]), name


def test_postprocessing_needs_boxes() -> None:
    graph = graph_of(
        joined("""
        input %scores: f32[R]
        input %index: i64[R]
        input %im_info: f32[N,3]
        input %size: i64[N,2]
        %i: instances<scores: f32[R], batch_index: i64[R]> =
            instances.make([%scores, %index], names=("scores", "batch_index"))
        %p: instances<scores: f32[kept], batch_index: i64[kept]> =
            det.postprocess(%i, %im_info, %size, mask_threshold=0.5)
        return p=%p""")
    )
    with pytest.raises(IRError, match="without boxes"):
        DecomposePostprocess().apply(graph, Context())


def test_flat_outputs_have_detectron2s_meaning_in_a_fixed_order() -> None:
    graph = detector()
    result = Pipeline([DecomposePostprocess(), FlattenInstances(), DeadCode()]).run(graph)
    assert result.level == "flat"
    assert list(result.outputs) == ["boxes", "scores", "classes", "batch_index", "masks"]
    assert not any(node.op.dialect == "instances" for node in result)
    given = detector_inputs()
    before, after = results(graph, given)["instances"].fields, results(result, given)
    names = ("pred_boxes", "scores", "pred_classes", "batch_index", "pred_masks")
    for field, output in zip(names, result.outputs, strict=True):
        assert torch.equal(before[field], after[output])


def test_flattening_again_changes_nothing() -> None:
    result = Pipeline([RemovePostprocess(), FlattenInstances()]).run(detector())
    assert not applied(FlattenInstances(), result)[1]


def test_ops_that_take_instances_are_named() -> None:
    with pytest.raises(IRError, match=r"ops on instances are left: det\.postprocess at "):
        FlattenInstances().apply(detector(), Context())
    graph = detector()
    b = Builder(graph)
    instances = graph.outputs["instances"]
    scores = b.instances.get(instances, field="scores")
    again = b.instances.set(instances, scores, field="scores")
    graph.set_outputs({"boxes": b.instances.get(again, field="pred_boxes")})
    with pytest.raises(IRError, match=r"ops on instances are left: det\.postprocess at "):
        FlattenInstances().apply(graph, Context())


def test_instances_among_the_inputs_become_an_input_each() -> None:
    before = joined("""
        input %first: f32[N]
        input %given: instances<proposal_boxes: f32[P,4], objectness_logits: f32[P], batch_index: i64[P]>
        input %last: f32[N]
        %b: f32[P,4] = instances.get(%given, field="proposal_boxes")
        %r: f32[P,4] = aten.relu(%b)
        %s: instances<objectness_logits: f32[P], batch_index: i64[P], proposal_boxes: f32[P,4]> =
            instances.set(%given, %r, field="proposal_boxes")
        return proposals=%s, first=%first""")
    after = joined("""
        input %first: f32[N]
        input %given_proposal_boxes: f32[P,4]
        input %given_objectness_logits: f32[P]
        input %given_batch_index: i64[P]
        input %last: f32[N]
        %r: f32[P,4] = aten.relu(%given_proposal_boxes)
        return boxes=%r, scores=%given_objectness_logits, batch_index=%given_batch_index, first=%first""")
    graph = graph_of(before)
    result, changed = applied(FlattenInstances(), graph)
    assert changed
    fields = {"proposal_boxes": "boxes", "objectness_logits": "scores", "batch_index": "batch_index"}
    assert {field: result.metadata["instances"]["proposals"][field] for field in fields} == fields
    result.metadata.clear()
    assert body_of(result) == after
    rows = {
        "proposal_boxes": torch.rand(3, 4),
        "objectness_logits": torch.rand(3),
        "batch_index": torch.tensor([0, 1, 1]),
    }
    given = {"first": torch.rand(2), "last": torch.rand(2), "given": InstancesBatch(rows)}
    check = CheckNumerics(given)
    Pipeline([FlattenInstances(), DeadCode()]).run(graph, [check])
    assert [report.name for report in check.reports] == ["flatten-instances", "dead-code"]


def test_two_sets_of_instances_and_a_name_that_is_taken() -> None:
    graph = graph_of(
        joined("""
        input %boxes: f32[R,4]
        input %index: i64[R]
        input %masks: f32[R]
        %a: instances<pred_boxes: f32[R,4], batch_index: i64[R]> =
            instances.make([%boxes, %index], names=("pred_boxes", "batch_index"))
        %b: instances<batch_index: i64[R], pred_masks: f32[R], extra: f32[R,4]> =
            instances.make([%index, %masks, %boxes], names=("batch_index", "pred_masks", "extra"))
        return first=%a, masks=%masks, second=%b""")
    )
    result, _ = applied(FlattenInstances(), graph)
    names = "boxes first_batch_index masks second_batch_index second_masks extra"
    assert list(result.outputs) == names.split()


def test_the_whole_way_keeps_every_detection() -> None:
    pipeline = Pipeline(
        [Canonicalize(), DecomposePostprocess(), FlattenInstances(), Canonicalize(), DeadCode()]
    )
    check = CheckNumerics(INPUTS)
    pipeline.run(detector(), [check])
    assert all(difference == 0.0 for report in check.reports for difference in report.differences.values())
    removed = CheckNumerics(INPUTS)
    Pipeline([RemovePostprocess(), *pipeline]).run(detector(), [removed])
    assert removed.report().startswith("001 remove-postprocess: a new reference")


def test_groups_of_detections_are_found_before_and_after_flattening() -> None:
    graph = detector()
    flat = Pipeline([DecomposePostprocess(), FlattenInstances()]).run(graph)
    roles = ["boxes", "scores", "classes", "batch_index", "masks"]
    for each in (graph, flat):
        (group,) = detection_groups({name: value.type for name, value in each.outputs.items()})
        assert sorted(group) == sorted(roles)
    assert callable(compare)
