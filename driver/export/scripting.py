"""`scripting_with_instances`: TorchScript of models that use `Instances`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from detc.backends.torchscript import (
    constant_training_mode,
    script,
    script_function,
    source_module,
    standing_in,
)
from detc.ir import InputError, structures

from .detectors import (
    CompiledDetector,
    batch_images,
    boxes_classes,
    detectors_in,
    divisibility_of,
    instances_classes,
    structures_of,
)
from .typed_instances import BOXES, PREAMBLE, check_fields, type_names, write_instances


def scripting_with_instances(model: nn.Module, fields: Mapping[str, type]) -> torch.jit.ScriptModule:
    """torch.jit.script of a model that uses `Instances`, whose fields TorchScript must know beforehand.

        fields = {"pred_boxes": Boxes, "scores": torch.Tensor, "pred_classes": torch.Tensor}
        scripted = scripting_with_instances(model, fields)
        instances = scripted.inference([{"image": image}], do_postprocess=False)[0]

    While the model is compiled, a class with just these fields stands in for `Instances`; afterwards everything is as
    before. A detector in the model is compiled by detc: it serves batches of any number of images of any sizes, and
    its `inference` gives raw detections (TorchScript cannot postprocess: the result would be of another type). What
    is around it is scripted as it is written. The result is loaded with torch and torchvision alone.

    Args:
        model: detc's, a live one of detectron2, or one that holds either; in evaluation mode.
        fields: each field that `Instances` has anywhere in the model, with its type: torch.Tensor or Boxes.

    Errors:
        InputError: the model is in training mode, a field is missing or of the wrong type, or torch cannot compile
            the model.
        UnsupportedError: a detector's component cannot be captured.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"the model is an nn.Module, not {type(model).__name__}")
    if model.training:
        raise InputError("the model is in training mode; call model.eval() before scripting it")
    check_fields(fields, boxes_classes())
    compiled = {path: CompiledDetector(module) for path, module in detectors_in(model).items()}
    for path, detector in compiled.items():
        _check_detector(detector, fields, path)

    names, known = type_names(fields)
    text = f"{PREAMBLE}\n{BOXES}\n\n{write_instances(fields, names)}"
    for number, detector in enumerate(compiled.values()):
        text += _write_detector(f"ScriptedDetector{number}", detector, names)
    with source_module(text, known, ("ScriptedBoxes", "ScriptedInstances")) as generated:
        stand_ins = dict.fromkeys(instances_classes(), generated.ScriptedInstances)
        if structures.Boxes in names:
            stand_ins[structures.Boxes] = generated.ScriptedBoxes
        with standing_in(stand_ins), constant_training_mode(model):
            made = {
                path: _stand_in(getattr(generated, f"ScriptedDetector{number}"), detector)
                for number, (path, detector) in enumerate(compiled.items())
            }
            with _replaced(model, made) as whole:
                return script(whole)


def _check_detector(detector: CompiledDetector, fields: Mapping[str, type], path: str) -> None:
    boxes = structures_of(detector.model).Boxes
    wanted = {name: boxes if name in _BOXES else torch.Tensor for name in detector.fields}
    where = f" at {path}" if path else ""
    kind = type(detector.model).__name__
    missing = {name: type_ for name, type_ in wanted.items() if name not in fields}
    if missing:
        said = ", ".join(f'"{name}": {type_.__name__}' for name, type_ in missing.items())
        raise InputError(f"{kind}{where} gives fields that are not declared; add {said}")
    for name, type_ in wanted.items():
        if fields[name] is not type_:
            raise InputError(
                f"{kind}{where} gives the field {name!r} as {type_.__module__}.{type_.__qualname__}, not as "
                f"{fields[name].__module__}.{fields[name].__qualname__}"
            )


_BOXES = ("pred_boxes", "proposal_boxes")

_DETECTOR = """
class NAME(torch.nn.Module):
    def __init__(self, core, batch_images, divisibility: int):
        super().__init__()
        self.core = core
        self.batch_images = batch_images
        self.divisibility = divisibility

    def forward(self, batched_inputs: List[Dict[str, Tensor]]) -> List[ScriptedInstances]:
        return self.inference(batched_inputs, None, False)

    @torch.jit.export
    def inference(
        self,
        batched_inputs: List[Dict[str, Tensor]],
        detected_instances: Optional[List[ScriptedInstances]] = None,
        do_postprocess: bool = False,
    ) -> List[ScriptedInstances]:
        assert detected_instances is None, "a scripted detector takes no detected_instances"
        assert not do_postprocess, "a scripted detector cannot postprocess: pass do_postprocess=False"
        data, im_info = self.batch_images([given["image"] for given in batched_inputs], self.divisibility)
        found = self.core(data, im_info)
        results: List[ScriptedInstances] = []
        for image in range(len(batched_inputs)):
            rows = torch.nonzero(found.batch_index == image)[:, 0]
            made = ScriptedInstances((int(im_info[image, 0]), int(im_info[image, 1])))
FIELDS
            results.append(made)
        return results
"""


def _write_detector(name: str, detector: CompiledDetector, names: Mapping[type, str]) -> str:
    boxes = names.get(structures_of(detector.model).Boxes, "")
    lines = [
        f"            made.{field} = "
        + (f"{boxes}(found.{output}[rows])" if field in _BOXES else f"found.{output}[rows]")
        for field, output in detector.fields.items()
    ]
    return _DETECTOR.replace("NAME", name).replace("FIELDS", "\n".join(lines))


def _stand_in(cls: Any, detector: CompiledDetector) -> nn.Module:
    divisibility = divisibility_of(detector.raw.metadata)
    module: nn.Module = cls(detector.raw.model.module, script_function(batch_images), divisibility)
    return module.eval()


@contextmanager
def _replaced(model: nn.Module, stand_ins: Mapping[str, nn.Module]) -> Iterator[nn.Module]:
    """The model with its detectors replaced by others; within the block only."""
    if "" in stand_ins:
        yield stand_ins[""]
        return
    kept: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        for path, module in stand_ins.items():
            parent, _, name = path.rpartition(".")
            owner = model.get_submodule(parent)
            kept.append((owner, name, getattr(owner, name)))
            setattr(owner, name, module)
        yield model
    finally:
        for owner, name, module in reversed(kept):
            setattr(owner, name, module)
