"""Running a compiled detector the way detectron2 runs a model: a list of dicts in, a list of dicts out."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from detc.ir import Condition, Graph, InputError
from detc.ir.dialects.instances import InstancesBatch
from detc.ir.dialects.masks import paste_masks
from detc.ir.dialects.postprocess import postprocess
from detc.ir.structures import Boxes, Instances, RotatedBoxes

from .claims import check_metadata
from .images import model_input
from .segmentation import add_segmentations

_R_CNN = {
    "instances": {
        "pred_boxes": "boxes",
        "scores": "scores",
        "pred_classes": "classes",
        "batch_index": "batch_index",
        "pred_masks": "masks",
        "pred_keypoints": "keypoints",
    }
}
"""detectron2's fields -> an artifact's outputs, for one that does not say it itself."""


class Runtime(Protocol):
    """Something that runs an artifact: tensors in and out, by name."""

    @property
    def metadata(self) -> Mapping[str, Any]: ...
    @property
    def input_names(self) -> Sequence[str]: ...
    @property
    def output_names(self) -> Sequence[str]: ...
    def run(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Any]: ...


class Detector:
    """A compiled detector in a runtime, called as the model was.

    Attributes:
        runtime: runs the artifact on named tensors.
        metadata: what the artifact says about itself: class names, thresholds, input format, schema.
    """

    def __init__(self, runtime: Runtime, source: str = "the file") -> None:
        """Run the artifact in `runtime`; `source` is what messages call it.

        Errors:
            InputError: the artifact is no detector of detc's.
        """
        self.runtime = runtime
        self.metadata = dict(runtime.metadata)
        if "data" not in runtime.input_names or "size_divisibility" not in self.metadata:
            raise InputError(
                f"{source} is no detector that detc wrote: it lacks the input 'data' or detc's metadata"
            )
        check_metadata(self.metadata, source)

    @property
    def class_names(self) -> list[str]:
        """The classes' names, their numbers where there are no names."""
        named = self.metadata.get("class_names")
        return list(named) if named else [str(i) for i in range(int(self.metadata.get("num_classes", 0)))]

    def __call__(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Detections for images of any sizes, as detectron2's models give them.

        Each input holds "image", a tensor [C,h,w] in the model's pixel range, "proposals" for a model without a
        proposal generator (Instances with proposal_boxes), and optionally "height" and "width" of
        the output. Returns for each {"instances": Instances} with pred_boxes, scores, pred_classes and, where the
        model predicts such, pred_masks bool[D,height,width] and pred_keypoints f32[D,K,3] (x, y, score); a proposal
        network's are {"proposals": Instances} with proposal_boxes and objectness_logits. A model that segments gives
        "sem_seg", logits f32[C,height,width], and a panoptic one "panoptic_seg" too, see `Panoptic`.

        Errors:
            InputError: there is no image, or one is not as described, or the model was captured for other sizes.
        """
        feed = batch_images(batched_inputs, int(self.metadata["size_divisibility"]))
        self._check_assumptions(feed["data"])
        if "proposal_boxes" in self.runtime.input_names:
            feed |= batch_proposals(batched_inputs)
        output_size = feed["output_size"]
        outputs = self.runtime.run({name: feed[name] for name in self.runtime.input_names})
        results: list[dict[str, Any]] = [{} for _ in batched_inputs]
        for output, names in self.metadata.get("instances", _R_CNN).items():
            fields = {field: torch.as_tensor(outputs[n]) for field, n in names.items() if n in outputs}
            if not fields:
                # A model that only segments.
                continue
            found = InstancesBatch(self._finish(fields, feed["im_info"], output_size)).split(len(results))
            for result, size, mine in zip(results, output_size.tolist(), found, strict=True):
                result[output] = _instances(mine, (size[0], size[1]))
        if "sem_seg" in outputs:
            raw = "output_size" not in self.runtime.input_names
            add_segmentations(results, outputs, self.metadata, feed["im_info"], output_size, raw=raw)
        return results

    def _check_assumptions(self, data: Tensor) -> None:
        height, width = data.shape[-2:]
        for assumption in self.metadata.get("assumptions", []):
            if not Condition.parse(assumption["condition"]).holds({"H": height, "W": width}):
                raise InputError(
                    f"the model was captured for images with {assumption['condition']}, because of "
                    f"{assumption['where']}; these are, padded, of the size H={height}, W={width}"
                )

    def _finish(self, fields: dict[str, Tensor], im_info: Tensor, output_size: Tensor) -> dict[str, Tensor]:
        """Whatever of postprocessing the artifact leaves to its caller."""
        threshold = float(self.metadata.get("mask_threshold", 0.5))
        if "output_size" not in self.runtime.input_names:
            return postprocess(InstancesBatch(fields), im_info, output_size, mask_threshold=threshold).fields
        if "pred_masks" in fields and fields["pred_masks"].dtype != torch.bool:
            pasted = paste_masks(
                fields["pred_masks"],
                fields["pred_boxes"],
                fields["batch_index"],
                output_size,
                threshold=threshold,
            )
            return {**fields, "pred_masks": pasted}
        return fields

    def results(self, image: Image.Image) -> dict[str, Any]:
        """All that the model gives for a picture, which is resized for it as its config's test
        settings say. The results are in the picture's own pixels.

        Errors:
            InputError: the model takes images in a format that no picture is turned into.
        """
        return self([model_input(image, self.metadata)])[0]

    def predict(self, image: Image.Image) -> Instances:
        """The detections (a proposal network's proposals) among the `results` for a picture.

        Errors:
            InputError: as `results`, or the model detects nothing, but segments.
        """
        results = self.results(image)
        for found in results.values():
            if isinstance(found, Instances):
                return found
        raise InputError(f"the model gives {', '.join(results)} and no instances: call results(image)")


class Artifact(Detector, ABC):
    """What compiling gives: a file to be, that already runs.

    Attributes:
        graph: the lowered graph that it was emitted from.
    """

    graph: Graph

    @property
    @abstractmethod
    def nodes(self) -> int:
        """How many nodes the file's graph has."""

    @abstractmethod
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it. An old file stays as it is until the new one is complete."""


def batch_images(batched_inputs: Sequence[Mapping[str, Any]], divisibility: int) -> dict[str, Tensor]:
    """detectron2's inputs as tensors: data f32[N,C,H,W] padded with zeros to the largest image and then to a multiple
    of the divisibility, im_info f32[N,3] (height, width, 1), output_size i64[N,2] (height, width).

    Errors:
        InputError: there is no image, or one is no tensor [C,h,w].
    """
    if not batched_inputs:
        raise InputError("the batch holds no image")
    images: list[Tensor] = []
    for i, given in enumerate(batched_inputs):
        image = given.get("image")
        if not isinstance(image, Tensor) or image.ndim != 3 or not image.numel():
            shape = list(image.shape) if isinstance(image, Tensor) else type(image).__name__
            raise InputError(f'input {i}: "image" must be a tensor [C,height,width], not {shape}')
        images.append(image.float())
    if len({image.shape[0] for image in images}) != 1:
        raise InputError("the images differ in their number of channels")
    step = max(divisibility, 1)
    height, width = (-(-max(image.shape[axis] for image in images) // step) * step for axis in (1, 2))
    data = torch.zeros(len(images), images[0].shape[0], height, width)
    for row, image in enumerate(images):
        data[row, :, : image.shape[1], : image.shape[2]] = image
    im_info = torch.tensor([[*image.shape[1:], 1.0] for image in images], dtype=torch.float32)
    output_size = torch.tensor(
        [
            [int(given.get("height", image.shape[1])), int(given.get("width", image.shape[2]))]
            for given, image in zip(batched_inputs, images, strict=True)
        ],
        dtype=torch.int64,
    )
    return {"data": data, "im_info": im_info, "output_size": output_size}


def batch_proposals(batched_inputs: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """The proposals that inputs bring along ("proposals": Instances with proposal_boxes): proposal_boxes f32[P,4] and
    proposal_batch_index i64[P].

    Errors:
        InputError: an input brings none.
    """
    boxes: list[Tensor] = []
    for i, given in enumerate(batched_inputs):
        proposals = given.get("proposals")
        if proposals is None or not proposals.has("proposal_boxes"):
            raise InputError(
                f'input {i}: "proposals" must be Instances with proposal_boxes: the model has no proposal generator'
            )
        boxes.append(proposals.proposal_boxes.tensor.float())
    index = [torch.full((len(mine),), i, dtype=torch.int64) for i, mine in enumerate(boxes)]
    return {"proposal_boxes": torch.cat(boxes), "proposal_batch_index": torch.cat(index)}


def _instances(fields: Mapping[str, Tensor], size: tuple[int, int]) -> Instances:
    instances = Instances(size)
    for name, value in fields.items():
        if name in ("pred_boxes", "proposal_boxes"):
            instances.set(name, Boxes(value) if value.shape[1] == 4 else RotatedBoxes(value))
        elif name == "pred_masks":
            instances.set(name, value[:, : size[0], : size[1]])
        else:
            instances.set(name, value)
    return instances
