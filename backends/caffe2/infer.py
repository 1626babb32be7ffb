"""The types of `caffe2.*` ops' results: element type and rank always, sizes where they can be told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from detc.ir import Dim, Fresh, IRError, TensorType
from detc.ir.dims import floor_div
from detc.ir.ops import OperandType

from .ops.shape import tensor_type

F32, I32, I64 = torch.float32, torch.int32, torch.int64
_MAX_LEVELS = 32
"""More levels of features than an image of any size can have."""


@dataclass(frozen=True)
class Use:
    """One use of an operator: its operands' types, and its attributes with the defaults filled in."""

    name: str
    operands: Sequence[OperandType]
    attributes: Mapping[str, Any]

    def get(self, index: int) -> TensorType | None:
        """The tensor at a position, None where none is."""
        type = self.operands[index] if index < len(self.operands) else None
        if type is None or isinstance(type, TensorType):
            return type
        raise IRError(f"{self.name}: operand {index} must be a tensor, not {type}")

    def tensor(self, index: int, rank: int | None = None) -> TensorType:
        """The tensor at a position. Raises IRError if there is none, or it has another rank."""
        type = self.get(index)
        if type is None or (rank is not None and type.rank != rank):
            what = "a tensor" if rank is None else f"a tensor of rank {rank}"
            raise IRError(f"{self.name}: operand {index} must be {what}, not {type}")
        return type

    def list(self, index: int = 0) -> tuple[TensorType, ...]:
        """The tensors of a list operand, at least one."""
        types = self.operands[index]
        if not isinstance(types, tuple) or not types:
            raise IRError(f"{self.name}: operand {index} must be a list of tensors, not {types}")
        tensors = [type for type in types if isinstance(type, TensorType)]
        if len(tensors) != len(types):
            raise IRError(f"{self.name}: the operands must be tensors")
        return tuple(tensors)

    def axis(self, value: int, rank: int) -> int:
        """A dimension's number, counted from the end if negative."""
        found = value + rank if value < 0 else value
        if not 0 <= found < rank:
            raise IRError(f"{self.name}: axis {value} of {rank} dimensions")
        return found

    def spatial(self) -> tuple[int, int]:
        """Where height and width are."""
        return (2, 3) if self.attributes["order"] == "NCHW" else (1, 2)


Rule: TypeAlias = Callable[[Use], Sequence[TensorType]]


def product(dims: Sequence[Dim]) -> Dim:
    """How many elements a tensor of these sizes has."""
    total: Dim = 1
    for dim in dims:
        total = total * dim
    return total


def broadcast(use: Use, *shapes: Sequence[Dim]) -> tuple[Dim, ...]:
    """The shape of an elementwise result. Of two sizes that may be equal, the one that is a number."""
    rank = max(map(len, shapes))
    result: list[Dim] = [1] * rank
    for shape in shapes:
        for axis, dim in enumerate(shape, rank - len(shape)):
            known = result[axis]
            if known == 1 or (isinstance(dim, int) and dim != 1 and not isinstance(known, int)):
                result[axis] = dim
            elif isinstance(dim, int) and isinstance(known, int) and dim not in (1, known):
                raise IRError(f"{use.name}: {', '.join(str(list(s)) for s in shapes)} do not broadcast")
    return tuple(result)


# Element by element


def first(use: Use) -> list[TensorType]:
    """As the first operand."""
    return [use.tensor(0)]


def first_of_list(use: Use) -> list[TensorType]:
    return [use.list()[0]]


def _elementwise(use: Use) -> TensorType:
    left, right = use.tensor(0), use.get(1)
    if right is None:
        return left
    axis = use.attributes.get("axis", -1)
    if use.attributes.get("broadcast") and axis >= 0:
        return left
    return left.with_shape(*broadcast(use, left.shape, right.shape))


def elementwise(use: Use) -> list[TensorType]:
    return [_elementwise(use)]


def comparison(use: Use) -> list[TensorType]:
    return [TensorType(torch.bool, _elementwise(use).shape)]


# Layers


def _window(use: Use, size: Dim, index: int, kernel: int, padded: bool = True) -> Dim:
    """The windows along height (index 0) or width (1)."""
    stride = (use.attributes["strides"] or (1, 1))[index]
    pads = use.attributes["pads"] or (0, 0, 0, 0)
    dilation = (use.attributes.get("dilations") or (1, 1))[index]
    reach = dilation * (kernel - 1) + 1
    return floor_div(size + (pads[index] + pads[index + 2] - reach), stride) + 1


def _with_sizes(use: Use, type: TensorType, sizes: Sequence[Dim], channels: Dim | None = None) -> TensorType:
    """Height, width and, if given, channels replaced."""
    shape = list(type.shape)
    for axis, size in zip(use.spatial(), sizes, strict=True):
        shape[axis] = size
    if channels is not None:
        shape[1 if use.attributes["order"] == "NCHW" else 3] = channels
    return type.with_shape(*shape)


def _kernel(use: Use, weight: TensorType) -> list[int]:
    sizes = [weight.shape[axis] for axis in use.spatial()]
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) != 2:
        raise IRError(f"{use.name}: the kernel's size is not known: {weight}")
    return known


def conv(use: Use) -> list[TensorType]:
    data, weight = use.tensor(0, 4), use.tensor(1, 4)
    sizes = [
        _window(use, data.shape[axis], i, kernel)
        for i, (axis, kernel) in enumerate(zip(use.spatial(), _kernel(use, weight), strict=True))
    ]
    return [_with_sizes(use, data, sizes, weight.shape[0])]


def conv_transpose(use: Use) -> list[TensorType]:
    data, weight = use.tensor(0, 4), use.tensor(1, 4)
    strides, adjs = use.attributes["strides"] or (1, 1), use.attributes["adjs"] or (0, 0)
    pads = use.attributes["pads"] or (0, 0, 0, 0)
    sizes = [
        (data.shape[axis] - 1) * strides[i] + (kernel + adjs[i] - pads[i] - pads[i + 2])
        for i, (axis, kernel) in enumerate(zip(use.spatial(), _kernel(use, weight), strict=True))
    ]
    filters = weight.shape[1 if use.attributes["order"] == "NCHW" else 3]
    return [_with_sizes(use, data, sizes, filters * use.attributes["group"])]


def pool(use: Use) -> list[TensorType]:
    data = use.tensor(0, 4)
    if use.attributes["global_pooling"]:
        return [_with_sizes(use, data, (1, 1))]
    kernels = use.attributes["kernels"]
    if len(kernels) != 2:
        raise IRError(f"{use.name}: kernels {kernels}, where two numbers are expected")
    sizes = [_window(use, data.shape[axis], i, kernels[i]) for i, axis in enumerate(use.spatial())]
    return [_with_sizes(use, data, sizes)]


def resize(use: Use) -> list[TensorType]:
    data = use.tensor(0, 4)
    axes = (2, 3) if use.attributes.get("order", "NCHW") == "NCHW" else (1, 2)
    shape = list(data.shape)
    for axis, name in zip(axes, ("height", "width"), strict=True):
        scale = use.attributes[f"{name}_scale"]
        size = shape[axis]
        if use.get(1) is not None or scale <= 0:
            shape[axis] = Fresh(name)
        elif scale == int(scale):
            shape[axis] = size * int(scale)
        else:
            shape[axis] = int(size * scale) if isinstance(size, int) else Fresh(name)
    return [data.with_shape(*shape)]


def pad_image(use: Use) -> list[TensorType]:
    data, pads = use.tensor(0, 4), use.attributes["pads"] or (0, 0, 0, 0)
    sizes = [data.shape[axis] + (pads[i] + pads[i + 2]) for i, axis in enumerate(use.spatial())]
    return [_with_sizes(use, data, sizes)]


def fc(use: Use) -> list[TensorType]:
    data, weight = use.tensor(0), use.tensor(1)
    rows = data.shape[: use.attributes["axis"] % (data.rank + 1)]
    filters = product(weight.shape[: use.attributes["axis_w"] % (weight.rank + 1)])
    return [data.with_shape(*rows, filters)]


def resize_nearest_gradient(use: Use) -> list[TensorType]:
    gradient, data = use.tensor(0, 4), use.tensor(1, 4)
    return [gradient.with_shape(*gradient.shape[:2], *data.shape[2:])]


# Detection


def generate_proposals(use: Use) -> list[TensorType]:
    use.tensor(0, 4), use.tensor(1, 4), use.tensor(2, 2)
    rows = Fresh("rois")
    return [TensorType(F32, (rows, use.tensor(3, 2).shape[1] + 1)), TensorType(F32, (rows,))]


def collect(use: Use) -> list[TensorType]:
    return [TensorType(F32, (Fresh("rois"), use.list()[0].shape[1]))]


def _levels(use: Use) -> range:
    least, most = use.attributes["roi_min_level"], use.attributes["roi_max_level"]
    # A stranger's net may ask for any number of results.
    if not 0 <= most - least < _MAX_LEVELS:
        raise IRError(f"{use.name}: roi_max_level {most} for roi_min_level {least}")
    return range(least, most + 1)


def distribute(use: Use) -> list[TensorType]:
    rois = use.tensor(0, 2)
    # Rois of one image without its number get one.
    dealt = [TensorType(F32, (Fresh(f"p{level}_rois"), 5)) for level in _levels(use)]
    return [*dealt, TensorType(I32, (rois.shape[0],))]


def collect_and_distribute(use: Use) -> list[TensorType]:
    (rois,) = collect(use)
    dealt = [TensorType(F32, (Fresh(f"p{level}_rois"), 5)) for level in _levels(use)]
    return [rois, *dealt, TensorType(I32, (rois.shape[0],))]


def bbox_transform(use: Use) -> list[TensorType]:
    use.tensor(0, 2)
    return [use.tensor(1, 2), TensorType(F32, (use.tensor(2, 2).shape[0],))]


def box_with_nms_limit(use: Use) -> list[TensorType]:
    scores, splits = use.tensor(0), use.get(2)
    found, images = Fresh("detections"), splits.shape[0] if splits else 1
    return [
        TensorType(F32, (found,)),
        TensorType(F32, (found, 5 if use.attributes["rotated"] else 4)),
        TensorType(F32, (found,)),
        TensorType(F32, (images,)),
        TensorType(I32, (found,)),
        TensorType(I32, (images, scores.shape[1])),
    ]


def roi_align(use: Use) -> list[TensorType]:
    data, rois = use.tensor(0, 4), use.tensor(1, 2)
    pooled = _with_sizes(use, data, (use.attributes["pooled_h"], use.attributes["pooled_w"]))
    return [pooled.with_shape(rois.shape[0], *pooled.shape[1:])]


def batch_permutation(use: Use) -> list[TensorType]:
    data = use.tensor(0)
    # There are as many indices as rows, and they often know how many that are.
    return [data.with_shape(*use.tensor(1, 1).shape, *data.shape[1:])]


def heatmap_max_keypoint(use: Use) -> list[TensorType]:
    maps = use.tensor(0, 4)
    return [TensorType(F32, (maps.shape[0], 4, maps.shape[1]))]


def segment_ids(use: Use) -> list[TensorType]:
    use.tensor(0, 1)
    return [TensorType(I32, (Fresh("rows"),))]


# Fills


def constant_fill(use: Use) -> list[TensorType]:
    like, wanted = use.get(0), use.attributes["dtype"]
    if wanted is None:
        wanted = "INT64" if isinstance(use.attributes["value"], int) else "FLOAT"
    dtype = tensor_type(wanted)
    shape: list[Dim] = list(use.attributes["shape"])
    if like is not None and use.attributes["input_as_shape"]:
        length = use.tensor(0, 1).shape[0]
        if not isinstance(length, int):
            raise IRError(f"{use.name}: the rank is not known")
        shape = [Fresh(f"size_{i}") for i in range(length)]
    elif like is not None:
        shape = list(like.shape)
    return [TensorType(dtype, (*shape, *use.attributes["extra_shape"]))]


def matmul(use: Use) -> list[TensorType]:
    left, right = use.tensor(0), use.tensor(1)
    if left.rank < 2 or right.rank < 2:
        raise IRError(f"{use.name}: {left} and {right} are no matrices")
    rows = left.shape[-1 if use.attributes["trans_a"] else -2]
    columns = right.shape[-2 if use.attributes["trans_b"] else -1]
    return [left.with_shape(*broadcast(use, left.shape[:-2], right.shape[:-2]), rows, columns)]
