"""The artifact of the target `caffe2`, and its detections in detc's form."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from detc.backends.caffe2 import Caffe2Runtime, emit
from detc.ir import Graph, InputError

from .detector import Artifact

DETECTIONS = ("bbox_nms", "score_nms", "class_nms")


class Caffe2Detections:
    """Runs a Caffe2 R-CNN on any number of images, and gives what it found as detc's other artifacts do.

    The net takes a fixed number of images; a batch is run in parts of that many. Its detections come by class, its
    masks for all classes: here they come by falling score, each with the mask of its own class.

    Attributes:
        net: runs the net itself.
        metadata: what the net says about itself.
    """

    def __init__(self, net: Caffe2Runtime, source: str = "the net") -> None:
        """Run the detections of `net`; `source` is what messages call it.

        Errors:
            InputError: it is no R-CNN.
        """
        missing = [name for name in DETECTIONS if name not in net.output_names]
        if missing or sorted(net.input_names) != ["data", "im_info"]:
            raise InputError(
                f"{source} is no R-CNN in the form of detectron2's exporter: it takes {', '.join(net.input_names)} "
                f"and gives {', '.join(net.output_names)}"
            )
        self.net = net
        self.metadata: Mapping[str, Any] = net.metadata
        images = net.graph.input("im_info").shape[0]
        self._images = images if isinstance(images, int) else 1

    @property
    def input_names(self) -> list[str]:
        """`data` f32[N,C,H,W] and `im_info` f32[N,3]."""
        return ["data", "im_info"]

    @property
    def output_names(self) -> list[str]:
        """Boxes, scores, classes, batch_index, and masks where the net predicts them."""
        masks = ["masks"] if "mask_fcn_probs" in self.net.output_names else []
        return ["boxes", "scores", "classes", "batch_index", *masks]

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name: boxes f32[D,4], scores f32[D], classes i64[D], batch_index i64[D], masks f32[D,1,S,S].

        Errors:
            InputError: an input is missing, unknown, of another type or of a size that the net does not take.
        """
        total = len(inputs["data"])
        parts: list[dict[str, Tensor]] = []
        for start in range(0, total, self._images):
            # The last part is filled up with copies of its last image, which are left out afterwards.
            rows = torch.arange(start, start + self._images).clamp(max=total - 1)
            found = self._part({name: torch.as_tensor(value)[rows] for name, value in inputs.items()})
            found["batch_index"] += start
            order = torch.argsort(found["scores"], descending=True, stable=True)
            order = order[torch.argsort(found["batch_index"][order], stable=True)]
            order = order[found["batch_index"][order] < total]
            parts.append({name: value[order] for name, value in found.items()})
        return {name: torch.cat([part[name] for part in parts]) for name in self.output_names}

    def _part(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        raw = {name: torch.tensor(value) for name, value in self.net.run(inputs).items()}
        classes = raw["class_nms"].to(torch.int64)
        found = {"boxes": raw["bbox_nms"], "scores": raw["score_nms"], "classes": classes}
        found["batch_index"] = raw.get("batch_index", torch.zeros_like(classes))
        if "mask_fcn_probs" in raw:
            masks = raw["mask_fcn_probs"]
            own = torch.zeros_like(classes) if masks.shape[1] == 1 else classes
            found["masks"] = masks[torch.arange(len(masks)), own][:, None]
        return found


class Caffe2Artifact(Artifact):
    """A pair of Caffe2 nets, and the interpreter to run them in.

    Attributes:
        graph: the lowered graph.
        nets: the emitted nets.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nets = emit(graph)
        self.metadata = dict(graph.metadata)

    @cached_property
    def runtime(self) -> Caffe2Detections:  # type: ignore[override]
        """The nets in the interpreter, on the CPU."""
        return Caffe2Detections(Caffe2Runtime(self.graph), "the model")

    @property
    @override
    def nodes(self) -> int:
        """How many operators the predict net has."""
        return len(self.nets.predict_net.op)

    @override
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write model.pb, model_init.pb and model.pbtxt into the folder, made if need be."""
        self.nets.save_protobuf(Path(path))
