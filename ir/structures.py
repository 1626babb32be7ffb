"""The containers that detectors take and return, with detectron2's names and behaviour.

Boxes are float32 matrices in absolute pixels of the image they belong to: `Boxes` (x0, y0, x1, y1) and
`RotatedBoxes` (centre x, centre y, width, height, angle in degrees, counter-clockwise). `Instances` holds
fields of equal length for one image, `ImageList` a padded batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .instances import Index, Instances

__all__ = [
    "Boxes",
    "ImageList",
    "Instances",
    "Keypoints",
    "RotatedBoxes",
    "pairwise_intersection",
    "pairwise_iou",
]

_B = TypeVar("_B", bound="_BoxArray")


class _BoxArray:
    """What `Boxes` and `RotatedBoxes` share: a float32 matrix with one box in each row."""

    box_dim: int
    tensor: Tensor

    def __init__(self, tensor: Tensor | np.ndarray | Sequence[Sequence[float]]) -> None:
        tensor = torch.as_tensor(tensor, dtype=torch.float32)
        if tensor.numel() == 0:
            tensor = tensor.reshape(0, self.box_dim)
        if tensor.dim() != 2 or tensor.shape[1] != self.box_dim:
            raise ValueError(
                f"{type(self).__name__} takes a matrix of {self.box_dim} columns, not {tuple(tensor.shape)}"
            )
        self.tensor = tensor

    def clone(self: _B) -> _B:
        """A copy that shares no memory with this one."""
        return type(self)(self.tensor.clone())

    def to(self: _B, device: torch.device | str) -> _B:
        """The same boxes on `device`; boxes are always float32, so there is no cast."""
        return type(self)(self.tensor.to(device=device))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __getitem__(self: _B, item: Index) -> _B:
        """Select boxes; an int gives one box, still as a matrix of one row."""
        if isinstance(item, int):
            return type(self)(self.tensor[item].view(1, -1))
        selected = self.tensor[item]
        if selected.dim() != 2:
            raise IndexError(f"indexing {type(self).__name__} with {item!r} gives no matrix")
        return type(self)(selected)

    def __len__(self) -> int:
        return int(self.tensor.shape[0])

    def __iter__(self) -> Iterator[Tensor]:
        """Yield each box as a vector."""
        yield from self.tensor

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.tensor})"

    @classmethod
    def cat(cls: type[_B], boxes_list: Sequence[_B]) -> _B:
        """All boxes of the list in one, in order; an empty list gives no boxes."""
        if not all(isinstance(boxes, cls) for boxes in boxes_list):
            raise TypeError(f"{cls.__name__}.cat takes a list of {cls.__name__}")
        if len(boxes_list) == 0:
            return cls(torch.empty(0, cls.box_dim))
        return cls(torch.cat([boxes.tensor for boxes in boxes_list], dim=0))


class Boxes(_BoxArray):
    """Axis-aligned boxes.

    Attributes:
        tensor: float32[N, 4], each row x0, y0, x1, y1 in pixels.
    """

    box_dim = 4

    def area(self) -> Tensor:
        """float32[N], square pixels."""
        x0, y0, x1, y1 = self.tensor.unbind(1)
        return (x1 - x0) * (y1 - y0)

    def clip(self, box_size: tuple[int, int]) -> None:
        """Limit, in place, x to [0, width] and y to [0, height]; `box_size` is (height, width).

        Raises:
            ValueError: a coordinate is infinite or NaN.
        """
        if not torch.isfinite(self.tensor).all():
            raise ValueError("cannot clip boxes with infinite or NaN coordinates")
        height, width = box_size
        x0, y0, x1, y1 = self.tensor.unbind(1)
        self.tensor = torch.stack(
            (
                x0.clamp(min=0, max=width),
                y0.clamp(min=0, max=height),
                x1.clamp(min=0, max=width),
                y1.clamp(min=0, max=height),
            ),
            dim=-1,
        )

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """bool[N]: whether both sides are longer than `threshold` pixels."""
        x0, y0, x1, y1 = self.tensor.unbind(1)
        return (x1 - x0 > threshold) & (y1 - y0 > threshold)

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: int = 0) -> Tensor:
        """bool[N]: whether a box lies in the image (height, width), or `boundary_threshold` pixels beyond."""
        height, width = box_size
        x0, y0, x1, y1 = self.tensor.unbind(1)
        return (
            (x0 >= -boundary_threshold)
            & (y0 >= -boundary_threshold)
            & (x1 < width + boundary_threshold)
            & (y1 < height + boundary_threshold)
        )

    def get_centers(self) -> Tensor:
        """float32[N, 2], each row x, y."""
        return (self.tensor[:, :2] + self.tensor[:, 2:]) / 2

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Multiply x and y coordinates in place."""
        self.tensor[:, 0::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y


def pairwise_intersection(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """float32[N, M]: the area that each of N boxes shares with each of M."""
    top_left = torch.max(boxes1.tensor[:, None, :2], boxes2.tensor[:, :2])
    bottom_right = torch.min(boxes1.tensor[:, None, 2:], boxes2.tensor[:, 2:])
    return (bottom_right - top_left).clamp(min=0).prod(dim=2)


def pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """float32[N, M]: intersection over union of each pair; 0 where they do not meet."""
    intersection = pairwise_intersection(boxes1, boxes2)
    union = boxes1.area()[:, None] + boxes2.area() - intersection
    return torch.where(intersection > 0, intersection / union, torch.zeros_like(intersection))


class RotatedBoxes(_BoxArray):
    """Rotated boxes.

    Attributes:
        tensor: float32[N, 5], each row centre x, centre y, width, height in pixels, and the angle in degrees
            by which the box is turned counter-clockwise (as seen, with y pointing down) about its centre.
    """

    box_dim = 5

    def area(self) -> Tensor:
        """float32[N], square pixels."""
        return self.tensor[:, 2] * self.tensor[:, 3]

    def normalize_angles(self) -> None:
        """Bring the angles, in place, into [-180, 180)."""
        angles = (self.tensor[:, 4] + 180.0) % 360.0 - 180.0
        self.tensor = torch.cat((self.tensor[:, :4], angles[:, None]), dim=1)

    def clip(self, box_size: tuple[int, int], clip_angle_threshold: float = 1.0) -> None:
        """Normalize the angles, and clip the nearly upright boxes to the image (height, width), in place.

        Only boxes within `clip_angle_threshold` degrees of 0 are clipped: there is no one way to clip the
        others. A side never grows by the rounding of this.
        """
        height, width = box_size
        self.normalize_angles()
        x, y, w, h, angle = self.tensor.unbind(1)
        x0, x1 = (x - w / 2.0).clamp(min=0, max=width), (x + w / 2.0).clamp(min=0, max=width)
        y0, y1 = (y - h / 2.0).clamp(min=0, max=height), (y + h / 2.0).clamp(min=0, max=height)
        clipped = torch.stack(
            ((x0 + x1) / 2.0, (y0 + y1) / 2.0, torch.min(w, x1 - x0), torch.min(h, y1 - y0), angle), dim=1
        )
        upright = angle.abs() <= clip_angle_threshold
        self.tensor = torch.where(upright[:, None], clipped, self.tensor)

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """bool[N]: whether both sides are longer than `threshold` pixels."""
        return (self.tensor[:, 2] > threshold) & (self.tensor[:, 3] > threshold)

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: int = 0) -> Tensor:
        """bool[N]: whether a box's upright bounding rectangle lies in the image (height, width)."""
        height, width = box_size
        x, y, w, h, angle = self.tensor.unbind(1)
        theta = angle * math.pi / 180.0
        cos, sin = torch.cos(theta).abs(), torch.sin(theta).abs()
        dx, dy = (cos * w + sin * h) / 2.0, (cos * h + sin * w) / 2.0
        return (
            (x - dx >= -boundary_threshold)
            & (y - dy >= -boundary_threshold)
            & (x + dx < width + boundary_threshold)
            & (y + dy < height + boundary_threshold)
        )

    def get_centers(self) -> Tensor:
        """float32[N, 2], each row x, y."""
        return self.tensor[:, :2]

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Resize the plane that the boxes lie in, in place.

        Unequal factors shear a rotated rectangle into a parallelogram; as in detectron2 the box becomes the
        rectangle with the parallelogram's side lengths whose height keeps the direction of the
        parallelogram's.
        """
        x, y, w, h, angle = self.tensor.unbind(1)
        theta = angle * math.pi / 180.0
        cos, sin = torch.cos(theta), torch.sin(theta)
        self.tensor = torch.stack(
            (
                x * scale_x,
                y * scale_y,
                w * torch.sqrt((scale_x * cos) ** 2 + (scale_y * sin) ** 2),
                h * torch.sqrt((scale_x * sin) ** 2 + (scale_y * cos) ** 2),
                torch.atan2(scale_x * sin, scale_y * cos) * 180 / math.pi,
            ),
            dim=1,
        )


class Keypoints:
    """Annotated keypoints: float32[N, K, 3], each x, y in pixels and visibility (0 none, 1 hidden, 2
    visible).
    """

    tensor: Tensor

    def __init__(self, keypoints: Tensor | np.ndarray | Sequence[Any]) -> None:
        tensor = torch.as_tensor(keypoints, dtype=torch.float32)
        if tensor.dim() != 3 or tensor.shape[2] != 3:
            raise ValueError(f"Keypoints takes the shape (N, K, 3), not {tuple(tensor.shape)}")
        self.tensor = tensor

    def to(self, *args: Any, **kwargs: Any) -> Keypoints:
        return Keypoints(self.tensor.to(*args, **kwargs))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __getitem__(self, item: Index) -> Keypoints:
        selected = self.tensor[item]
        return Keypoints(selected[None] if isinstance(item, int) else selected)

    def __len__(self) -> int:
        return int(self.tensor.shape[0])

    def __repr__(self) -> str:
        return f"Keypoints(num_instances={len(self)})"

    @staticmethod
    def cat(keypoints_list: Sequence[Keypoints]) -> Keypoints:
        """All keypoints of a list that is not empty, in order."""
        return Keypoints(torch.cat([keypoints.tensor for keypoints in keypoints_list], dim=0))


class ImageList:
    """A batch of images of unlike sizes in one tensor, each at the top left, the rest padding.

    Attributes:
        tensor: [N, H, W] or [N, C, H, W].
        image_sizes: (height, width) of each image without padding.
    """

    def __init__(self, tensor: Tensor, image_sizes: list[tuple[int, int]]) -> None:
        self.tensor = tensor
        self.image_sizes = image_sizes

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, idx: int) -> Tensor:
        """One image without its padding."""
        height, width = self.image_sizes[idx]
        return self.tensor[idx, ..., :height, :width]

    def to(self, *args: Any, **kwargs: Any) -> ImageList:
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    @staticmethod
    def from_tensors(
        tensors: Sequence[Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: dict[str, int] | None = None,
    ) -> ImageList:
        """Pad images at the right and the bottom to one size and stack them.

        Args:
            tensors: [..., H_i, W_i] each, alike but for height and width; at least one.
            size_divisibility: the common height and width are rounded up to multiples of this; 0 and 1 round
                nothing.
            pad_value: what the padding is filled with.
            padding_constraints: a backbone's `padding_constraints`: "size_divisibility" overrides the
                argument, "square_size" above 0 fixes height and width (they are still rounded up).
        """
        if len(tensors) == 0:
            raise ValueError("ImageList.from_tensors takes at least one image")
        if any(tensor.shape[:-2] != tensors[0].shape[:-2] for tensor in tensors):
            raise ValueError(f"images differ in more than size: {[tuple(t.shape) for t in tensors]}")
        image_sizes = [(int(tensor.shape[-2]), int(tensor.shape[-1])) for tensor in tensors]
        height, width = (max(sizes) for sizes in zip(*image_sizes, strict=True))
        constraints = padding_constraints or {}
        if constraints.get("square_size", 0) > 0:
            height = width = constraints["square_size"]
        divisor = max(constraints.get("size_divisibility", size_divisibility), 1)
        height, width = (math.ceil(size / divisor) * divisor for size in (height, width))
        padded = [
            F.pad(tensor, (0, width - w, 0, height - h), value=pad_value)
            for tensor, (h, w) in zip(tensors, image_sizes, strict=True)
        ]
        return ImageList(torch.stack(padded).contiguous(), image_sizes)
