"""Two-stage detectors and proposal networks: the outermost modules, called with a list of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detc.ir.structures import ImageList, Instances

from ..errors import InputError
from .backbone import Backbone
from .config import Config
from .layers import check_inference
from .postprocess import detector_postprocess
from .roi_heads import ROIHeads

BatchedInputs = Sequence[dict[str, Any]]
"""For each image a dict: "image" [C, H, W] in the model's pixel range, optional "height" and "width" of the
output.
"""

_ProposalGenerator = Callable[[ImageList, dict[str, Tensor], None], tuple[list[Instances], dict[str, Tensor]]]


class MetaArch(nn.Module):
    """What all meta-architectures share: a backbone, and how images become its input.

    Attributes:
        cfg: the config the model was built from, if it was.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    cfg: Config | None

    def __init__(
        self, *, backbone: Backbone, pixel_mean: Sequence[float], pixel_std: Sequence[float]
    ) -> None:
        """
        Args:
            backbone: see `Backbone`.
            pixel_mean: subtracted from each channel.
            pixel_std: what each channel is then divided by.
        """
        super().__init__()
        if len(pixel_mean) != len(pixel_std):
            raise InputError(
                f"PIXEL_MEAN and PIXEL_STD differ in length: {len(pixel_mean)} and {len(pixel_std)}"
            )
        self.cfg = None
        self.backbone = backbone
        mean = torch.tensor(list(pixel_mean), dtype=torch.float32)
        std = torch.tensor(list(pixel_std), dtype=torch.float32)
        self.register_buffer("pixel_mean", mean.view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", std.view(-1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def preprocess_image(self, batched_inputs: BatchedInputs) -> ImageList:
        """Normalize the images, and pad them to one size that suits the backbone.

        Raises:
            InputError: there is no image, or one is not a tensor [C, H, W] with the model's channels.
        """
        images = [self._image(inputs, index) for index, inputs in enumerate(batched_inputs)]
        if not images:
            raise InputError("the batch holds no image")
        return ImageList.from_tensors(
            [(image - self.pixel_mean) / self.pixel_std for image in images],
            self.backbone.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )

    def _image(self, inputs: dict[str, Any], index: int) -> Tensor:
        image = inputs.get("image")
        channels = len(self.pixel_mean)
        if not isinstance(image, Tensor):
            raise InputError(f'input {index}: "image" must be a tensor [C, H, W], not {type(image).__name__}')
        if image.dim() != 3 or image.shape[0] != channels or image.numel() == 0:
            raise InputError(
                f'input {index}: "image" must have the shape [{channels}, H, W], not {list(image.shape)}'
            )
        return image.to(self.device)


def output_size(inputs: dict[str, Any], image_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) that an input asks for, by default that of its image."""
    return int(inputs.get("height", image_size[0])), int(inputs.get("width", image_size[1]))


class GeneralizedRCNN(MetaArch):
    """A backbone, a proposal generator and heads for regions."""

    def __init__(
        self,
        *,
        backbone: Backbone,
        proposal_generator: nn.Module | None,
        roi_heads: ROIHeads,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str | None = None,
    ) -> None:
        """
        Args:
            backbone: see `Backbone`.
            proposal_generator: see `RPN`; None if inputs bring "proposals" of their own.
            roi_heads: see `ROIHeads`.
            pixel_mean: see `MetaArch`.
            pixel_std: see `MetaArch`.
            input_format: the order of the channels, "BGR" or "RGB"; for callers, the model does not use it.
        """
        super().__init__(backbone=backbone, pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.proposal_generator: _ProposalGenerator | None = proposal_generator
        self.roi_heads = roi_heads
        self.input_format = input_format

    def forward(self, batched_inputs: BatchedInputs) -> list[dict[str, Any]]:
        """`inference` with postprocessing: for each image {"instances": Instances}."""
        check_inference(self)
        results: list[dict[str, Any]] = self.inference(batched_inputs)
        return results

    def inference(
        self,
        batched_inputs: BatchedInputs,
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> Any:
        """Detect.

        Args:
            batched_inputs: see `BatchedInputs`; "proposals" (`Instances` with proposal_boxes, in pixels of
                the image) where the model has no proposal generator.
            detected_instances: if given, for each image `Instances` with pred_boxes and pred_classes; only
                what further heads predict is added to them.
            do_postprocess: whether to scale the results to the size asked for.

        Returns:
            For each image {"instances": Instances} with pred_boxes, scores, pred_classes and, where the model
            has such heads, pred_masks (bool [N, height, width]) and pred_keypoints [N, K, 3]; without
            postprocessing for each image the raw `Instances`.
        """
        check_inference(self)
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        if detected_instances is None:
            proposals = self._proposals(batched_inputs, images, features)
            results, _ = self.roi_heads(images, features, proposals, None)
        else:
            given = [instances.to(self.device) for instances in detected_instances]
            results = self.roi_heads.forward_with_given_boxes(features, given)
        if not do_postprocess:
            return results
        return self._postprocess(results, batched_inputs, images.image_sizes)

    def _proposals(
        self, batched_inputs: BatchedInputs, images: ImageList, features: dict[str, Tensor]
    ) -> list[Instances]:
        if self.proposal_generator is not None:
            proposals, _ = self.proposal_generator(images, features, None)
            return proposals
        for index, inputs in enumerate(batched_inputs):
            if "proposals" not in inputs:
                raise InputError(
                    f'input {index} has no "proposals", which a model without proposal generator needs'
                )
        return [inputs["proposals"].to(self.device) for inputs in batched_inputs]

    @staticmethod
    def _postprocess(
        instances: list[Instances], batched_inputs: BatchedInputs, image_sizes: list[tuple[int, int]]
    ) -> list[dict[str, Instances]]:
        return [
            {"instances": detector_postprocess(result, *output_size(inputs, image_size))}
            for result, inputs, image_size in zip(instances, batched_inputs, image_sizes, strict=True)
        ]


class ProposalNetwork(MetaArch):
    """A backbone and a proposal generator."""

    def __init__(
        self,
        *,
        backbone: Backbone,
        proposal_generator: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        """As `GeneralizedRCNN`."""
        super().__init__(backbone=backbone, pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.proposal_generator = proposal_generator

    def forward(self, batched_inputs: BatchedInputs) -> list[dict[str, Instances]]:
        """For each image {"proposals": Instances} with proposal_boxes and objectness_logits, at the output's
        size.
        """
        check_inference(self)
        images = self.preprocess_image(batched_inputs)
        proposals, _ = self.proposal_generator(images, self.backbone(images.tensor), None)
        return [
            {"proposals": detector_postprocess(result, *output_size(inputs, image_size))}
            for result, inputs, image_size in zip(proposals, batched_inputs, images.image_sizes, strict=True)
        ]
