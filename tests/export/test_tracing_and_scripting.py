"""TracingAdapter, scripting_with_instances, schemas and dumps, on models of the zoo and on modules of a user's."""

from __future__ import annotations

import subprocess
import sys
from typing import Dict, List, Tuple  # noqa: UP035  (TorchScript's spelling)

import pytest
import torch
from torch import Tensor, nn

import detc
from detc.export import (
    TracingAdapter,
    dump_torchscript_IR,
    flatten_to_tuple,
    schema_from_json,
    scripting_with_instances,
)
from detc.ir.structures import Boxes, Instances, RotatedBoxes
from tests import zoo
from tests.parity import assert_detections_match, detections

FIELDS = {"pred_boxes": Boxes, "scores": Tensor, "pred_classes": Tensor, "pred_masks": Tensor}


def instances(count: int, size: object = (4, 6)) -> Instances:
    return Instances(size, pred_boxes=Boxes(torch.rand(count, 4)), scores=torch.rand(count))


NESTED = {
    "a tensor": torch.ones(2),
    "lists": [torch.ones(2), [torch.zeros(1)], (torch.ones(1),), []],
    "a dictionary": {"b": torch.ones(1), "a": [torch.zeros(2)]},
    "instances": [{"instances": instances(3)}],
    "boxes": (Boxes(torch.rand(2, 4)), RotatedBoxes(torch.rand(1, 5))),
    "text": ["text", b"bytes", 3, None],
}


@pytest.mark.parametrize("name", NESTED)
def test_schemas_rebuild_what_they_took_apart(name):
    values, schema = flatten_to_tuple(NESTED[name])
    again, same = flatten_to_tuple(schema(values))
    assert schema == same and schema_from_json(schema.to_json()) == schema
    assert str(again) == str(values)


def test_schemas_differ_where_the_structures_do():
    schemas = [flatten_to_tuple(value)[1] for value in NESTED.values()]
    assert all(a != b for i, a in enumerate(schemas) for b in schemas[i + 1 :])
    rebuilt = flatten_to_tuple(NESTED["instances"])[1](flatten_to_tuple(NESTED["instances"])[0])
    assert isinstance(rebuilt[0]["instances"], Instances) and rebuilt[0]["instances"].image_size == (4, 6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "no schema"),
        ('{"kind": "eval"}', "no kind"),
        ('{"kind": "TensorWrapSchema", "class_name": "os.system"}', r"it names 'os\.system'"),
        ('{"kind": "DictSchema", "schemas": [], "keys": ["a"]}', "differ in number"),
        ('{"kind": "ListSchema"}', "no schema"),
    ],
)
def test_no_schema(text, message):
    with pytest.raises(detc.InputError, match=message):
        schema_from_json(text)


def test_values_must_fit():
    values, schema = flatten_to_tuple([torch.ones(1), torch.ones(1)])
    with pytest.raises(detc.InputError, match="3 values were given for a schema of 2"):
        schema((*values, torch.ones(1)))
    with pytest.raises(detc.InputError, match="keys are text"):
        flatten_to_tuple({1: torch.ones(1)})


def raw(model: nn.Module, inputs: list[dict[str, Tensor]]) -> list[dict[str, Instances]]:
    return [{"instances": found} for found in model.inference(inputs, do_postprocess=False)]


def assert_raw(name: str, found: object, scene: int) -> None:
    golden = zoo.golden(name).under(f"image{scene}/raw")
    assert_detections_match(detections(found), detections(golden), what=f"scene {scene}", thresholds=(0.05,))


def test_traced_model(loaded, tmp_path):
    """Traced on a picture with nothing in it, run on others of other sizes; the model stays as it was."""
    name = "mask_rcnn_R_50_FPN"
    model = loaded(name)
    adapter = TracingAdapter(model, [{"image": zoo.scene(5)}], raw)
    traced = torch.jit.trace(adapter, adapter.flattened_inputs, check_trace=False)
    assert "inference" not in vars(model)
    for scene in (0, 3, 5):
        found = adapter.outputs_schema(traced(zoo.scene(scene)))[0]["instances"]
        assert found.image_size == tuple(zoo.scene(scene).shape[1:])
        assert_raw(name, found, scene)
    wrapped = adapter._create_wrapper(traced)
    assert_raw(name, wrapped([{"image": zoo.scene(4)}])[0]["instances"], 4)


def test_traced_model_with_postprocessing(loaded):
    name = "faster_rcnn_R_50_FPN"
    inputs = [{"image": zoo.scene(0)}, {"image": zoo.scene(3)}]
    adapter = TracingAdapter(loaded(name), (inputs,))
    traced = torch.jit.trace(adapter, adapter.flattened_inputs, check_trace=False)
    given = [zoo.scene(3), zoo.scene(4)]
    found = adapter.outputs_schema(traced(*given))
    wanted = loaded(name)([{"image": image} for image in given])
    for got, want in zip(found, wanted, strict=True):
        assert_detections_match(
            detections(got["instances"]), detections(want["instances"]), thresholds=(0.05,)
        )


class Pick(nn.Module):
    def forward(self, given: dict[str, Tensor]) -> dict[str, object]:
        x = given["x"]
        return {"sum": x.sum(), "both": [x, 2 * x]} if x.shape[0] > 1 else {"sum": x.sum()}


def test_adapter_on_any_module_and_what_it_refuses():
    model = Pick().eval()
    adapter = TracingAdapter(model, {"x": torch.ones(3)})
    assert adapter.outputs_schema is None
    assert len(adapter(torch.ones(3))) == 3
    assert list(adapter.outputs_schema(adapter(torch.ones(3)))) == ["both", "sum"]
    with pytest.raises(detc.InputError, match="outputs' structure differs"):
        adapter(torch.ones(1))
    with pytest.raises(detc.InputError, match=r"inputs hold 7 \(int\).*allow_non_tensor"):
        TracingAdapter(model, {"x": torch.ones(3), "height": 7})
    with pytest.raises(detc.InputError, match="training mode"):
        TracingAdapter(Pick(), {"x": torch.ones(3)})
    with pytest.raises(detc.InputError, match="outputs hold None"):
        TracingAdapter(model, {"x": torch.ones(3)}, lambda m, given: (m(given), None))(torch.ones(3))
    loose = TracingAdapter(model, {"x": torch.ones(3), "height": 7}, allow_non_tensor=True)
    assert loose.inputs_schema is None and len(loose.flattened_inputs) == 1
    assert len(loose(*loose.flattened_inputs)) == 3
    with pytest.raises(detc.InputError, match="call this with flattened_inputs"):
        loose(torch.zeros(3))


class Adapter(nn.Module):
    """What detectron2's users write around a model that they script."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tuple[Dict[str, Tensor], Dict[str, Tensor]]) -> List[Dict[str, Tensor]]:  # noqa: UP006
        found = self.model.inference(inputs, do_postprocess=False)
        return [each.get_fields() for each in found]


class Keep(nn.Module):
    """Uses Instances, and holds no detector."""

    def forward(self, boxes: Tensor, scores: Tensor) -> Instances:
        made = Instances((4, 5))
        made.pred_boxes = Boxes(boxes)
        made.scores = scores
        return made[scores > 0.5]


_WITHOUT_DETC = """
import sys
sys.modules["detc"] = None
import torch, torchvision
scripted, inputs = torch.jit.load(sys.argv[1]), torch.load(sys.argv[2])
torch.save([dict(found) for found in scripted(tuple(inputs))], sys.argv[2])
"""


def test_scripted_model(loaded, tmp_path):
    """A batch of unlike sizes in one process, two images in another without detc; a second call with other fields."""
    name = "mask_rcnn_R_50_FPN"
    model = loaded(name)
    scripted = scripting_with_instances(model, {**FIELDS, "objectness_logits": Tensor})
    found = scripted.inference([{"image": zoo.scene(i)} for i in zoo.BATCH])
    wanted = model.inference(zoo.batch_input(), do_postprocess=False)
    for got, want in zip(found, wanted, strict=True):
        assert got.image_size == want.image_size and not got.has("objectness_logits")
        fields = {**got.get_fields(), "pred_boxes": got.pred_boxes.tensor}
        assert_detections_match(detections(fields), detections(want), thresholds=(0.05,))
    assert_raw(name, scripted([{"image": zoo.scene(5)}])[0].get_fields(), 5)

    adapter = Adapter(model).eval()
    scripting_with_instances(adapter, FIELDS).save(tmp_path / "adapter.ts")
    assert adapter.model is model and type(model).__name__ == "GeneralizedRCNN"
    torch.save([{"image": zoo.scene(i)} for i in (3, 5)], tmp_path / "io.pt")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        _WITHOUT_DETC,
        tmp_path / "adapter.ts",
        tmp_path / "io.pt",
    ]
    subprocess.run(command, check=True)
    outputs = torch.load(tmp_path / "io.pt")
    assert len(outputs[1]["scores"]) == 0
    reference = model.inference([{"image": zoo.scene(i)} for i in (3, 5)], do_postprocess=False)
    assert_detections_match(detections(outputs[0]), detections(reference[0]), thresholds=(0.05,))


def test_scripting_a_module_that_uses_instances():
    before = dict(vars(Instances)), dict(vars(Boxes)), dict(vars(Keep))
    boxes, scores = torch.tensor([[0.0, 0, 2, 2], [1, 1, 4, 3]]), torch.tensor([0.3, 0.9])
    for fields in (
        {"pred_boxes": Boxes, "scores": Tensor},
        {"scores": Tensor, "x": Tensor, "pred_boxes": Boxes},
    ):
        found = scripting_with_instances(Keep().eval(), fields)(boxes, scores)
        assert found.pred_boxes.tensor.tolist() == [[1, 1, 4, 3]] and found.image_size == (4, 5)
        assert len(found) == 1 and found.has("scores") and not found.has("y")
    assert (dict(vars(Instances)), dict(vars(Boxes)), dict(vars(Keep))) == before
    assert len(Keep()(boxes, scores)) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pred_boxes": Boxes, "scores": Tensor, "pred_classes": Tensor}, 'add "pred_masks": Tensor'),
        ({**FIELDS, "pred_boxes": Tensor}, r"gives the field 'pred_boxes' as .*structures\.Boxes"),
        ({**FIELDS, "masks": list}, "'masks' is of list; a field is of torch.Tensor or Boxes"),
        ({**FIELDS, "a b": Tensor}, "'a b' is no name"),
        ({**FIELDS, "image_size": Tensor}, "'image_size' cannot be a field"),
        ({}, "mapping of names to types"),
    ],
)
def test_fields_that_do_not_serve(fields, message, loaded):
    with pytest.raises(detc.InputError, match=message):
        scripting_with_instances(loaded("mask_rcnn_R_50_FPN"), fields)


def test_what_cannot_be_scripted():
    with pytest.raises(detc.InputError, match="training mode"):
        scripting_with_instances(Keep(), {"scores": Tensor})
    with pytest.raises(detc.InputError, match=r"torch\.jit\.script does not take Keep"):
        scripting_with_instances(Keep().eval(), {"scores": Tensor})


def test_dump(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).eval()
    made = {
        "scripted": torch.jit.script(model),
        "traced": torch.jit.trace(model, torch.ones(1, 2)),
        "function": torch.jit.script(_double),
    }
    for name, module in made.items():
        dump_torchscript_IR(module, tmp_path / name)
        files = {path.name: path.read_text() for path in (tmp_path / name).iterdir()}
        wanted = {"model_ts_code.txt", "model_ts_IR.txt", "model_ts_IR_inlined.txt", "model.txt"}
        assert set(files) == (wanted - {"model.txt"} if name == "function" else wanted)
        assert "aten::" in files["model_ts_IR_inlined.txt"] and "def " in files["model_ts_code.txt"]
        assert name == "function" or "linear" in files["model_ts_code.txt"]
    with pytest.raises(detc.InputError, match="dump_torchscript_IR takes what"):
        dump_torchscript_IR(model, tmp_path)


def _double(x: Tensor) -> Tensor:
    return 2 * x
