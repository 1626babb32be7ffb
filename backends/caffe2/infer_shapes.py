"""The types of the results of `caffe2.*` ops that reshape, join, cut, gather and reduce; and the table of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from detc.ir import Dim, Fresh, IRError, TensorType
from detc.ir.dims import floor_div

from . import infer
from .infer import I32, I64, Rule, Use, broadcast, product
from .ops.shape import tensor_type


def _channel_axis(use: Use) -> int:
    """The `axis` of Concat and Split, by default the channels'."""
    axis: int | None = use.attributes["axis"]
    if axis is None:
        axis = 1 if use.attributes["order"] == "NCHW" else 3
    return axis


def concat(use: Use) -> list[TensorType]:
    parts = use.list()
    sizes = TensorType(I32, (len(parts),))
    head, rank = parts[0], parts[0].rank + bool(use.attributes["add_axis"])
    if any(part.dtype != head.dtype or part.rank != head.rank for part in parts):
        raise IRError(f"{use.name}: {', '.join(map(str, parts))} do not fit")
    axis = use.axis(_channel_axis(use), rank)
    if use.attributes["add_axis"]:
        return [head.with_shape(*head.shape[:axis], len(parts), *head.shape[axis:]), sizes]
    joined: Dim = 0
    for part in parts:
        joined = joined + part.shape[axis]
    shape = [
        joined
        if i == axis
        else next((p.shape[i] for p in parts if isinstance(p.shape[i], int)), head.shape[i])
        for i in range(rank)
    ]
    return [head.with_shape(*shape), sizes]


def split(use: Use) -> list[TensorType]:
    data, count = use.tensor(0), int(use.attributes["output_count"])
    axis = use.axis(_channel_axis(use), data.rank)
    sizes: list[Dim] = list(use.attributes["split"])
    if use.get(1) is not None:
        sizes = [Fresh(f"part_{i}") for i in range(count)]
    elif not sizes:
        sizes = [floor_div(data.shape[axis], count)] * count
    if len(sizes) != count:
        raise IRError(f"{use.name}: {len(sizes)} sizes for {count} results")
    around = (data.shape[:axis], data.shape[axis + 1 :])
    if use.attributes["add_axis"]:
        return [data.with_shape(*around[0], *around[1])] * count
    return [data.with_shape(*around[0], size, *around[1]) for size in sizes]


def slice_(use: Use) -> list[TensorType]:
    data = use.tensor(0)
    if use.get(1) is not None:
        return [data.with_shape(*(Fresh(f"size_{i}") for i in range(data.rank)))]
    starts, ends = use.attributes["starts"], use.attributes["ends"]
    if len(starts) != len(ends) or len(starts) > data.rank:
        raise IRError(f"{use.name}: from {starts} to {ends} of {data}")
    shape = list(data.shape)
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        size = shape[i]
        if isinstance(size, int):
            low, high = (min(x if x >= 0 else size + 1 + x, size) for x in (start, end))
            shape[i] = max(high - low, 0)
        elif (start, end) != (0, -1):
            shape[i] = Fresh(f"size_{i}")
    return [data.with_shape(*shape)]


def transpose(use: Use) -> list[TensorType]:
    data = use.tensor(0)
    axes = use.attributes["axes"] or tuple(range(data.rank))[::-1]
    if sorted(axes) != list(range(data.rank)):
        raise IRError(f"{use.name}: axes {axes} of {data}")
    return [data.with_shape(*(data.shape[axis] for axis in axes))]


def reshape(use: Use) -> list[TensorType]:
    data, shape = use.tensor(0), use.get(1)
    old = TensorType(I64, (data.rank,))
    if shape is not None:
        length = use.tensor(1, 1).shape[0]
        if not isinstance(length, int):
            raise IRError(f"{use.name}: the rank of the result is not known")
        return [data.with_shape(*(Fresh(f"size_{i}") for i in range(length))), old]
    wanted = use.attributes["shape"]
    sizes: list[Dim] = [
        data.shape[i] if size == 0 and i < data.rank else size for i, size in enumerate(wanted)
    ]
    if -1 in wanted:
        left = wanted.index(-1)
        sizes[left] = floor_div(product(data.shape), product(sizes[:left] + sizes[left + 1 :]))
    return [data.with_shape(*sizes), old]


def flatten(use: Use) -> list[TensorType]:
    data, axis = use.tensor(0), use.attributes["axis"]
    return [data.with_shape(product(data.shape[:axis]), product(data.shape[axis:]))]


def squeeze(use: Use) -> list[TensorType]:
    data, dims = use.tensor(0), use.attributes["dims"]
    return [data.with_shape(*(size for i, size in enumerate(data.shape) if i not in dims))]


def expand_dims(use: Use) -> list[TensorType]:
    data = use.tensor(0)
    shape = list(data.shape)
    for dim in sorted(use.attributes["dims"]):
        if not 0 <= dim <= len(shape):
            raise IRError(f"{use.name}: dimensions {use.attributes['dims']} into {data}")
        shape.insert(dim, 1)
    return [data.with_shape(*shape)]


def shape_(use: Use) -> list[TensorType]:
    return [TensorType(I64, (len(use.attributes["axes"]) or use.tensor(0).rank,))]


def cast(use: Use) -> list[TensorType]:
    return [TensorType(tensor_type(use.attributes["to"]), use.tensor(0).shape)]


def gather(use: Use) -> list[TensorType]:
    data, indices = use.tensor(0), use.tensor(1)
    axis = use.axis(use.attributes["axis"], data.rank)
    return [data.with_shape(*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])]


def top_k(use: Use) -> list[TensorType]:
    data = use.tensor(0)
    axis = use.axis(use.attributes["axis"], data.rank)
    best = data.with_shape(*data.shape[:axis], use.attributes["k"], *data.shape[axis + 1 :])
    return [best, TensorType(I64, best.shape)]


def expand(use: Use) -> list[TensorType]:
    data, length = use.tensor(0), use.tensor(1, 1).shape[0]
    if not isinstance(length, int):
        raise IRError(f"{use.name}: the rank of the result is not known")
    sizes: list[Dim] = [Fresh(f"size_{i}") for i in range(max(length, data.rank))]
    return [data.with_shape(*broadcast(use, sizes, data.shape))]


def tile(use: Use) -> list[TensorType]:
    data = use.tensor(0)
    axis = use.axis(use.attributes["axis"], data.rank)
    shape = list(data.shape)
    shape[axis] = shape[axis] * use.attributes["tiles"]
    return [data.with_shape(*shape)]


def _reduced(use: Use, axes: Sequence[int], dtype: torch.dtype) -> list[TensorType]:
    data = use.tensor(0)
    dims = [use.axis(axis, data.rank) for axis in axes]
    if use.attributes["keepdims"]:
        return [TensorType(dtype, tuple(1 if i in dims else size for i, size in enumerate(data.shape)))]
    return [TensorType(dtype, tuple(size for i, size in enumerate(data.shape) if i not in dims))]


def reduce(use: Use) -> list[TensorType]:
    data = use.tensor(0)
    return _reduced(use, use.attributes["axes"] or range(data.rank), data.dtype)


def arg_max(use: Use) -> list[TensorType]:
    return _reduced(use, (use.attributes["axis"],), I64)


RULES: Final[dict[str, Rule]] = {
    "GenerateProposals": infer.generate_proposals,
    "GenerateProposalsCPP": infer.generate_proposals,
    "CollectRpnProposals": infer.collect,
    "DistributeFpnProposals": infer.distribute,
    "CollectAndDistributeFpnRpnProposals": infer.collect_and_distribute,
    "BBoxTransform": infer.bbox_transform,
    "BoxWithNMSLimit": infer.box_with_nms_limit,
    "RoIAlign": infer.roi_align,
    "RoIAlignRotated": infer.roi_align,
    "BatchPermutation": infer.batch_permutation,
    "HeatmapMaxKeypoint": infer.heatmap_max_keypoint,
    "LengthsToSegmentIds": infer.segment_ids,
    "ResizeNearestGradient": infer.resize_nearest_gradient,
    "Conv": infer.conv,
    "ConvTranspose": infer.conv_transpose,
    "FC": infer.fc,
    "MaxPool": infer.pool,
    "AveragePool": infer.pool,
    "ResizeNearest": infer.resize,
    "UpsampleBilinear": infer.resize,
    "PadImage": infer.pad_image,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow"), infer.elementwise),
    **dict.fromkeys(("EQ", "LT", "LE", "GT", "GE"), infer.comparison),
    **dict.fromkeys(("Sum", "Mean", "Max", "Min"), infer.first_of_list),
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Transpose": transpose,
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": squeeze,
    "ExpandDims": expand_dims,
    "Shape": shape_,
    "Cast": cast,
    "Gather": gather,
    "TopK": top_k,
    "Scatter": infer.first,
    "Expand": expand,
    "Tile": tile,
    "MatMul": infer.matmul,
    "BatchMatMul": infer.matmul,
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"), reduce),
    "ArgMax": arg_max,
    "ConstantFill": infer.constant_fill,
    # What keeps the type of its first operand.
    **dict.fromkeys(
        (
            *("SequenceMask", "SpatialBN", "GroupNorm", "Softmax", "Dropout"),
            *(
                "Relu",
                "Sigmoid",
                "Tanh",
                "Exp",
                "Log",
                "Sqrt",
                "Abs",
                "Negative",
                "Reciprocal",
                "Floor",
                "Ceil",
            ),
            *("Not", "Clip", "LeakyRelu", "Elu", "PRelu", "AliasWithName", "Copy", "Alias", "StopGradient"),
            *("EnsureCPUOutput", "CopyFromCPUInput", "CopyCPUToGPU", "CopyGPUToCPU"),
        ),
        infer.first,
    ),
}
"""Each operator's rule, by the operator's type. Fills with given values have none: they become weights."""
