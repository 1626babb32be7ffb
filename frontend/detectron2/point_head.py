"""Point heads: small networks that classify points (arXiv 1912.08193 and 2104.06404)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from .layers import Layer

_ENCODING_CHANNELS = 256


class StandardPointHead(nn.Module):
    """A multi-layer perceptron on fine features and coarse predictions of each point."""

    def __init__(
        self,
        *,
        input_channels: int,
        num_classes: int,
        fc_dim: int,
        num_fc: int,
        cls_agnostic_mask: bool = False,
        coarse_pred_each_layer: bool = True,
    ) -> None:
        """
        Args:
            input_channels: of the fine features.
            num_classes: of the coarse predictions.
            fc_dim: outputs of each hidden layer.
            num_fc: hidden layers.
            cls_agnostic_mask: whether one prediction serves all classes.
            coarse_pred_each_layer: whether every layer, not only the first, also takes the coarse
                predictions.
        """
        super().__init__()
        self.coarse_pred_each_layer = coarse_pred_each_layer
        self.fc_layers: list[nn.Conv1d] = []
        channels = input_channels + num_classes
        for index in range(1, num_fc + 1):
            layer = nn.Conv1d(channels, fc_dim, kernel_size=1)
            self.add_module(f"fc{index}", layer)
            self.fc_layers.append(layer)
            channels = fc_dim + (num_classes if coarse_pred_each_layer else 0)
        self.predictor: Layer = nn.Conv1d(channels, 1 if cls_agnostic_mask else num_classes, kernel_size=1)

    def forward(self, fine_grained_features: Tensor, coarse_features: Tensor) -> Tensor:
        """Logits [R, K, P] from fine features [R, C, P] and coarse predictions [R, K, P]."""
        x = torch.cat((fine_grained_features, coarse_features), dim=1)
        for layer in self.fc_layers:
            x = F.relu(layer(x))
            if self.coarse_pred_each_layer:
                x = torch.cat((x, coarse_features), dim=1)
        return self.predictor(x)


class ImplicitPointHead(nn.Module):
    """A perceptron on a point's features and encoded position, with weights predicted per instance."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(
        self,
        *,
        input_channels: int,
        num_classes: int,
        fc_dim: int,
        num_fc: int,
        image_feature_enabled: bool = True,
        pos_enc_enabled: bool = True,
    ) -> None:
        """
        Args:
            input_channels: of the fine features.
            num_classes: of the logits; 1 if one prediction serves all classes.
            fc_dim: outputs of each hidden layer.
            num_fc: hidden layers.
            image_feature_enabled: whether the fine features are used.
            pos_enc_enabled: whether the positions are used.
        """
        super().__init__()
        if num_fc < 1 or not (image_feature_enabled or pos_enc_enabled):
            raise InputError("ImplicitPointHead needs POINT_HEAD.NUM_FC above 0, and features or positions")
        self.num_layers = num_fc + 1
        self.channels = fc_dim
        self.image_feature_enabled = image_feature_enabled
        self.positional_encoding_enabled = pos_enc_enabled
        self.num_classes = num_classes
        self.in_channels = input_channels if image_feature_enabled else 0
        if pos_enc_enabled:
            self.in_channels += _ENCODING_CHANNELS
            matrix = torch.randn((2, _ENCODING_CHANNELS // 2))
            self.register_buffer("positional_encoding_gaussian_matrix", matrix)
        widths = [self.in_channels, *[fc_dim] * num_fc, num_classes]
        self.num_weight_params = [before * after for before, after in pairwise(widths)]
        self.num_bias_params = widths[1:]
        self.num_params = sum(self.num_weight_params) + sum(self.num_bias_params)

    def forward(self, fine_grained_features: Tensor, point_coords: Tensor, parameters: Tensor) -> Tensor:
        """
        Args:
            fine_grained_features: [R, C, P].
            point_coords: [R, P, 2], relative to the boxes, in [0, 1] x [0, 1].
            parameters: [R, num_params], the weights of all layers, then the biases of all.

        Returns:
            Logits [R, K, P].
        """
        inputs = []
        if self.positional_encoding_enabled:
            phase = 2 * math.pi * ((2 * point_coords - 1) @ self.positional_encoding_gaussian_matrix)
            inputs.append(torch.cat((phase.sin(), phase.cos()), dim=2).transpose(1, 2))
        if self.image_feature_enabled:
            inputs.append(fine_grained_features)
        x = torch.cat(inputs, dim=1)
        pieces = torch.split(parameters, [*self.num_weight_params, *self.num_bias_params], dim=1)
        weights, biases = pieces[: self.num_layers], pieces[self.num_layers :]
        for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            x = torch.bmm(torch.unflatten(weight, 1, (bias.shape[1], -1)), x) + bias[:, :, None]
            if index < self.num_layers - 1:
                x = F.relu(x)
        return x

    if TYPE_CHECKING:
        __call__ = forward
