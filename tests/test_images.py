"""From a picture to the model's input, as detectron2's DefaultPredictor makes it; and drawing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import detc
from detc.backends.images import model_input, read_image, save_image
from detc.frontend.detectron2.dataset import CITYSCAPES_CLASSES, COCO_CLASSES, COCO_STUFF, known_class_names
from detc.ir.structures import Boxes, Instances, RotatedBoxes
from detc.show.detections import detection_table, run_lengths, to_json
from detc.show.picture import draw
from tests import parity, zoo

NAME = "mask_rcnn_R_50_FPN"


@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [
        # height x width; the formula is that of detectron2's ResizeShortestEdge.get_output_shape.
        ((480, 640), (800, 1333), (800, 1067)),
        ((640, 480), (800, 1333), (1067, 800)),
        ((1080, 1920), (800, 1333), (750, 1333)),
        ((427, 640), (800, 1333), (800, 1199)),
        ((100, 1000), (800, 1333), (133, 1333)),
        ((203, 251), (0, 1333), (203, 251)),
        ((800, 1333), (800, 1333), (800, 1333)),
    ],
)
def test_resizing(size: tuple[int, int], limits: tuple[int, int], expected: tuple[int, int]) -> None:
    image = Image.new("RGB", (size[1], size[0]))
    given = model_input(image, {"min_size_test": limits[0], "max_size_test": limits[1]})
    assert tuple(given["image"].shape) == (3, *expected)
    assert (given["height"], given["width"]) == size


def test_channels() -> None:
    image = Image.new("RGB", (4, 2), (1, 2, 3))
    for order, channels in (("BGR", [3, 2, 1]), ("RGB", [1, 2, 3])):
        array = model_input(image, {"input_format": order})["image"]
        assert array.dtype == np.float32
        assert array[:, 0, 0].tolist() == channels
    with pytest.raises(detc.InputError, match="takes images as YUV"):
        model_input(image, {"input_format": "YUV"})


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").size == (20, 40)


def test_test_settings_reach_the_artifact(compiled: Callable[..., detc.Artifact]) -> None:
    metadata = compiled(NAME).metadata
    assert {key: metadata[key] for key in ("min_size_test", "max_size_test", "input_format")} == {
        "min_size_test": 0,
        "max_size_test": 1333,
        "input_format": "BGR",
    }
    assert compiled(NAME).class_names == ["0", "1", "2"]


def test_predict_takes_pictures(compiled: Callable[..., detc.Artifact]) -> None:
    artifact = compiled(NAME)
    found = artifact.predict(read_image(zoo.ZOO / "scenes" / "scene3.png"))
    (expected,) = artifact([{"image": zoo.scene(3)}])
    parity.assert_detections_match(parity.detections(found), parity.detections(expected["instances"]))


def test_class_names_of_coco() -> None:
    coco = {"DATASETS": {"TRAIN": ("coco_2017_train",), "TEST": ("coco_2017_val",)}}
    assert len(COCO_CLASSES) == len(set(COCO_CLASSES)) == 80
    assert known_class_names(coco, 80) == list(COCO_CLASSES)
    assert known_class_names(coco, 54) == list(COCO_STUFF) and COCO_STUFF[40] == "sky"
    cityscapes = {"DATASETS": {"TRAIN": ("cityscapes_fine_sem_seg_train",), "TEST": ()}}
    assert known_class_names(cityscapes, 19) == list(CITYSCAPES_CLASSES)
    assert known_class_names(cityscapes, 8) is None
    assert known_class_names(coco, 3) is None
    assert known_class_names({"DATASETS": {"TRAIN": ("mine",), "TEST": ()}}, 80) is None
    assert known_class_names({"DATASETS": {"TRAIN": (), "TEST": ()}}, 80) is None


def test_run_lengths() -> None:
    assert run_lengths(np.array([[0, 1], [0, 1], [1, 1]], dtype=bool)) == [2, 4]
    assert run_lengths(np.array([[1, 0]], dtype=bool)) == [0, 1, 1]
    assert run_lengths(np.zeros((2, 3), dtype=bool)) == [6]


def test_drawing_without_masks_or_names(tmp_path: Path) -> None:
    instances = Instances((30, 50))
    instances.pred_boxes = Boxes(torch.tensor([[5.0, 5.0, 25.0, 20.0]]))
    instances.scores = torch.tensor([0.75])
    instances.pred_classes = torch.tensor([7])
    image = Image.new("RGB", (50, 30), (9, 9, 9))
    drawn = draw(image, instances, [])
    assert drawn.size == (50 * 16, 30 * 16)
    assert np.asarray(drawn).max() > 100
    assert np.asarray(draw(image, instances[:0], [])).max() == 9
    save_image(drawn, tmp_path / "drawn.jpg")
    assert Image.open(tmp_path / "drawn.jpg").size == drawn.size


def _found(**fields: object) -> Instances:
    return Instances((60, 80), scores=torch.tensor([0.75]), pred_classes=torch.tensor([0]), **fields)


def _colored(drawn: Image.Image, color: str) -> np.ndarray:
    """Where a picture, drawn 8 times as large as it was, has a color: x and y in the small one's pixels."""
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    rows, columns = np.nonzero((np.asarray(drawn) == rgb).all(axis=2))
    return np.stack((columns, rows), axis=1) / 8


def test_drawing_keypoints() -> None:
    """Those that are to be seen; the 17 of a person are joined."""
    image = Image.new("RGB", (80, 60), (9, 9, 9))
    points = torch.tensor([[[20.0, 20.0, 0.9], [60.0, 40.0, 0.2], [40.0, 50.0, 0.01]]])
    joints = _colored(
        draw(image, _found(pred_boxes=Boxes([[5, 5, 70, 55]]), pred_keypoints=points), []), "#d90429"
    )
    for place in points[0, :, :2].numpy():
        assert (np.abs(joints - place).max(axis=1) < 1).any() == (place[0] != 40)
    person = torch.rand(1, 17, 3) * torch.tensor([60.0, 40.0, 0.5]) + torch.tensor([10.0, 10.0, 0.1])
    bones = _colored(
        draw(image, _found(pred_boxes=Boxes([[5, 5, 75, 55]]), pred_keypoints=person), []), "#ffffff"
    )
    assert len(bones) > 100


def test_drawing_rotated_boxes() -> None:
    """The outline goes through the corners: the angle is counter-clockwise."""
    image = Image.new("RGB", (80, 60), (9, 9, 9))
    found = _found(pred_boxes=RotatedBoxes(torch.tensor([[40.0, 30.0, 40.0, 10.0, 30.0]])))
    outline = _colored(draw(image, found, []), "#4cc9f0")
    across, down = np.array([np.cos(np.pi / 6), -0.5]), np.array([0.5, np.cos(np.pi / 6)])
    for corner in (np.array([40, 30]) + 20 * across + 5 * down, np.array([40, 30]) + 20 * across - 5 * down):
        assert np.abs(outline - corner).max(axis=1).min() < 1
    (described,) = to_json(found, ["ship"], "sea.png")["detections"]
    assert described["rotated_box"] == [40, 30, 40, 10, 30] and "box" not in described
    assert [column.header for column in detection_table(found, 1, [], "sea").columns][2:] == [
        *("x", "y", "width", "height", "angle")
    ]


def test_drawing_proposals() -> None:
    """They have neither scores nor classes, but logits."""
    found = Instances((60, 80), proposal_boxes=Boxes([[5, 5, 70, 55]]), objectness_logits=torch.tensor([2.5]))
    assert len(_colored(draw(Image.new("RGB", (80, 60)), found, []), "#4cc9f0"))
    assert to_json(found, [], "image.png")["detections"] == [
        {"name": "proposal", "score": 2.5, "box": [5, 5, 70, 55]}
    ]
