"""Segmentations for those who use them: results in detectron2's format, the commands, tables, JSON, pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import detc
from detc.check.segmentation import compare_segmentations
from detc.show.picture import draw_segments
from detc.show.segments import Segment, segments_of
from tests import zoo
from tests.conftest import Shell
from tests.test_cli import decoded, scene

PANOPTIC, SEMANTIC = "panoptic_fpn_R_50", "semantic_R_50_FPN"
NAMES = ("circle", "square", "triangle")
Compiled = Callable[..., detc.Artifact]


@pytest.mark.parametrize(
    "options", [{}, {"postprocess": True}, {"postprocess": True, "masks": "pasted"}], ids=str
)
def test_a_thing_names_its_instance(
    compiled: Compiled, loaded: Callable[[str], Any], options: dict[str, Any]
) -> None:
    """Whether the file combines, or its caller: things tell their instance and score, stuff its area."""
    artifact = compiled(PANOPTIC, **options)
    for found, wanted in zip(artifact(zoo.batch_input()), loaded(PANOPTIC)(zoo.batch_input()), strict=True):
        ids, segments = found["panoptic_seg"]
        assert [s["id"] for s in segments] == list(range(1, len(segments) + 1))
        assert [s.keys() for s in segments] == [s.keys() for s in wanted["panoptic_seg"][1]]
        for segment in segments:
            mask = ids == segment["id"]
            if segment["isthing"]:
                row = segment["instance_id"]
                assert segment["score"] == float(found["instances"].scores[row])
                assert segment["category_id"] == int(found["instances"].pred_classes[row])
                # Pixels that the file pasted itself may be others at a mask's edge.
                assert (mask & ~found["instances"].pred_masks[row]).float().sum() <= 0.02 * mask.sum()
            else:
                assert segment["area"] == int(mask.sum())


@pytest.mark.parametrize("name", [PANOPTIC, SEMANTIC])
def test_commands(shell: Shell, tmp_path: Path, name: str) -> None:
    options = [
        "--config",
        zoo.config_path(name),
        "--weights",
        zoo.weights_path(name),
        "--class-names",
        ",".join(NAMES),
    ]
    scenes = (scene(0), scene(3), scene(5))
    status, out, err = shell("export", *options, "--output", "model.onnx", "--check", *scenes)
    assert (status, err) == (0, "")
    table = out.split("segments of the model and onnxruntime")[1]
    assert table.count(" agrees") == 6 and "DIFFERS" not in out

    status, out, err = shell("run", "model.onnx", scene(3), "--output", "drawn.png", "--json", "found.json")
    assert (status, err) == (0, "")
    found = json.loads((tmp_path / "found.json").read_text())
    assert f"scene3.png: {len(found['segments'])} segments" in out
    assert ("detections" in found) == (name == PANOPTIC)
    results = detc.load_artifact(tmp_path / "model.onnx")([{"image": zoo.scene(3)}])[0]
    labels = results["panoptic_seg"][0] if name == PANOPTIC else results["sem_seg"].argmax(0)
    total = 0
    for entry in found["segments"]:
        mask = decoded(entry["mask"])
        assert np.array_equal(mask, (labels == entry["id"]).numpy())
        assert entry["kind"] == ("class" if name == SEMANTIC else "thing" if "score" in entry else "stuff")
        assert entry["name"] == (
            f"stuff {entry['class']}" if entry["kind"] == "stuff" else NAMES[entry["class"]]
        )
        total += entry["pixels"]
    assert total == int((labels >= (name == PANOPTIC)).sum())
    with Image.open(tmp_path / "drawn.png") as drawn:
        assert drawn.size == (3 * 251, 3 * 203)


def test_predict_wants_instances(compiled: Compiled) -> None:
    with pytest.raises(
        detc.InputError, match=r"the model gives sem_seg and no instances: call results\(image\)"
    ):
        compiled(SEMANTIC).predict(Image.new("RGB", (64, 48)))
    assert compiled(SEMANTIC).results(Image.new("RGB", (64, 48)))["sem_seg"].shape == (3, 48, 64)


def test_names_of_a_panoptic_model_of_coco(compiled: Compiled) -> None:
    result = {
        "panoptic_seg": (
            torch.tensor([[1, 1, 2, 0]], dtype=torch.int32),
            [
                {"id": 1, "isthing": True, "category_id": 1, "score": 0.5, "instance_id": 0},
                {"id": 2, "isthing": False, "category_id": 40, "area": 1},
            ],
        )
    }
    named = segments_of(
        result, {"class_names": ["person", "bicycle"], "stuff_class_names": ["x"] * 40 + ["sky"]}
    )
    assert [(s.name, s.kind, s.mask.sum()) for s in named] == [("bicycle", "thing", 2), ("sky", "stuff", 1)]
    assert [s.name for s in segments_of(result, {})] == ["1", "stuff 40"]
    assert segments_of({"instances": None}, {}) == []


def test_drawing_puts_the_name_inside_of_its_segment() -> None:
    """A ring's centre is not of it; no segment at all leaves the picture as it is."""
    mask = np.zeros((480, 480), dtype=bool)
    mask[:, :120] = mask[:120] = mask[360:] = mask[:, 360:] = True
    image = Image.new("RGB", (480, 480), (10, 10, 10))
    drawn = np.asarray(draw_segments(image, [Segment(1, 0, "ring", False, None, mask)]))
    assert (drawn[150:330, 150:330] == 10).all()
    assert (drawn[mask] != 10).any(axis=-1).all()
    assert (np.asarray(draw_segments(image, [])) == 10).all()


LOGITS = torch.zeros(2, 10, 10)
LOGITS[1, :, 5:] = 1.0
IDS = LOGITS.argmax(0).int() + 1
SEGMENTS = [{"id": 1, "isthing": True, "category_id": 0}, {"id": 2, "isthing": False, "category_id": 1}]
FAULTS = {
    "another size": ({"sem_seg": LOGITS[:, :9]}, r"the logits' shape is \[2, 9, 10\]"),
    "other logits": ({"sem_seg": LOGITS + 0.01}, "logits differ by 1.0e-02"),
    "no number": ({"sem_seg": LOGITS * float("nan")}, "logits differ by nan"),
    "a segment less": ({"panoptic_seg": (IDS, SEGMENTS[:1])}, "the segment stuff 1 of 50 pixels is missing"),
    "a segment more": (
        {"panoptic_seg": (IDS, [*SEGMENTS, {"id": 3, "isthing": True, "category_id": 4}])},
        "the segment thing 4 should not be there",
    ),
    "another category": (
        {"panoptic_seg": (IDS, [{**SEGMENTS[0], "category_id": 9}, SEGMENTS[1]])},
        "the segment thing 0 of 50 pixels is missing",
    ),
    "other pixels": ({"panoptic_seg": (IDS.flip(1), SEGMENTS)}, r"missing \(best IoU 0.0000\)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_the_check_sees(fault: str) -> None:
    expected = {"sem_seg": LOGITS, "panoptic_seg": (IDS, SEGMENTS)}
    assert compare_segmentations(expected, expected).agrees
    changed, problem = FAULTS[fault]
    report = compare_segmentations(expected, {**expected, **changed})
    with pytest.raises(AssertionError, match=problem):
        assert report.agrees, report.problem
