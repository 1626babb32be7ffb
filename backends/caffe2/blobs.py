"""What clients of Caffe2 nets do with the blobs: from a net's outputs to those that other targets' files give.

Nets in the form of detectron2's exporter hold no postprocessing, and what they give depends on the meta-architecture
that they were made of. `ASSEMBLERS` says for each what follows the net.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from detc.ir import Graph, InputError
from detc.ir.dialects.boxes import anchors
from detc.ir.dialects.dense import dense_inference
from detc.ir.dialects.keypoints import keypoint_inference

from . import Caffe2Runtime

Assemble: TypeAlias = Callable[[Mapping[str, Tensor], int], dict[str, Tensor]]
"""assemble(blobs of a run, number of images) -> boxes, scores, classes, batch_index, ...; see `Caffe2Detections`."""

_MOST_IMAGES = 4096
_PER_IMAGE = {"sem_seg"}
"""Outputs that have a row for each image; the others have one for each detection."""
_SCALE_CLAMP = math.log(1000 / 16)
"""The most that a box may grow, as a logarithm: detectron2's, which its nets do not say."""


def assemble_rcnn(net: Caffe2Runtime, source: str) -> Assemble:
    """Boxes come by class; masks of all classes, or of one for all; keypoints as heatmaps or found already.

    Source of the blobs' names and forms: detectron2 v0.6, `export/caffe2_modeling.py`.
    """
    _require(net, source, "GeneralizedRCNN", ("bbox_nms", "score_nms", "class_nms"))
    probability = any(
        node.op.name == "caffe2.HeatmapMaxKeypoint" and bool(node.attributes.get("should_output_softmax"))
        for node in net.graph
    )

    def assemble(blobs: Mapping[str, Tensor], images: int) -> dict[str, Tensor]:
        classes = blobs["class_nms"].to(torch.int64)
        found = {"boxes": blobs["bbox_nms"], "scores": blobs["score_nms"], "classes": classes}
        found["batch_index"] = blobs.get("batch_index", torch.zeros_like(classes)).to(torch.int64)
        if "mask_fcn_probs" in blobs:
            masks = blobs["mask_fcn_probs"]
            own = torch.zeros_like(classes) if masks.shape[1] == 1 else classes
            found["masks"] = masks[torch.arange(len(masks)), own][:, None]
        if "keypoints_out" in blobs:
            # x, y, logit, probability; a net that leaves the probability out has zeros there.
            found["keypoints"] = blobs["keypoints_out"].transpose(1, 2)[:, :, [0, 1, 3 if probability else 2]]
        elif "kps_score" in blobs:
            found["keypoints"] = keypoint_inference(blobs["kps_score"], found["boxes"])
        return found

    return assemble


def assemble_retinanet(net: Caffe2Runtime, source: str) -> Assemble:
    """Logits and deltas of every anchor come level by level; the anchors and thresholds are arguments of the net."""
    _require(net, source, "RetinaNet", ("box_cls_0", "box_delta_0"))
    given: Mapping[str, Any] = net.metadata.get("net_arguments", {})
    try:
        strides = [int(stride) for stride in given["anchor_strides"]]
        cells = [torch.tensor(given[f"anchors_{i}"]).reshape(-1, 4) for i in range(len(strides))]
        offset = float(given["anchor_offset"])
        settings: dict[str, Any] = {
            "weights": tuple(map(float, given["bbox_reg_weights"])),
            "scale_clamp": _SCALE_CLAMP,
            "score_thresh": float(given["score_threshold"]),
            "topk_candidates": int(given["topk_candidates"]),
            "nms_thresh": float(given["nms_threshold"]),
            "topk_per_image": int(given["max_detections_per_image"]),
        }
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{source} lacks an argument that a RetinaNet's detections need: {error}") from None
    if len(settings["weights"]) != 4 or settings["topk_candidates"] < 0 or not all(map(len, cells)):
        raise InputError(f"{source} holds no usable settings of a RetinaNet: {dict(given)}")
    _require(
        net,
        source,
        "RetinaNet",
        [f"box_{kind}_{i}" for i in range(len(strides)) for kind in ("cls", "delta")],
    )

    def assemble(blobs: Mapping[str, Tensor], images: int) -> dict[str, Tensor]:
        levels = range(len(strides))
        logits, deltas = ([blobs[f"box_{kind}_{i}"] for i in levels] for kind in ("cls", "delta"))
        for i in levels:
            if deltas[i].shape[1] != 4 * len(cells[i]) or logits[i].shape[1] % len(cells[i]):
                raise InputError(
                    f"{source}: {len(cells[i])} anchors per cell of level {i}, but {logits[i].shape[1]} logits and "
                    f"{deltas[i].shape[1]} deltas"
                )
        placed = [anchors(logits[i], cells[i], stride=strides[i], offset=offset) for i in levels]
        boxes, scores, classes, batch_index = dense_inference(
            [level.sigmoid() for level in logits], deltas, placed, **settings
        )
        return {"boxes": boxes, "scores": scores, "classes": classes, "batch_index": batch_index}

    return assemble


def assemble_proposals(net: Caffe2Runtime, source: str) -> Assemble:
    """Boxes and objectness logits, as they are."""
    _require(net, source, "ProposalNetwork", ("boxes", "scores"))

    def assemble(blobs: Mapping[str, Tensor], images: int) -> dict[str, Tensor]:
        index = blobs.get("batch_index", torch.zeros(len(blobs["scores"]), dtype=torch.int64))
        return {"boxes": blobs["boxes"], "scores": blobs["scores"], "batch_index": index}

    return assemble


def assemble_semantic(net: Caffe2Runtime, source: str) -> Assemble:
    """Logits, as they are."""
    _require(net, source, "SemanticSegmentor", ("sem_seg",))
    return lambda blobs, images: {"sem_seg": blobs["sem_seg"]}


def assemble_panoptic(net: Caffe2Runtime, source: str) -> Assemble:
    """What an R-CNN and a SemanticSegmentor give."""
    _require(net, source, "PanopticFPN", ("sem_seg",))
    instances = assemble_rcnn(net, source)
    return lambda blobs, images: {**instances(blobs, images), "sem_seg": blobs["sem_seg"]}


ASSEMBLERS: dict[str, Callable[[Caffe2Runtime, str], Assemble]] = {
    "GeneralizedRCNN": assemble_rcnn,
    "RetinaNet": assemble_retinanet,
    "ProposalNetwork": assemble_proposals,
    "SemanticSegmentor": assemble_semantic,
    "PanopticFPN": assemble_panoptic,
}
"""Meta-architecture -> what makes, for a net of that kind, the function that follows it. It is to raise an InputError
that names the source if the net is not what it says."""


def _require(net: Caffe2Runtime, source: str, kind: str, blobs: Collection[str]) -> None:
    missing = [name for name in blobs if name not in net.output_names]
    if missing:
        raise InputError(
            f"{source} is no {kind} in the form of detectron2's exporter: it lacks {', '.join(missing)}"
        )


def images_per_run(graph: Graph) -> int:
    """How many images a net takes at once; 1 where it does not say, which all nets take."""
    shapes = (value.tensor_type.shape for value in graph.inputs if value.name == "im_info")
    images = next((shape[0] for shape in shapes if shape), 1)
    return images if isinstance(images, int) else 1


class Caffe2Detections:
    """Runs a Caffe2 net on any number of images, and gives what it found as other targets' files do.

    A net may take a fixed number of images; a batch is run in parts of that many. Detections come by image, then by
    falling score.

    Attributes:
        net: runs the net itself.
        metadata: what the net says about itself.
    """

    gives_tensors = True

    def __init__(self, net: Caffe2Runtime, source: str = "the net") -> None:
        """Run the detections of `net`; `source` is what messages call it.

        Errors:
            InputError: it is of a meta-architecture that is not known, or not what it says it is.
        """
        kind = net.metadata.get("meta_architecture", "GeneralizedRCNN")
        if kind not in ASSEMBLERS:
            raise InputError(f"{source} is a {kind}; detections are made of {', '.join(ASSEMBLERS)} only")
        if sorted(net.input_names) != ["data", "im_info"]:
            raise InputError(
                f"{source} takes {', '.join(net.input_names) or 'nothing'}, where a detector takes data and im_info"
            )
        self.net = net
        self.metadata: Mapping[str, Any] = {"size_divisibility": 0, **net.metadata}
        self._assemble = ASSEMBLERS[kind](net, source)
        self._images = images_per_run(net.graph)
        if not 1 <= self._images <= _MOST_IMAGES:
            raise InputError(f"{source} takes {self._images} images at once")

    @property
    def input_names(self) -> list[str]:
        """`data` f32[N,C,H,W] and `im_info` f32[N,3]."""
        return ["data", "im_info"]

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """The outputs by name: boxes f32[D,4], scores f32[D], classes i64[D], batch_index i64[D], and, where the net
        has them, masks f32[D,1,S,S], keypoints f32[D,K,3] (x, y, score) and sem_seg f32[N,C,H,W]. A ProposalNetwork
        has no classes, a SemanticSegmentor nothing but sem_seg.

        Errors:
            InputError: an input is missing, unknown, of another type or of a size that the net does not take.
        """
        total = len(inputs["data"])
        parts: list[dict[str, Tensor]] = []
        for start in range(0, total, self._images):
            # The last part is filled up with copies of its last image, which are left out afterwards.
            rows = torch.arange(start, start + self._images).clamp(max=total - 1)
            found = self._part({name: torch.as_tensor(value)[rows] for name, value in inputs.items()})
            part = {name: found.pop(name)[: total - start] for name in _PER_IMAGE & set(found)}
            if found:
                found["batch_index"] = found["batch_index"] + start
                order = torch.argsort(found["scores"], descending=True, stable=True)
                order = order[torch.argsort(found["batch_index"][order], stable=True)]
                order = order[found["batch_index"][order] < total]
                part |= {name: value[order] for name, value in found.items()}
            parts.append(part)
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _part(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        blobs = {name: torch.tensor(value) for name, value in self.net.run(inputs).items()}
        try:
            found = self._assemble(blobs, self._images)
        except (RuntimeError, IndexError, ValueError, OverflowError) as error:
            raise InputError(f"what the net gives are no detections: {error}") from error
        if "boxes" in found and not found["boxes"].isfinite().all():
            raise InputError("what the net gives are no detections: some boxes are not finite")
        return found
