"""Backbones with windowed attention, in the styles of the detectron2 projects that have them, cut down in size.

`SwinLike`: windows of a map that is padded to whole windows, every second block shifted, with a mask made from the
sizes once per stage; merging of patches, which pads odd maps. `ViTDetLike`: a plain transformer with windowed and global
blocks, relative positions that are resized to the map, an absolute position embedding resized likewise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detc.frontend.detectron2 import Backbone


def to_windows(x: Tensor, size: int) -> Tensor:
    """[N,H,W,C] -> [N * windows, size, size, C]."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // size, size, width // size, size, channels)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, size, size, channels)


def from_windows(windows: Tensor, size: int, height: int, width: int) -> Tensor:
    """The inverse of `to_windows`, with the number of images computed as many networks do."""
    batch = int(windows.shape[0] / (height * width / size / size))
    x = windows.view(batch, height // size, width // size, size, size, -1)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(batch, height, width, -1)


class WindowAttention(nn.Module):
    """Attention within a window, with a learned bias for each relative position."""

    def __init__(self, dim: int, size: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.bias_table = nn.Parameter(torch.randn((2 * size - 1) ** 2, heads) * 0.5)
        coords = torch.stack(torch.meshgrid([torch.arange(size), torch.arange(size)], indexing="ij")).flatten(
            1
        )
        offsets = (coords[:, :, None] - coords[:, None, :]).permute(1, 2, 0).contiguous()
        offsets[:, :, 0] += size - 1
        offsets[:, :, 1] += size - 1
        offsets[:, :, 0] *= 2 * size - 1
        self.register_buffer("position_index", offsets.sum(-1))
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        count, tokens, channels = x.shape
        qkv = self.qkv(x).reshape(count, tokens, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = (q * self.scale) @ k.transpose(-2, -1)
        bias = self.bias_table[self.position_index.view(-1)].view(tokens, tokens, -1)  # type: ignore[operator]
        scores = scores + bias.permute(2, 0, 1).contiguous().unsqueeze(0)
        if mask is not None:
            windows = mask.shape[0]
            scores = scores.view(count // windows, windows, self.heads, tokens, tokens)
            scores = scores + mask.unsqueeze(1).unsqueeze(0)
            scores = scores.view(-1, self.heads, tokens, tokens)
        x = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(count, tokens, channels)
        return self.proj(x)


class SwinBlock(nn.Module):
    """Attention in windows, shifted if asked, and a perceptron. The stage tells the map's size and the mask."""

    def __init__(self, dim: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.height = self.width = 0

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, tokens, channels = x.shape
        height, width = self.height, self.width
        assert tokens == height * width, "tokens that are no map"
        shortcut = x
        x = self.norm1(x).view(batch, height, width, channels)
        right = (self.window - width % self.window) % self.window
        below = (self.window - height % self.window) % self.window
        x = F.pad(x, (0, 0, 0, right, 0, below))
        _, padded_height, padded_width, _ = x.shape
        if self.shift > 0:
            x = torch.roll(x, shifts=(-self.shift, -self.shift), dims=(1, 2))
        windows = to_windows(x, self.window).view(-1, self.window * self.window, channels)
        windows = self.attn(windows, mask=mask if self.shift > 0 else None)
        windows = windows.view(-1, self.window, self.window, channels)
        x = from_windows(windows, self.window, padded_height, padded_width)
        if self.shift > 0:
            x = torch.roll(x, shifts=(self.shift, self.shift), dims=(1, 2))
        if right > 0 or below > 0:
            x = x[:, :height, :width, :].contiguous()
        x = shortcut + x.view(batch, height * width, channels)
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Four neighbours become one token of twice the channels; an odd map is padded."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        batch, _, channels = x.shape
        x = x.view(batch, height, width, channels)
        if (height % 2 == 1) or (width % 2 == 1):
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        parts = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        return self.reduction(self.norm(torch.cat(parts, -1).view(batch, -1, 4 * channels)))


class SwinStage(nn.Module):
    """Some blocks of one resolution, and the way down to the next."""

    def __init__(self, dim: int, depth: int, heads: int, window: int, last: bool) -> None:
        super().__init__()
        self.window, self.shift = window, window // 2
        self.blocks = nn.ModuleList(
            SwinBlock(dim, heads, window, self.shift if i % 2 else 0) for i in range(depth)
        )
        self.downsample = None if last else PatchMerging(dim)

    def forward(self, x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, int, int]:
        padded_height = int(np.ceil(height / self.window)) * self.window
        padded_width = int(np.ceil(width / self.window)) * self.window
        regions = torch.zeros((1, padded_height, padded_width, 1), device=x.device)
        slices = (slice(0, -self.window), slice(-self.window, -self.shift), slice(-self.shift, None))
        count = 0
        for rows in slices:
            for columns in slices:
                regions[:, rows, columns, :] = count
                count += 1
        windows = to_windows(regions, self.window).view(-1, self.window * self.window)
        mask = windows.unsqueeze(1) - windows.unsqueeze(2)
        mask = mask.masked_fill(mask != 0, -100.0).masked_fill(mask == 0, 0.0)
        for block in self.blocks:
            block.height, block.width = height, width  # type: ignore[assignment]
            x = block(x, mask)
        if self.downsample is None:
            return x, x, height, width
        return x, self.downsample(x, height, width), (height + 1) // 2, (width + 1) // 2


class SwinLike(Backbone):
    """Stages of strides 4, 8, ...: a map `s0`, `s1`, ... of each."""

    def __init__(
        self,
        dim: int = 16,
        depths: tuple[int, ...] = (2, 2),
        window: int = 7,
        divisibility: int = 4,
    ) -> None:
        super().__init__()
        self.patch_embed, self.patch_norm = nn.Conv2d(3, dim, 4, 4), nn.LayerNorm(dim)
        self.stages = nn.ModuleList(
            SwinStage(dim * 2**i, depth, 2 * 2**i, window, last=i == len(depths) - 1)
            for i, depth in enumerate(depths)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim * 2**i) for i in range(len(depths)))
        self.laterals = nn.ModuleList(nn.Conv2d(dim * 2**i, 24, 1) for i in range(len(depths)))
        self.divisibility = divisibility
        self._out_features = [f"s{i}" for i in range(len(depths))]
        self._out_feature_channels = {f"s{i}": 24 for i in range(len(depths))}
        self._out_feature_strides = {f"s{i}": 4 * 2**i for i in range(len(depths))}

    @property
    def size_divisibility(self) -> int:
        return self.divisibility

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        _, _, height, width = x.size()
        if width % 4 != 0:
            x = F.pad(x, (0, 4 - width % 4))
        if height % 4 != 0:
            x = F.pad(x, (0, 0, 0, 4 - height % 4))
        x = self.patch_embed(x)
        height, width = x.size(2), x.size(3)
        x = self.patch_norm(x.flatten(2).transpose(1, 2))
        outputs = {}
        for index, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            out_height, out_width = height, width
            found, x, height, width = stage(x, height, width)
            maps = norm(found).view(-1, out_height, out_width, found.shape[-1])
            outputs[f"s{index}"] = self.laterals[index](maps.permute(0, 3, 1, 2).contiguous())
        return outputs


def partition(x: Tensor, size: int) -> tuple[Tensor, tuple[int, int]]:
    """[N,H,W,C] -> windows of the map padded as needed, and the padded size."""
    batch, height, width, channels = x.shape
    below, right = (size - height % size) % size, (size - width % size) % size
    if below > 0 or right > 0:
        x = F.pad(x, (0, 0, 0, right, 0, below))
    padded = height + below, width + right
    x = x.view(batch, padded[0] // size, size, padded[1] // size, size, channels)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, size, size, channels), padded


def unpartition(windows: Tensor, size: int, padded: tuple[int, int], true: tuple[int, int]) -> Tensor:
    """The inverse of `partition`."""
    batch = windows.shape[0] // (padded[0] * padded[1] // size // size)
    x = windows.view(batch, padded[0] // size, padded[1] // size, size, size, -1)
    x = x.permute(0, 1, 3, 2, 4, 5).contiguous().view(batch, padded[0], padded[1], -1)
    if padded[0] > true[0] or padded[1] > true[1]:
        x = x[:, : true[0], : true[1], :].contiguous()
    return x


def relative_positions(queries: int, keys: int, table: Tensor) -> Tensor:
    """The rows of the table for each query and key along one side, the table resized where it does not fit."""
    distances = int(2 * max(queries, keys) - 1)
    if table.shape[0] != distances:
        resized = F.interpolate(
            table.reshape(1, table.shape[0], -1).permute(0, 2, 1), size=distances, mode="linear"
        )
        table = resized.reshape(-1, distances).permute(1, 0)
    at = torch.arange(queries)[:, None] * max(keys / queries, 1.0)
    of = torch.arange(keys)[None, :] * max(queries / keys, 1.0)
    return table[((at - of) + (keys - 1) * max(queries / keys, 1.0)).long()]


class DecomposedAttention(nn.Module):
    """Attention over a map, with learned terms for the distance in rows and in columns."""

    def __init__(self, dim: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.randn(2 * side - 1, dim // heads) * 0.5)
        self.rel_pos_w = nn.Parameter(torch.randn(2 * side - 1, dim // heads) * 0.5)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, _ = x.shape
        qkv = self.qkv(x).reshape(batch, height * width, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.reshape(3, batch * self.heads, height * width, -1).unbind(0)
        scores = (q * self.scale) @ k.transpose(-2, -1)
        rows = relative_positions(height, height, self.rel_pos_h)
        columns = relative_positions(width, width, self.rel_pos_w)
        of_query = q.reshape(batch * self.heads, height, width, -1)
        by_row = torch.einsum("bhwc,hkc->bhwk", of_query, rows)
        by_column = torch.einsum("bhwc,wkc->bhwk", of_query, columns)
        scores = scores.view(-1, height, width, height, width)
        scores = scores + by_row[:, :, :, :, None] + by_column[:, :, :, None, :]
        scores = scores.view(-1, height * width, height * width).softmax(dim=-1)
        x = (scores @ v).view(batch, self.heads, height, width, -1).permute(0, 2, 3, 1, 4)
        return self.proj(x.reshape(batch, height, width, -1))


class ViTDetBlock(nn.Module):
    """Attention in windows, or over the whole map if the window is 0, and a perceptron."""

    def __init__(self, dim: int, heads: int, window: int, side: int) -> None:
        super().__init__()
        self.window = window
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = DecomposedAttention(dim, heads, window or side)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.norm1(x)
        if self.window > 0:
            height, width = x.shape[1], x.shape[2]
            x, padded = partition(x, self.window)
        x = self.attn(x)
        if self.window > 0:
            x = unpartition(x, self.window, padded, (height, width))
        x = shortcut + x
        return x + self.mlp(self.norm2(x))


def absolute_positions(table: Tensor, size: tuple[int, int]) -> Tensor:
    """[1, 1 + S * S, C], the first for a class token -> [1,H,W,C]."""
    table = table[:, 1:]
    side = int(np.sqrt(table.shape[1]))
    assert side * side == table.shape[1]
    if side != size[0] or side != size[1]:
        maps = table.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        maps = F.interpolate(maps, size=size, mode="bicubic", align_corners=False)
        return maps.permute(0, 2, 3, 1)
    return table.reshape(1, size[0], size[1], -1)


class ViTDetLike(Backbone):
    """Blocks of stride 8; `s0` of stride 4 is made of the last map by a transposed convolution."""

    def __init__(
        self, dim: int = 24, heads: int = 4, windows: tuple[int, ...] = (5, 0), side: int = 8
    ) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, 8, 8)
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + 6 * 6, dim))
        self.blocks = nn.ModuleList(ViTDetBlock(dim, heads, window, side) for window in windows)
        self.up = nn.ConvTranspose2d(dim, dim, 2, 2)
        self._out_features = ["s0", "s1"]
        self._out_feature_channels = {"s0": dim, "s1": dim}
        self._out_feature_strides = {"s0": 4, "s1": 8}

    @property
    def size_divisibility(self) -> int:
        return 8

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.patch_embed(x).permute(0, 2, 3, 1)
        x = x + absolute_positions(self.pos_embed, (x.shape[1], x.shape[2]))
        for block in self.blocks:
            x = block(x)
        maps = x.permute(0, 3, 1, 2)
        return {"s0": self.up(maps), "s1": maps}


BACKBONES: dict[str, Any] = {"swin": SwinLike, "vitdet": ViTDetLike}
