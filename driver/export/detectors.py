"""Detectors inside models that are traced or scripted: they are compiled, and everything around them is not.

Tracing a detector's own Python fixes what it asked of the example (how many boxes there were, which level they were
on), and TorchScript cannot read most of it. Compiled, it is a module of torch's operators for any images, which
torch.jit keeps as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from detc.api import emit, pipeline
from detc.backends.torchscript import is_tracing, script_function, tracing_paused
from detc.backends.torchscript.artifacts import TorchScriptArtifact
from detc.frontend import capture
from detc.frontend.capture import find_importer
from detc.ir import InputError, UnsupportedError, structures

from .schemas import wrap_tensor

_DETECTRON2 = "detectron2.structures"


def is_detector(module: nn.Module) -> bool:
    """Whether the module is a meta-architecture with boxes that can be captured, detc's twin or a live one.

    Errors:
        UnsupportedError: it would be, but overrides what its importer relies on.
    """
    has_methods = all(hasattr(module, name) for name in ("inference", "preprocess_image", "roi_heads"))
    return has_methods and find_importer(module) is not None


def detectors_in(model: nn.Module) -> dict[str, nn.Module]:
    """The detectors in a model by their paths; the path of the model itself is empty."""
    return {path: module for path, module in model.named_modules() if is_detector(module)}


def structures_of(model: nn.Module) -> Any:
    """The module with the `Instances` and `Boxes` that a detector gives: detectron2's for a live model."""
    live = any(cls.__module__.startswith("detectron2.") for cls in type(model).__mro__)
    return sys.modules[_DETECTRON2] if live else structures


def boxes_classes() -> tuple[type, ...]:
    """The classes called `Boxes`: detc's, and detectron2's where it is loaded."""
    live = sys.modules.get(_DETECTRON2)
    return (structures.Boxes, live.Boxes) if live is not None else (structures.Boxes,)


def instances_classes() -> tuple[type, ...]:
    """The classes called `Instances`, likewise."""
    live = sys.modules.get(_DETECTRON2)
    return (structures.Instances, live.Instances) if live is not None else (structures.Instances,)


def batch_images(images: list[Tensor], divisibility: int) -> tuple[Tensor, Tensor]:
    """Images [C,h,w] padded into one batch, and their sizes: data f32[N,C,H,W], im_info f32[N,3].

    As `detc.backends.arrays.batch_images`, in TorchScript's Python.
    """
    height, width = 0, 0
    for image in images:
        height, width = max(height, image.size(1)), max(width, image.size(2))
    step = max(divisibility, 1)
    height, width = (height + step - 1) // step * step, (width + step - 1) // step * step
    data = images[0].new_zeros([len(images), images[0].size(0), height, width], dtype=torch.float32)
    im_info = torch.ones([len(images), 3], device=data.device)
    for row, image in enumerate(images):
        data[row, :, : image.size(1), : image.size(2)] = image
        im_info[row, 0] = image.size(1)
        im_info[row, 1] = image.size(2)
    return data, im_info


def divisibility_of(metadata: Mapping[str, Any]) -> int:
    """What images are padded to multiples of."""
    return int(metadata["size_divisibility"])


class CompiledDetector:
    """A detector's `inference`, by its compiled modules.

    Attributes:
        model: the detector.
    """

    def __init__(self, model: nn.Module) -> None:
        """Capture the detector.

        Errors:
            InputError: it is in training mode.
            UnsupportedError: a component cannot be captured.
        """
        if model.training:
            raise InputError("the model is in training mode; call model.eval() first")
        self.model = model
        with tracing_paused():
            self._graph = capture(model)
            self._batch: Any = script_function(batch_images)

    @cached_property
    def raw(self) -> TorchScriptArtifact:
        """Detections in the pixels of the images as they are given."""
        return self._compile(postprocess=False)

    @cached_property
    def final(self) -> TorchScriptArtifact:
        """Detections in pixels of the output, masks as bitmaps."""
        return self._compile(postprocess=True, masks="pasted")

    def _compile(self, **options: Any) -> TorchScriptArtifact:
        with tracing_paused():
            artifact = emit(pipeline("torchscript", **options).run(self._graph))
        assert isinstance(artifact, TorchScriptArtifact)
        if set(artifact.metadata["instances"]) != {"instances"}:
            raise UnsupportedError(f"{type(self.model).__name__} gives more than instances")
        return artifact

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The modules compiled so far."""
        made = [name for name in ("raw", "final") if name in vars(self)]
        return {name: getattr(self, name).model.module for name in made}

    def observe(
        self,
        batched_inputs: Sequence[Mapping[str, Any]],
        detected_instances: Any = None,
        do_postprocess: bool = True,
    ) -> Any:
        """What the model's own `inference` gives; compiles what will have to give it in its stead."""
        _ = self.final if do_postprocess else self.raw
        model: Any = type(self.model)
        return model.inference(self.model, batched_inputs, detected_instances, do_postprocess)

    @property
    def fields(self) -> dict[str, str]:
        """The fields of what it gives -> the compiled modules' outputs."""
        named: dict[str, str] = self._any.metadata["instances"]["instances"]
        return {field: output for field, output in named.items() if field != "batch_index"}

    def inference(
        self,
        batched_inputs: Sequence[Mapping[str, Any]],
        detected_instances: Any = None,
        do_postprocess: bool = True,
    ) -> list[Any]:
        """As the model's method.

        Errors:
            UnsupportedError: instances are given.
        """
        if detected_instances is not None:
            raise UnsupportedError("a traced detector takes no detected_instances")
        data, im_info = self._batch([given["image"] for given in batched_inputs], self._divisibility)
        sizes = im_info[:, :2].to(torch.int64)
        if do_postprocess:
            sizes = torch.stack([_output_size(given, sizes[i]) for i, given in enumerate(batched_inputs)])
            found = self.final.model.module(data, im_info, sizes)
        else:
            found = self.raw.model.module(data, im_info)
        results = [self._instances(found, i, sizes[i], do_postprocess) for i in range(len(batched_inputs))]
        return [{"instances": instances} for instances in results] if do_postprocess else results

    @property
    def _any(self) -> TorchScriptArtifact:
        """Both have the same fields."""
        return self.final if "final" in vars(self) else self.raw

    @property
    def _divisibility(self) -> int:
        return divisibility_of(self._graph.metadata)

    def _instances(self, found: Any, image: int, size: Tensor, pasted: bool) -> Any:
        classes = structures_of(self.model)
        made = classes.Instances(size if is_tracing() else tuple(size.tolist()))
        rows = torch.nonzero(found.batch_index == image)[:, 0]
        for field, output in self.fields.items():
            value = getattr(found, output)[rows]
            if field in ("pred_boxes", "proposal_boxes"):
                value = wrap_tensor(classes.Boxes, value)
            elif field == "pred_masks" and pasted:
                value = value[:, : size[0], : size[1]]
            made._fields[field] = value
        return made


def _output_size(given: Mapping[str, Any], size: Tensor) -> Tensor:
    """Height and width of an image's output, i64[2]."""
    sides = [torch.as_tensor(given.get(name, size[i])) for i, name in enumerate(("height", "width"))]
    return torch.stack([side.to(torch.int64).reshape(()) for side in sides])
