"""The interface that meta-architectures expect of a backbone."""

from __future__ import annotations

from torch import Tensor, nn

from .layers import ShapeSpec


class Backbone(nn.Module):
    """A network from an image batch [N, C, H, W] to named feature maps.

    Subclasses set `_out_features` (names in the order of the output), `_out_feature_channels` and
    `_out_feature_strides`.
    """

    _out_features: list[str]
    _out_feature_channels: dict[str, int]
    _out_feature_strides: dict[str, int]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    @property
    def size_divisibility(self) -> int:
        """Input height and width must be multiples of this; 0 if any will do."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Further constraints for `ImageList.from_tensors`."""
        return {}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature map."""
        return {
            name: ShapeSpec(channels=self._out_feature_channels[name], stride=self._out_feature_strides[name])
            for name in self._out_features
        }
