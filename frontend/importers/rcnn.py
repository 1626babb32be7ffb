"""Meta-architectures (detectron2 modeling/meta_arch)."""

from __future__ import annotations

from typing import Any

from torch import nn

from detc.ir import UnsupportedError, Value

from ..capture import Capture, Images, importer

MASK_THRESHOLD = 0.5
"""From which probability on a pixel belongs to a mask (detectron2's detector_postprocess)."""


def normalized_images(capture: Capture, model: Any) -> Images:
    """The graph's image inputs, and the normalized batch."""
    backbone = model.backbone
    if dict(backbone.padding_constraints).get("square_size", 0):
        raise UnsupportedError(
            f"{type(backbone).__name__}: a backbone that wants square padding is not supported"
        )
    mean = [float(x) for x in model.pixel_mean.flatten()]
    std = [float(x) for x in model.pixel_std.flatten()]
    data, im_info = capture.image_inputs(len(mean), backbone.size_divisibility)
    capture.graph.metadata.update(
        size_divisibility=int(backbone.size_divisibility),
        input_format=getattr(model, "input_format", None) or "BGR",
        pixel_mean=mean,
        pixel_std=std,
    )
    images = capture.build.det.normalize(data, im_info, mean=mean, std=std)
    images.name = "images"
    return Images(images, im_info)


def backbone_features(capture: Capture, backbone: nn.Module, images: Images) -> dict[str, Value]:
    """What the backbone gives, each map named as the backbone names it."""
    features: dict[str, Value] = capture.call(backbone, images.tensor)
    for name, value in features.items():
        value.name = name
    return features


def regions(capture: Capture, model: Any, images: Images, features: dict[str, Value]) -> Value:
    """Proposals, and what the heads make of them: detections as instances."""
    if model.proposal_generator is None:
        proposals = capture.proposals_input()
    else:
        proposals = capture.call(model.proposal_generator, images, features)
    detections: Value = capture.call(model.roi_heads, images, features, proposals)
    return detections


@importer("GeneralizedRCNN", relies_on=("forward", "inference", "preprocess_image", "_postprocess"))
def generalized_rcnn(capture: Capture, model: Any) -> None:
    """Backbone, proposals, heads, postprocessing. The output `instances` has detectron2's fields."""
    images = normalized_images(capture, model)
    features = backbone_features(capture, model.backbone, images)
    detections = regions(capture, model, images, features)
    set_postprocessed(capture, images, detections)


@importer("ProposalNetwork", relies_on=("forward", "preprocess_image"))
def proposal_network(capture: Capture, model: Any) -> None:
    """Backbone, proposals, postprocessing. The output `proposals` has detectron2's fields."""
    images = normalized_images(capture, model)
    features = backbone_features(capture, model.backbone, images)
    proposals = capture.call(model.proposal_generator, images, features)
    capture.graph.metadata["detections_per_image"] = int(model.proposal_generator.post_nms_topk[False])
    set_postprocessed(capture, images, proposals, "proposals")


def set_postprocessed(capture: Capture, images: Images, found: Value, output: str = "instances") -> None:
    """Bring what was found into the output images, and make it the graph's output of that name."""
    output_size = capture.output_size_input()
    instances = capture.build.det.postprocess(
        found, images.im_info, output_size, mask_threshold=MASK_THRESHOLD
    )
    instances.name = output
    capture.graph.metadata["mask_threshold"] = MASK_THRESHOLD
    capture.graph.set_outputs({output: instances})
