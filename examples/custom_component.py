"""Components of one's own in a detectron2 model, compiled: `python examples/custom_component.py`.

A backbone and a box head in ordinary torch code need nothing but to be registered under the names that the config
gives them: they are traced, with symbolic sizes, and may compute with these (windows of a padded map, tables of
positions resized to it). An RPN that changes how proposals are made is another matter: detc
knows what detectron2's does, not what this one does, says so, and takes an importer for it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import detc
from detc.frontend import Capture, Images
from detc.frontend.detectron2 import RPN, Backbone, Config, ShapeSpec, build_model
from detc.frontend.importers.rpn import rpn
from detc.ir import Value


@detc.register("MODEL.BACKBONE.NAME")
class TokenBackbone(Backbone):
    """Patches as tokens that attend to each other, and two maps of them."""

    def __init__(self, cfg: Config, input_shape: ShapeSpec) -> None:
        super().__init__()
        channels = cfg.MODEL.TOKENS.CHANNELS  # a key of its own: detc keeps what it does not know
        self.patches = nn.Conv2d(input_shape.channels or 3, channels, kernel_size=8, stride=8)
        self.norm = nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, num_heads=4, batch_first=True)
        self.perceptron = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
        )
        self.coarse = nn.Conv2d(channels, channels, kernel_size=3, stride=2, padding=1)
        self._out_features = ["fine", "coarse"]
        self._out_feature_channels = {"fine": channels, "coarse": channels}
        self._out_feature_strides = {"fine": 8, "coarse": 16}

    @property
    def size_divisibility(self) -> int:
        return 16

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.patches(x)
        batch, channels, height, width = maps.shape
        tokens = self.norm(maps.flatten(2).transpose(1, 2))
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        tokens = tokens + self.perceptron(tokens)
        fine = tokens.transpose(1, 2).reshape(batch, channels, height, width)
        return {"fine": fine, "coarse": self.coarse(fine)}


@detc.register("MODEL.ROI_BOX_HEAD.NAME")
class GatedBoxHead(nn.Module):
    """A region's features, weighted by how much each cell says, and summed up."""

    def __init__(self, cfg: Config, input_shape: ShapeSpec) -> None:
        super().__init__()
        channels, width = input_shape.channels or 0, cfg.MODEL.ROI_BOX_HEAD.FC_DIM
        self.gate, self.fc = nn.Conv2d(channels, 1, kernel_size=1), nn.Linear(channels, width)
        self.output_shape = ShapeSpec(channels=width)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.gate(x).flatten(2).softmax(dim=-1)
        summed = torch.einsum("rcp,rop->rc", x.flatten(2), weights)
        return nn.functional.silu(self.fc(summed))


def grown(boxes: Tensor) -> Tensor:
    """Boxes f32[R,4], a tenth larger."""
    margin = 0.05 * (boxes[:, 2:] - boxes[:, :2])
    return torch.cat([boxes[:, :2] - margin, boxes[:, 2:] + margin], dim=1)


class GenerousRPN(RPN):
    """Proposals that are a tenth larger than what the head says, cut to the image."""

    def predict_proposals(self, anchors, pred_objectness_logits, pred_anchor_deltas, image_sizes):  # type: ignore[no-untyped-def]
        found = super().predict_proposals(anchors, pred_objectness_logits, pred_anchor_deltas, image_sizes)
        for proposals in found:
            proposals.proposal_boxes.tensor = grown(proposals.proposal_boxes.tensor)
            proposals.proposal_boxes.clip(proposals.image_size)
        return found


def generous_rpn(capture: Capture, module: GenerousRPN, images: Images, features: dict[str, Value]) -> Value:
    """What `GenerousRPN` computes, as operations: detectron2's RPN, and what is done to its boxes."""
    proposals = rpn(capture, module, images, features)
    det, instances = capture.build.det, capture.build.instances
    boxes = capture.trace(grown, instances.get(proposals, field="proposal_boxes"))
    boxes = det.clip_boxes(boxes, instances.get(proposals, field="batch_index"), images.im_info)
    return instances.set(proposals, boxes, field="proposal_boxes")


CONFIG = {
    "MODEL": {
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "BACKBONE": {"NAME": "TokenBackbone"},
        "TOKENS": {"CHANNELS": 32},
        "ANCHOR_GENERATOR": {"SIZES": [[32], [64]], "ASPECT_RATIOS": [[0.5, 1.0, 2.0]]},
        "RPN": {"IN_FEATURES": ["fine", "coarse"], "PRE_NMS_TOPK_TEST": 200, "POST_NMS_TOPK_TEST": 50},
        "ROI_HEADS": {"NAME": "StandardROIHeads", "IN_FEATURES": ["fine", "coarse"], "NUM_CLASSES": 3},
        "ROI_BOX_HEAD": {"NAME": "GatedBoxHead", "FC_DIM": 48, "POOLER_RESOLUTION": 7},
    }
}


def main() -> None:
    torch.manual_seed(0)
    model = build_model(CONFIG)  # load_model, once there are weights
    images = {
        "wide": {"image": 255 * torch.rand(3, 96, 160)},
        "tall": {"image": 255 * torch.rand(3, 130, 71)},
    }

    print(check(model, images))

    model.proposal_generator.__class__ = GenerousRPN  # or registered for MODEL.PROPOSAL_GENERATOR.NAME
    try:
        detc.compile(model)
    except detc.UnsupportedError as error:
        print(f"refused: {error}")
    detc.importer(GenerousRPN)(generous_rpn)  # as a rule written @detc.importer(GenerousRPN)
    print(check(model, images))


def check(model: nn.Module, images: dict[str, dict[str, Tensor]]) -> str:
    """Compile the model; compare it with the file in onnxruntime, each image alone and both as a batch."""
    artifact = detc.compile(model, target="onnx")
    parity = detc.check_parity(model, artifact, images)
    problems = [row.report.problem for row in parity if not row.report.agrees]
    assert not problems, problems
    return f"{artifact.nodes} ONNX nodes; {sum(row.report.matched for row in parity)} detections agree"


if __name__ == "__main__":
    main()
