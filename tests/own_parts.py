"""Networks as users write them, in ordinary torch: a Swin-like, a ViT-like and a ConvNeXt-like backbone, a box head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def window_partition(x: Tensor, size: int) -> Tensor:
    """[N,H,W,C] -> [N * windows, size, size, C]; H and W are multiples of the size."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // size, size, width // size, size, channels)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, size, size, channels)


def window_reverse(windows: Tensor, size: int, height: int, width: int) -> Tensor:
    """The inverse of `window_partition`."""
    batch = windows.shape[0] // (height // size * width // size)
    x = windows.view(batch, height // size, width // size, size, size, -1)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(batch, height, width, -1)


class WindowAttention(nn.Module):
    """Attention within a window, with a learned bias for each relative position."""

    relative_position_index: Tensor

    def __init__(self, dim: int, size: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.randn((2 * size - 1) ** 2, heads) * 0.5)
        coords = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")).flatten(1)
        relative = (coords[:, :, None] - coords[:, None, :]).permute(1, 2, 0).contiguous() + size - 1
        self.register_buffer("relative_position_index", relative[..., 0] * (2 * size - 1) + relative[..., 1])
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        windows, tokens, channels = x.shape
        qkv = (
            self.qkv(x).reshape(windows, tokens, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        )
        q, k, v = qkv[0], qkv[1], qkv[2]
        attention = (q * self.scale) @ k.transpose(-2, -1)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)].view(
            tokens, tokens, -1
        )
        attention = attention + bias.permute(2, 0, 1).contiguous().unsqueeze(0)
        if mask is not None:
            count = mask.shape[0]
            attention = attention.view(windows // count, count, self.heads, tokens, tokens)
            attention = (attention + mask.unsqueeze(1).unsqueeze(0)).view(-1, self.heads, tokens, tokens)
        x = (attention.softmax(dim=-1) @ v).transpose(1, 2).reshape(windows, tokens, channels)
        return self.proj(x)


class SwinBlock(nn.Module):
    """Window attention, shifted if asked, and a perceptron; the map is padded to whole windows."""

    def __init__(self, dim: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * dim, dim))

    def mask(self, height: int, width: int, device: torch.device) -> Tensor:
        """Which tokens of a shifted window come from regions that are no neighbours: [windows, tokens, tokens]."""
        regions = torch.zeros((1, height, width, 1), device=device)
        slices = (slice(0, -self.window), slice(-self.window, -self.shift), slice(-self.shift, None))
        count = 0
        for rows in slices:
            for columns in slices:
                regions[:, rows, columns, :] = count
                count += 1
        windows = window_partition(regions, self.window).view(-1, self.window * self.window)
        difference = windows.unsqueeze(1) - windows.unsqueeze(2)
        return difference.masked_fill(difference != 0, -100.0).masked_fill(difference == 0, 0.0)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        batch, _, channels = x.shape
        shortcut = x
        x = self.norm1(x).view(batch, height, width, channels)
        below, right = (
            (self.window - height % self.window) % self.window,
            (self.window - width % self.window) % self.window,
        )
        x = F.pad(x, (0, 0, 0, right, 0, below))
        _, padded_height, padded_width, _ = x.shape
        mask = None
        if self.shift:
            x = torch.roll(x, shifts=(-self.shift, -self.shift), dims=(1, 2))
            mask = self.mask(padded_height, padded_width, x.device)
        windows = window_partition(x, self.window).view(-1, self.window * self.window, channels)
        windows = self.attn(windows, mask).view(-1, self.window, self.window, channels)
        x = window_reverse(windows, self.window, padded_height, padded_width)
        if self.shift:
            x = torch.roll(x, shifts=(self.shift, self.shift), dims=(1, 2))
        x = x[:, :height, :width, :].contiguous()
        x = shortcut + x.view(batch, height * width, channels)
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Four neighbours become one token of twice the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        batch, _, channels = x.shape
        x = x.view(batch, height, width, channels)
        x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        parts = [x[:, i::2, j::2, :] for j in (0, 1) for i in (0, 1)]
        return self.reduction(self.norm(torch.cat(parts, -1).view(batch, -1, 4 * channels)))


class Swin(nn.Module):
    """Two stages of strides 4 and 8, two blocks each, the second of them shifted."""

    def __init__(self, dim: int = 16, window: int = 3) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, kernel_size=4, stride=4)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                SwinBlock(dim * 2**stage, 2 * 2**stage, window, shift) for shift in (0, window // 2)
            )
            for stage in range(2)
        )
        self.merge = PatchMerging(dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim * 2**stage) for stage in range(2))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.patch_embed(x)
        height, width = x.size(2), x.size(3)
        x = x.flatten(2).transpose(1, 2)
        outputs = {}
        for index, (blocks, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            if index:
                x = self.merge(x, height, width)
                height, width = (height + 1) // 2, (width + 1) // 2
            for block in blocks:
                x = block(x, height, width)
            maps = norm(x).view(-1, height, width, x.shape[-1])
            outputs[f"s{index}"] = maps.permute(0, 3, 1, 2).contiguous()
        return outputs


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
