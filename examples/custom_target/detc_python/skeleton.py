"""An object detector that detc compiled: plain torch code, which needs torch and torchvision only.

    python FILE image.png ...

prints what it finds in pictures. From Python it is an nn.Module, here called on one batch:

    found = load()(data)  # <call>

Inputs, for any number of images at once:

    data: f32[N,3,H,W]  # <inputs>

What is found is a `Detections`. The weights are the comment at the end of the file, which `load` reads.
"""

from __future__ import annotations

import sys
from base64 import b64decode
from collections.abc import Iterator, Mapping
from io import BytesIO
from types import SimpleNamespace
from typing import Any, List, NamedTuple, Optional  # noqa: F401, UP035  (as `forward` writes types)

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor

aten, torchvision = torch.ops.aten, torch.ops.torchvision
functions = SimpleNamespace()  # <functions>


class Detections(NamedTuple):
    """What is found in a batch of images."""

    boxes: Tensor  # <outputs>


class Detector(nn.Module):
    """The model: its weights under the names that they have in the original one, and what it computes."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        for path, tensor in weights.items():
            *parents, name = path.split(".")
            module: nn.Module = self
            for parent in parents:
                if not hasattr(module, parent):
                    module.add_module(parent, nn.Module())
                module = module.get_submodule(parent)
            module.register_parameter(name, nn.Parameter(tensor, requires_grad=False))

    def forward(self, data: Tensor) -> Detections: ...  # <forward>


METADATA: dict[str, Any] = {}  # <metadata>


def load() -> Detector:
    """The detector with its weights, on the CPU."""
    with open(__file__, "rb") as file:
        _, _, weights = file.read().rpartition(b"\n# Weights:\n")
    # What is not Base64, such as the signs of comments, is skipped.
    return Detector(torch.load(BytesIO(b64decode(weights)), weights_only=True)).eval()


def prepare(picture: Image.Image) -> dict[str, Tensor]:
    """An RGB picture as a batch of one: resized as the model's tests have it, its channels in the model's order."""
    shortest, longest = METADATA.get("min_size_test", 0), METADATA.get("max_size_test", 0)
    sides: list[float] = list(picture.size)
    if shortest:
        sides = [side * (shortest / min(picture.size)) for side in sides]
        shrink = longest / max(sides) if longest else 1.0
        sides = [side * min(shrink, 1.0) for side in sides]
    width, height = (int(side + 0.5) for side in sides)
    image = pil_to_tensor(picture.resize((width, height), Image.Resampling.BILINEAR))
    if METADATA.get("input_format", "BGR") == "BGR":
        image = image.flip(0)
    step = METADATA["size_divisibility"] or 1
    return {
        "data": F.pad(image.float(), (0, -width % step, 0, -height % step))[None],
        "im_info": torch.tensor([[height, width, 1.0]]),
        "output_size": torch.tensor([[picture.height, picture.width]]),
    }


def described(found: Mapping[str, Tensor]) -> Iterator[str]:
    """A line for each output, and one for each detection: class, score, box."""
    yield from (f"{name}: {list(value.shape)}" for name, value in found.items())
    if "boxes" in found:
        boxes, scores = found["boxes"].tolist(), found["scores"].tolist()
        classes = found["classes"].tolist() if "classes" in found else [0] * len(boxes)
        names = METADATA.get("class_names") or range(max(classes, default=0) + 1)
        for label, score, box in zip(classes, scores, boxes, strict=True):
            yield f"{names[label]} {score:.3f} {' '.join(f'{number:.1f}' for number in box)}"


@torch.no_grad()
def main(*paths: str) -> None:
    """Print what is found in pictures."""
    if not paths:
        sys.exit(__doc__)
    detector, names = load(), [entry["name"] for entry in METADATA["schema"]["inputs"]]
    for path in paths:
        given = prepare(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
        if not given.keys() >= set(names):
            sys.exit(f"the model takes {', '.join(names)}, which is more than a picture: call it from Python")
        found = detector(*(given[name] for name in names))
        print(path, *described(found._asdict()), sep="\n  ")


if __name__ == "__main__":
    main(*sys.argv[1:])

# Weights:
