"""Networks as users write them, in ordinary torch: a ViT-like and a ConvNeXt-like backbone, a box head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ViT(nn.Module):
    """Global attention; the position embedding of a 14 x 14 map is resized to the image's."""

    def __init__(self, dim: int = 24, heads: int = 4, patch: int = 8) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch, stride=patch)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * 0.1)
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + 14 * 14, dim))
        layer = nn.TransformerEncoderLayer(
            dim, heads, 2 * dim, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.ModuleList([Attention(dim, heads), layer])
        self.neck = nn.Sequential(nn.ConvTranspose2d(dim, dim, 2, 2), nn.GroupNorm(4, dim), nn.GELU())

    def position(self, height: int, width: int) -> Tensor:
        tokens = self.pos_embed[:, 1:].reshape(1, 14, 14, -1).permute(0, 3, 1, 2)
        tokens = F.interpolate(tokens, size=(height, width), mode="bicubic", align_corners=False)
        return torch.cat((self.pos_embed[:, :1], tokens.flatten(2).transpose(1, 2)), dim=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.proj(x)
        batch, channels, height, width = x.shape
        x = torch.cat((self.cls_token.expand(batch, -1, -1), x.flatten(2).transpose(1, 2)), dim=1)
        x = x + self.position(height, width)
        for block in self.blocks:
            x = block(x)
        maps = x[:, 1:].transpose(1, 2).reshape(batch, channels, height, width)
        return {"s0": self.neck(maps), "s1": F.max_pool2d(maps, 2)}


class Attention(nn.Module):
    """Multi-head attention by torch's own kernel, after a norm."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, channels = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(*qkv.unbind(0))
        return x + self.proj(found.transpose(1, 2).reshape(batch, tokens, channels))


class ConvNeXt(nn.Module):
    """Depthwise convolutions, norms over channels last, a gate, squeeze and excitation."""

    def __init__(self, dims: Sequence[int] = (16, 24)) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, dims[0], 4, 4), LayerNorm2d(dims[0]))
        self.blocks = nn.ModuleList(ConvNeXtBlock(dim) for dim in dims)
        self.down = nn.Sequential(LayerNorm2d(dims[0]), nn.Conv2d(dims[0], dims[1], 2, 2))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        first = self.blocks[0](self.stem(x))
        return {"s0": first, "s1": self.blocks[1](self.down(first))}


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of [N,C,H,W]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """See `ConvNeXt`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm, self.gamma = nn.LayerNorm(dim, eps=1e-6), nn.Parameter(torch.full((dim,), 0.5))
        self.pwconv1, self.pwconv2 = nn.Linear(dim, 4 * dim), nn.Linear(2 * dim, dim)
        self.excite = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(dim, dim, 1), nn.Hardsigmoid())

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        a, b = self.pwconv1(y).chunk(2, dim=-1)
        y = self.gamma * self.pwconv2(F.gelu(a, approximate="tanh") * torch.sigmoid(b))
        return x + torch.einsum("nhwc->nchw", y) * self.excite(x)


class TokenBoxHead(nn.Module):
    """A region's cells as tokens, attended to by one learned query."""

    def __init__(self, channels: int, side: int, out: int = 40) -> None:
        super().__init__()
        self.query, self.position = (
            nn.Parameter(torch.randn(1, 1, channels)),
            nn.Parameter(torch.randn(side * side, channels)),
        )
        self.attention = nn.MultiheadAttention(channels, 4, batch_first=True)
        self.norm, self.fc = nn.LayerNorm(channels), nn.Linear(2 * channels, out)
        self.out = out

    def forward(self, x: Tensor) -> Tensor:
        count = x.shape[0]
        tokens = x.flatten(2).permute(0, 2, 1) + self.position
        found, _ = self.attention(self.query.expand(count, -1, -1), tokens, tokens, need_weights=False)
        x = torch.cat([self.norm(found.squeeze(1)), x.amax(dim=(2, 3))], dim=-1)
        return F.leaky_relu(self.fc(x), 0.1)


BACKBONES: dict[str, Any] = {"vit": ViT, "convnext": ConvNeXt}
