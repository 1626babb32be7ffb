"""Running a compiled detector the way detectron2 runs a model: a list of dicts in, a list of dicts out."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from detc.ir import Condition, InputError
from detc.ir.instances import Instances, is_tensor

from .arrays import batch_images, batch_proposals, to_array, to_tensors
from .claims import check_metadata
from .images import model_input
from .postprocess import paste_masks, postprocess
from .segmentation import add_segmentations

if TYPE_CHECKING:
    from detc.ir import Graph

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
    """Something that runs an artifact: arrays in, arrays or tensors out, by name.

    Attributes:
        gives_tensors: whether it is torch that computes. Then what is found in a picture comes as tensors too.
    """

    gives_tensors: bool

    @property
    def metadata(self) -> Mapping[str, Any]: ...
    @property
    def input_names(self) -> Sequence[str]: ...
    @property
    def output_names(self) -> Sequence[str]: ...
    def run(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, Any]: ...


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
        """The classes' names, or their numbers if they have no names."""
        named = self.metadata.get("class_names")
        return list(named) if named else [str(i) for i in range(int(self.metadata.get("num_classes", 0)))]

    def __call__(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Detections for images of any sizes, as detectron2's models give them.

        Each input holds "image", a tensor or an array [C,h,w] in the model's pixel range, "proposals" for a model
        without a proposal generator (Instances with proposal_boxes), and optionally "height" and "width" of the
        output. Returns for each {"instances": Instances} with pred_boxes, scores, pred_classes and, where the model
        predicts such, pred_masks bool[D,height,width] and pred_keypoints f32[D,K,3] (x, y, score); a proposal
        network's are {"proposals": Instances} with proposal_boxes and objectness_logits. A model that segments gives
        "sem_seg", logits f32[C,height,width], and a panoptic one "panoptic_seg" too, see `Panoptic`.

        For tensors these are tensors, the boxes in `Boxes` or `RotatedBoxes`; for arrays all of it, boxes included,
        is arrays.

        Errors:
            InputError: there is no image, or one is not as described, or the model was captured for other sizes.
        """
        results = self._detect(batched_inputs)
        return to_tensors(results) if is_tensor(batched_inputs[0]["image"]) else results

    def _detect(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        batch = batch_images(batched_inputs, int(self.metadata["size_divisibility"]))
        feed = {name: to_array(value) for name, value in batch.items()}
        self._check_assumptions(*feed["data"].shape[-2:])
        if "proposal_boxes" in self.runtime.input_names:
            feed |= batch_proposals(batched_inputs)
        found = self.runtime.run({name: feed[name] for name in self.runtime.input_names})
        outputs = {name: to_array(value) for name, value in found.items()}
        im_info, output_size = feed["im_info"], feed["output_size"]
        results: list[dict[str, Any]] = [{} for _ in batched_inputs]
        for output, names in self.metadata.get("instances", _R_CNN).items():
            fields = {field: outputs[name] for field, name in names.items() if name in outputs}
            if not fields:
                # A model that only segments.
                continue
            fields = self._finish(fields, im_info, output_size)
            for image, result in enumerate(results):
                result[output] = _instances(fields, image, output_size[image])
        if "sem_seg" in outputs:
            raw = "output_size" not in self.runtime.input_names
            add_segmentations(results, outputs, self.metadata, im_info, output_size, raw=raw)
        return results

    def _check_assumptions(self, height: int, width: int) -> None:
        for assumption in self.metadata.get("assumptions", []):
            if not Condition.parse(assumption["condition"]).holds({"H": height, "W": width}):
                raise InputError(
                    f"the model was captured for images with {assumption['condition']}, because of "
                    f"{assumption['where']}; these are, padded, of the size H={height}, W={width}"
                )

    def _finish(
        self, fields: dict[str, np.ndarray], im_info: np.ndarray, output_size: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Whatever of postprocessing the artifact leaves to its caller."""
        threshold = float(self.metadata.get("mask_threshold", 0.5))
        if "output_size" not in self.runtime.input_names:
            return postprocess(fields, im_info, output_size, threshold)
        if "pred_masks" in fields and fields["pred_masks"].dtype != bool:
            boxes, index = fields["pred_boxes"], fields["batch_index"]
            fields["pred_masks"] = paste_masks(fields["pred_masks"], boxes, index, output_size, threshold)
        return fields

    def results(self, image: Image.Image) -> dict[str, Any]:
        """All that the model gives for a picture, which is resized for it as its config's test
        settings say. The results are in the picture's own pixels: arrays, or tensors where torch runs the model.

        Errors:
            InputError: the model takes images in a format that no picture is turned into.
        """
        results = self._detect([model_input(image, self.metadata)])
        return (to_tensors(results) if self.runtime.gives_tensors else results)[0]

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


def _instances(fields: Mapping[str, np.ndarray], image: int, size: np.ndarray) -> Instances:
    """Those of one image of the batch; size is (height, width)."""
    height, width = size.tolist()
    instances = Instances((height, width))
    rows = np.flatnonzero(fields["batch_index"] == image)
    for name, value in fields.items():
        if name == "pred_masks":
            instances.set(name, value[rows, :height, :width])
        elif name != "batch_index":
            instances.set(name, value[rows])
    return instances
