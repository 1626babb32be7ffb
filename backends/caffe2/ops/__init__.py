"""What Caffe2's operators compute, as plain functions on torch tensors.

Positional parameters are an operator's inputs (a `Sequence[Tensor]` takes all of them), keyword-only ones its
arguments under Caffe2's names and with its defaults; the result is its output or the tuple of its outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from torch import Tensor

from . import detections, elementwise, fill, masking, nn, proposals, roi, select, shape

Body = Callable[..., Tensor | tuple[Tensor, ...]]

BODIES: Final[dict[str, Callable[..., Any]]] = {
    # Detection.
    "GenerateProposals": proposals.generate_proposals,
    "GenerateProposalsCPP": proposals.generate_proposals,
    "CollectRpnProposals": proposals.collect_rpn_proposals,
    "DistributeFpnProposals": proposals.distribute_fpn_proposals,
    "CollectAndDistributeFpnRpnProposals": proposals.collect_and_distribute_fpn_rpn_proposals,
    "BBoxTransform": detections.bbox_transform,
    "BoxWithNMSLimit": detections.box_with_nms_limit,
    "RoIAlign": roi.roi_align,
    "RoIAlignRotated": roi.roi_align_rotated,
    "BatchPermutation": roi.batch_permutation,
    "HeatmapMaxKeypoint": roi.heatmap_max_keypoint,
    # Layers.
    "Conv": nn.conv,
    "ConvTranspose": nn.conv_transpose,
    "FC": nn.fc,
    "SpatialBN": nn.spatial_bn,
    "GroupNorm": nn.group_norm,
    "MaxPool": nn.max_pool,
    "AveragePool": nn.average_pool,
    "ResizeNearest": nn.resize_nearest,
    "UpsampleBilinear": nn.upsample_bilinear,
    "Softmax": nn.softmax,
    "PadImage": nn.pad_image,
    # What is inside of an image.
    "SequenceMask": masking.sequence_mask,
    "LengthsToSegmentIds": masking.lengths_to_segment_ids,
    "ResizeNearestGradient": masking.resize_nearest_gradient,
    # Element by element.
    "Add": elementwise.add,
    "Sub": elementwise.sub,
    "Mul": elementwise.mul,
    "Div": elementwise.div,
    "Pow": elementwise.pow,
    "EQ": elementwise.equal,
    "LT": elementwise.less,
    "LE": elementwise.less_equal,
    "GT": elementwise.greater,
    "GE": elementwise.greater_equal,
    "Not": elementwise.logical_not,
    "Sum": elementwise.sum_all,
    "Mean": elementwise.mean_all,
    "Max": elementwise.max_all,
    "Min": elementwise.min_all,
    "Relu": elementwise.relu,
    "Sigmoid": elementwise.sigmoid,
    "Tanh": elementwise.tanh,
    "Exp": elementwise.exp,
    "Log": elementwise.log,
    "Sqrt": elementwise.sqrt,
    "Abs": elementwise.absolute,
    "Negative": elementwise.negative,
    "Reciprocal": elementwise.reciprocal,
    "Floor": elementwise.floor,
    "Ceil": elementwise.ceil,
    "Clip": elementwise.clip,
    "LeakyRelu": elementwise.leaky_relu,
    "Elu": elementwise.elu,
    "PRelu": elementwise.prelu,
    # Shapes.
    "Concat": shape.concat,
    "Split": shape.split,
    "Slice": shape.slice_,
    "Transpose": shape.transpose,
    "Reshape": shape.reshape,
    "Flatten": shape.flatten,
    "Squeeze": shape.squeeze,
    "ExpandDims": shape.expand_dims,
    "Shape": shape.shape,
    "Cast": shape.cast,
    "Gather": shape.gather,
    "TopK": select.top_k,
    "Scatter": select.scatter,
    "Expand": shape.expand,
    "Tile": shape.tile,
    "MatMul": shape.mat_mul,
    "BatchMatMul": shape.mat_mul,
    "ReduceMean": shape.reduce_mean,
    "ReduceSum": shape.reduce_sum,
    "ReduceMax": shape.reduce_max,
    "ReduceMin": shape.reduce_min,
    "ArgMax": shape.arg_max,
    "Dropout": shape.dropout,
    "AliasWithName": shape.alias_with_name,
    **dict.fromkeys(
        (
            "Copy",
            "Alias",
            "StopGradient",
            "EnsureCPUOutput",
            "CopyFromCPUInput",
            "CopyCPUToGPU",
            "CopyGPUToCPU",
        ),
        shape.copy,
    ),
    # Init nets.
    "GivenTensorFill": fill.given_tensor_fill,
    "GivenTensorDoubleFill": fill.given_tensor_double_fill,
    "GivenTensorBoolFill": fill.given_tensor_bool_fill,
    "GivenTensorInt16Fill": fill.given_tensor_int16_fill,
    "GivenTensorIntFill": fill.given_tensor_int_fill,
    "GivenTensorInt64Fill": fill.given_tensor_int64_fill,
    "GivenTensorByteStringToUInt8Fill": fill.given_tensor_byte_string_to_uint8_fill,
    "ConstantFill": fill.constant_fill,
}
"""Each operator's function, by the operator's type."""
