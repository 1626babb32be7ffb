"""detectron2's own models, built and loaded by detectron2. Run where it is installed: no registry has it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import detc
from detc.export import TracingAdapter, scripting_with_instances
from tests import system, zoo
from tests.parity import assert_detections_match, detections
from tests.test_truth import feed

NAME = "mask_rcnn_R_50_FPN"


def find_detectron2() -> ModuleType | None:
    try:
        return importlib.import_module("detectron2.modeling")
    except ImportError:
        return None


DETECTRON2 = system.Need(find_detectron2, "detectron2", "its INSTALL.md; no registry has it", in_ci=False)


@pytest.fixture(scope="module")
def live() -> Callable[[str], nn.Module]:
    """A model of the zoo by name."""
    system.need(DETECTRON2)
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    def build(name: str) -> nn.Module:
        config: Any = get_cfg()
        config.merge_from_file(str(zoo.ZOO / name / "config.yaml"))
        config.MODEL.DEVICE = "cpu"
        model = build_model(config).eval()
        DetectionCheckpointer(model).load(str(zoo.ZOO / name / "model_final.pth"))
        return model

    return build


def raw(model: nn.Module, inputs: list[dict[str, Tensor]]) -> list[dict[str, Any]]:
    return [{"instances": found} for found in model.inference(inputs, do_postprocess=False)]


def assert_raw(name: str, found: Any, scene: int) -> None:
    golden = zoo.golden(name).under(f"image{scene}/raw")
    assert_detections_match(detections(found), detections(golden), what=f"scene {scene}", thresholds=(0.05,))


@pytest.mark.parametrize("name", [NAME, "keypoint_rcnn_R_50_FPN", "cascade_mask_rcnn_R_50_FPN"])
def test_traced(name, live):
    """On a picture with nothing in it, run on others of other sizes; what it gives is detectron2's own."""
    from detectron2.structures import Boxes, Instances

    model = live(name)
    adapter = TracingAdapter(model, [{"image": zoo.scene(5)}], raw)
    traced = torch.jit.trace(adapter, adapter.flattened_inputs, check_trace=False)
    assert "inference" not in vars(model)
    for scene in (0, 3, 5):
        found = adapter.outputs_schema(traced(zoo.scene(scene)))[0]["instances"]
        assert type(found) is Instances and type(found.pred_boxes) is Boxes
        assert found.image_size == tuple(zoo.scene(scene).shape[1:])
        assert_raw(name, found, scene)


def test_traced_with_postprocessing(live):
    model = live(NAME)
    adapter = TracingAdapter(model, ([{"image": zoo.scene(i)} for i in (0, 3)],))
    traced = torch.jit.trace(adapter, adapter.flattened_inputs, check_trace=False)
    given = [zoo.scene(3), zoo.scene(4)]
    found = adapter.outputs_schema(traced(*given))
    with torch.no_grad():
        wanted = model([{"image": image} for image in given])
    for got, want in zip(found, wanted, strict=True):
        both = (detections(each["instances"]) for each in (got, want))
        assert_detections_match(*both, thresholds=(0.05,))


def test_scripted(live, tmp_path):
    from detectron2.structures import Boxes

    model = live(NAME)
    fields = {"pred_boxes": Boxes, "scores": Tensor, "pred_classes": Tensor, "pred_masks": Tensor}
    scripting_with_instances(model, fields).save(tmp_path / "model.ts")
    assert type(model).__module__.startswith("detectron2.")
    scripted = torch.jit.load(tmp_path / "model.ts")
    batch = scripted.inference([{"image": zoo.scene(scene)} for scene in zoo.BATCH])
    assert [found.image_size for found in batch] == [tuple(zoo.scene(i).shape[1:]) for i in zoo.BATCH]
    for scene in (0, 3, 5):
        (found,) = scripted.inference([{"image": zoo.scene(scene)}])
        named = {name: getattr(found, name) for name in ("scores", "pred_classes", "pred_masks")}
        assert_raw(NAME, {**named, "pred_boxes": found.pred_boxes.tensor}, scene)


@pytest.mark.parametrize("target", ["onnx", "torchscript"])
def test_compiled(target, live):
    """As detc's own model of the same checkpoint."""
    folder = zoo.ZOO / NAME
    twin = detc.load_model(folder / "config.yaml", folder / "model_final.pth")
    own, other = (detc.compile(model, target, postprocess=True) for model in (twin, live(NAME)))
    assert len(own.graph) == len(other.graph)
    inputs = feed(own.graph, zoo.batch_input())
    found = other.runtime.run(inputs)
    for name, value in own.runtime.run(inputs).items():
        torch.testing.assert_close(torch.as_tensor(found[name]), torch.as_tensor(value))
