"""What real detectron2 made of real checkpoints, against the IR after every pass and against the compiled files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
import torch

import detc
from detc.backends.arrays import batch_images
from detc.ir import Graph, InstancesType, difference, parse_graph, run
from detc.ir.dialects.instances import InstancesBatch
from tests import zoo
from tests.models import captured, compiled, loaded
from tests.parity import assert_detections_match, detections

MODELS = ("mask_rcnn_R_50_FPN", "faster_rcnn_R_50_FPN")
VARIANTS = {
    "raw": {},
    "postprocess": {"postprocess": True},
    "pasted": {"postprocess": True, "masks": "pasted"},
}
OUTPUTS = {"boxes": "pred_boxes", "scores": "scores", "classes": "pred_classes", "masks": "pred_masks"}


def artifact(name: str, variant: str) -> detc.Artifact:
    return compiled(name, **VARIANTS[variant])


def feed(graph: Graph, inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    made = batch_images(inputs, int(graph.metadata["size_divisibility"]))
    return {value.name: made[value.name] for value in graph.inputs}


def per_image(outputs: Mapping[str, Any], images: int) -> list[dict[str, Any]]:
    """Flat outputs as one dict with detectron2's names for each image."""
    if "instances" in outputs:
        return outputs["instances"].split(images)
    fields = {OUTPUTS.get(name, name): torch.as_tensor(np.asarray(v)) for name, v in outputs.items()}
    return InstancesBatch(fields).split(images)


def assert_matches(outputs: Mapping[str, Any], wanted: list[dict[str, Any]], what: str) -> None:
    for i, (got, want) in enumerate(zip(per_image(outputs, len(wanted)), wanted, strict=True)):
        assert_detections_match(
            detections(got), detections(want), what=f"{what}, image {i}", thresholds=(0.05,)
        )


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scene", zoo.SCENES)
def test_captured_graph(name, scene):
    wanted = zoo.golden(name).under(f"image{scene}/output/instances")
    assert_matches(run(captured(name), feed(captured(name), zoo.single_input(scene))), [wanted], "captured")


@pytest.mark.parametrize(
    ("target", "name", "variant"),
    [
        *(("onnx", "mask_rcnn_R_50_FPN", variant) for variant in VARIANTS),
        *(("onnx", "faster_rcnn_R_50_FPN", variant) for variant in ("raw", "pasted")),
        # What comes before the lowering is the same, and without masks so is what is pasted.
        ("torchscript", "faster_rcnn_R_50_FPN", "raw"),
        ("torchscript", "mask_rcnn_R_50_FPN", "pasted"),
    ],
)
def test_every_pass_in_the_interpreter(target, name, variant):
    """The graph after each pass gives what the graph gave before it, and in the end what detectron2 gave."""
    golden, graph = zoo.golden(name), captured(name)
    scene = zoo.single_input(3)
    inputs = [feed(graph, scene), feed(graph, zoo.single_input(5)), feed(graph, zoo.batch_input())]
    passes = detc.pipeline(target, **VARIANTS[variant])
    check = detc.CheckNumerics(inputs)
    lowered = passes.run(graph, observers=[check])
    # After a pass that changes what the graph means, the graph of then is the reference.
    compared = [p.name for p in passes if not getattr(p, "changes_meaning", False)]
    assert [report.name for report in check.reports][-len(compared) :] == compared
    if variant == "raw":
        assert_matches(run(lowered, feed(lowered, scene)), [golden.under("image3/raw")], "lowered")
    if variant == "pasted":
        wanted = golden.under("image3/output/instances")
        assert_matches(run(lowered, feed(lowered, scene)), [wanted], "lowered")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scene", zoo.SCENES)
def test_onnxruntime_raw(name, scene):
    made = artifact(name, "raw")
    outputs = made.runtime.run(feed(made.graph, zoo.single_input(scene)))
    assert_matches(outputs, [zoo.golden(name).under(f"image{scene}/raw")], "onnxruntime")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scene", zoo.SCENES)
def test_onnxruntime_pasted(name, scene):
    made = artifact(name, "pasted")
    outputs = made.runtime.run(feed(made.graph, zoo.single_input(scene)))
    assert_matches(outputs, [zoo.golden(name).under(f"image{scene}/output/instances")], "onnxruntime")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_artifact_called_like_the_model(name, variant):
    """Whatever the file leaves to its caller, calling the artifact gives what the model gives."""
    made, golden = artifact(name, variant), zoo.golden(name)
    for scene in zoo.SCENES:
        found = made(zoo.single_input(scene))[0]["instances"]
        wanted = golden.under(f"image{scene}/output/instances")
        assert_detections_match(
            detections(found), detections(wanted), what=f"scene {scene}", thresholds=(0.05,)
        )
    for place, found in enumerate(made(zoo.batch_input())):
        wanted = golden.under(f"batch/{place}/output/instances")
        got = detections(found["instances"])
        assert_detections_match(got, detections(wanted), what=f"batch, image {place}", thresholds=(0.05,))


@pytest.mark.parametrize("name", MODELS)
def test_mixed_batch_in_onnxruntime(name):
    made, golden = artifact(name, "raw"), zoo.golden(name)
    outputs = made.runtime.run(feed(made.graph, zoo.batch_input()))
    assert outputs["batch_index"].tolist() == sorted(outputs["batch_index"].tolist())
    reference = loaded(name).inference(zoo.batch_input(), do_postprocess=False)
    assert_matches(outputs, [r.get_fields() for r in reference], "batch")
    assert 2 not in outputs["batch_index"], "the last scene holds nothing"
    assert "batch/2/output/instances/scores" in golden


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_openvino(name, variant):
    made, golden = artifact(name, variant), zoo.golden(name)
    core = openvino.Core()
    # OpenVINO computes in bfloat16 by default where the processor can; parity is a matter of float32.
    program = core.compile_model(
        core.read_model(made.model.to_bytes()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    names = [output.get_any_name() for output in program.outputs]
    for scene in (0, 3, 5):
        values = program({k: v.numpy() for k, v in feed(made.graph, zoo.single_input(scene)).items()})
        outputs = {n: values[n] for n in names}
        if variant == "raw":
            assert_matches(outputs, [golden.under(f"image{scene}/raw")], f"scene {scene}")
        elif variant == "pasted":
            assert_matches(outputs, [golden.under(f"image{scene}/output/instances")], f"scene {scene}")
        else:
            wanted = golden.under(f"image{scene}/output/instances")
            wanted = {k: v for k, v in wanted.items() if k != "pred_masks"}
            outputs.pop("masks", None)
            assert_matches(outputs, [wanted], f"scene {scene}")
    values = program({k: v.numpy() for k, v in feed(made.graph, zoo.batch_input()).items()})
    expected = made.runtime.run(feed(made.graph, zoo.batch_input()))
    assert_matches({n: values[n] for n in names}, per_image(expected, 3), "batch")


@pytest.mark.parametrize("name", MODELS)
def test_torchscript_without_detc(name, tmp_path):
    """The files, in a process that cannot import detc, give what detectron2 gave, batch and empty image included."""
    golden = zoo.golden(name)
    work: dict[str, list[dict[str, torch.Tensor]]] = {}
    for variant, options in VARIANTS.items():
        made = compiled(name, target="torchscript", **options)
        made.save(tmp_path / f"{variant}.ts")
        scenes = [zoo.single_input(scene) for scene in zoo.SCENES]
        work[variant] = [feed(made.graph, inputs) for inputs in (*scenes, zoo.batch_input())]
    found = run_without_detc(tmp_path, work)
    for variant, results in found.items():
        for scene, outputs in zip(zoo.SCENES, results, strict=False):
            part = "raw" if variant == "raw" else "output/instances"
            wanted = dict(golden.under(f"image{scene}/{part}"))
            if variant == "postprocess":
                wanted.pop("pred_masks", None)
                outputs.pop("masks", None)
            assert_matches(outputs, [wanted], f"{variant}, scene {scene}")
    reference = [r.get_fields() for r in loaded(name).inference(zoo.batch_input(), do_postprocess=False)]
    assert_matches(found["raw"][-1], reference, "batch")
    wanted = [dict(golden.under(f"batch/{place}/output/instances")) for place in range(3)]
    canvas = found["pasted"][-1].get("masks")
    if canvas is not None:
        for given, image in zip(wanted, zoo.BATCH, strict=True):
            height, width = zoo.scene(image).shape[1:]
            bottom, right = canvas.shape[1] - height, canvas.shape[2] - width
            given["pred_masks"] = np.pad(given["pred_masks"], ((0, 0), (0, bottom), (0, right)))
    assert_matches(found["pasted"][-1], wanted, "batch, pasted")


_WITHOUT_DETC = """
import sys

sys.modules["detc"] = None  # an import of it fails
import torch, torchvision

folder = sys.argv[1]
found = {}
for variant, feeds in torch.load(f"{folder}/work.pt").items():
    module = torch.jit.load(f"{folder}/{variant}.ts")
    with torch.no_grad():
        found[variant] = [module(*inputs.values())._asdict() for inputs in feeds]
torch.save(found, f"{folder}/found.pt")
assert not any(name.startswith("detc.") for name in sys.modules)
"""


def run_without_detc(folder, work):
    """For each variant, what the module in the folder's `<variant>.ts` gives for each of its inputs."""
    torch.save(work, folder / "work.pt")
    (folder / "program.py").write_text(_WITHOUT_DETC)
    command = [sys.executable, "-W", "ignore", folder / "program.py", folder]
    subprocess.run(command, check=True, cwd=folder)
    return torch.load(folder / "found.pt")


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_file_holds_what_it_promises(variant):
    made = artifact("mask_rcnn_R_50_FPN", variant)
    proto = onnx.load_from_string(made.model.to_bytes())
    onnx.checker.check_model(proto, full_check=True)
    assert {entry.domain for entry in proto.opset_import} <= {"", "ai.onnx"}
    assert all(node.domain in ("", "ai.onnx") for node in proto.graph.node)
    assert proto.opset_import[0].version >= 17
    shape = {"roi": [1, 28, 28], "pasted": ["output_height", "output_width"]}
    outputs = {
        o.name: (
            onnx.helper.tensor_dtype_to_np_dtype(o.type.tensor_type.elem_type).name,
            [d.dim_param or d.dim_value for d in o.type.tensor_type.shape.dim][1:],
        )
        for o in proto.graph.output
    }
    masks = ("bool", shape["pasted"]) if variant == "pasted" else ("float32", shape["roi"])
    expected = {"boxes": ("float32", [4]), "scores": ("float32", []), "classes": ("int64", [])}
    assert outputs == {**expected, "batch_index": ("int64", []), "masks": masks}
    inputs = [i.name for i in proto.graph.input]
    assert inputs == ["data", "im_info", *([] if variant == "raw" else ["output_size"])]
    metadata = made.metadata
    assert metadata["score_thresh"] == 0.05 and metadata["num_classes"] == 3
    assert metadata["size_divisibility"] == 32 and metadata["schema"]


@pytest.mark.parametrize("name", MODELS)
def test_text_of_the_captured_graph(name):
    """The captured graph reads like the paper's figure, and reads back."""
    graph = captured(name)
    text = str(graph)
    assert len(text.splitlines()) < 260
    again = parse_graph(text, {n: w.data for n, w in graph.weights.items()})
    assert str(again) == text
    assert difference(graph, again) is None


def test_capture_copies_no_weight_and_needs_no_image():
    name = "mask_rcnn_R_50_FPN"
    graph = captured(name)
    owned = {t.data_ptr() for t in [*loaded(name).parameters(), *loaded(name).buffers()]}
    assert graph.weights
    assert all(weight.data.data_ptr() in owned for weight in graph.weights.values())
    assert all(node.source or node.op.dialect in ("det", "instances") for node in graph)
    assert isinstance(graph.outputs["instances"].type, InstancesType)
    assert [str(v.type) for v in graph.inputs] == ["f32[N,3,H,W]", "f32[N,3]", "i64[N,2]"]
