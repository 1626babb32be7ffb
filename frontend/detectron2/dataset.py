"""What a config says about images and classes, for those who feed a compiled detector and read its results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""COCO's 80 categories in the order in which detectron2 numbers them."""
COCO_STUFF = (
    "things", "banner", "blanket", "bridge", "cardboard", "counter", "curtain", "door-stuff", "floor-wood",
    "flower", "fruit", "gravel", "house", "light", "mirror-stuff", "net", "pillow", "platform",
    "playingfield", "railroad", "river", "road", "roof", "sand", "sea", "shelf", "snow", "stairs", "tent",
    "towel", "wall-brick", "wall-stone", "wall-tile", "wall-wood", "water", "window-blind", "window", "tree",
    "fence", "ceiling", "sky", "cabinet", "table", "floor", "pavement", "mountain", "grass", "dirt", "paper",
    "food", "building", "rock", "wall", "rug",
)  # fmt: skip
"""The stuff of COCO's panoptic annotations, after one class for all things."""
CITYSCAPES_THINGS = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
"""What Cityscapes annotates by instances."""
CITYSCAPES_CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
    "terrain", "sky", *CITYSCAPES_THINGS,
)  # fmt: skip
"""All that Cityscapes annotates, by its train ids."""
_KNOWN = {
    "coco_": (COCO_CLASSES, COCO_STUFF),
    "cityscapes_fine_instance_seg_": (CITYSCAPES_THINGS,),
    "cityscapes_fine_sem_seg_": (CITYSCAPES_CLASSES,),
}
"""How datasets' names begin -> the lists of classes that models are trained on there."""


def test_settings(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """How a picture becomes the model's input, as detectron2's DefaultPredictor does it.

    min_size_test and max_size_test: the shorter side in pixels (0: the picture is not resized), and the most that
    the longer one may get; input_format: the order of the channels.
    """
    given = cfg["INPUT"]
    return {
        "min_size_test": int(given["MIN_SIZE_TEST"]),
        "max_size_test": int(given["MAX_SIZE_TEST"]),
        "input_format": str(given["FORMAT"]),
    }


def known_class_names(cfg: Mapping[str, Any], num_classes: int | None) -> list[str] | None:
    """The names of that many classes for a model that was trained on COCO or Cityscapes; None for any other."""
    datasets = [str(name) for split in ("TRAIN", "TEST") for name in cfg["DATASETS"][split]]
    for prefix, lists in _KNOWN.items():
        if datasets and all(name.startswith(prefix) for name in datasets):
            return next((list(names) for names in lists if len(names) == num_classes), None)
    return None
