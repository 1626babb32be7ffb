"""Layers: each lowering against torch, in the interpreter, onnxruntime and OpenVINO, at several sizes."""

from __future__ import annotations

import pytest
from lowering import Case, check, weight

from detc.ir import symbol

N, H, W = symbol("N"), symbol("H"), symbol("W")
IMAGE = "f32[N,3,H,W]"
SIZES = ({"N": 1, "H": 8, "W": 12}, {"N": 3, "H": 11, "W": 9})
EVEN = ({"N": 1, "H": 8, "W": 12}, {"N": 2, "H": 16, "W": 4})
NO_ROWS = ({"N": 0, "H": 8, "W": 8},)


def w(b, *shape, **more):
    return weight(b, *shape, **more)


def bn(b, c):
    return w(b, c), w(b, c), w(b, c), w(b, c, low=0.5, high=2.0)


CONVOLUTIONS = [
    Case(
        "conv2d",
        [IMAGE],
        lambda b, x: b.aten.conv2d(x, w(b, 8, 3, 3, 3), w(b, 8), padding=(1, 1)),
        nodes=1,
        sizes=(*SIZES, *NO_ROWS),
    ),
    Case(
        "strided",
        [IMAGE],
        lambda b, x: b.aten.conv2d(x, w(b, 8, 3, 3, 3), None, stride=(2, 2), padding=(1, 1)),
        SIZES,
        1,
    ),
    Case(
        "dilated",
        [IMAGE],
        lambda b, x: b.aten.conv2d(x, w(b, 8, 3, 3, 2), None, stride=(2,), dilation=(2, 1)),
        SIZES,
        1,
    ),
    Case(
        "depthwise",
        [IMAGE],
        lambda b, x: b.aten.conv2d(x, w(b, 6, 1, 3, 3), w(b, 6), padding=(1, 0), groups=3),
        SIZES,
        1,
    ),
    Case("same", [IMAGE], lambda b, x: b.aten.conv2d.padding(x, w(b, 4, 3, 4, 3), padding="same"), SIZES, 1),
    Case(
        "valid", [IMAGE], lambda b, x: b.aten.conv2d.padding(x, w(b, 4, 3, 4, 3), padding="valid"), SIZES, 1
    ),
    Case(
        "conv1d",
        ["f32[N,3,H]"],
        lambda b, x: b.aten.conv1d(x, w(b, 4, 3, 3), w(b, 4), padding=(1,)),
        SIZES,
        1,
    ),
    Case("unbatched", ["f32[3,H,W]"], lambda b, x: b.aten.conv2d(x, w(b, 4, 3, 3, 3), w(b, 4)), SIZES, 3),
    Case(
        "convolution",
        [IMAGE],
        lambda b, x: b.aten.convolution(
            x,
            w(b, 4, 3, 3, 3),
            w(b, 4),
            stride=(1, 2),
            padding=(1, 1),
            dilation=(1, 1),
            transposed=False,
            output_padding=(0, 0),
            groups=1,
        ),
        SIZES,
        1,
    ),
    Case(
        "conv_transpose2d",
        [IMAGE],
        lambda b, x: b.aten.conv_transpose2d.input(x, w(b, 3, 4, 2, 2), w(b, 4), stride=(2, 2)),
        nodes=1,
        sizes=(*SIZES, *NO_ROWS),
    ),
    Case(
        "conv_transpose2d-padded",
        [IMAGE],
        lambda b, x: b.aten.conv_transpose2d.input(
            x,
            w(b, 3, 2, 3, 3),
            None,
            stride=(2, 3),
            padding=(1, 0),
            output_padding=(1, 0),
            groups=1,
            dilation=(1, 2),
        ),
        SIZES,
        1,
    ),
    Case(
        "deform_conv2d",
        [IMAGE, "f32[N,18,H,W]", "f32[N,9,H,W]"],
        lambda b, x, offset, mask: b.torchvision.deform_conv2d(
            x,
            w(b, 4, 3, 3, 3),
            offset,
            mask,
            w(b, 4),
            stride_h=1,
            stride_w=1,
            pad_h=1,
            pad_w=1,
            dilation_h=1,
            dilation_w=1,
            groups=1,
            offset_groups=1,
            use_mask=True,
        ),
        SIZES,
        1,
        openvino=False,  # OpenVINO does not read DeformConv
    ),
    Case(
        "deform_conv2d-unmasked",
        [IMAGE, "f32[N,18,H/2,W/2]", "f32[N,1]"],
        lambda b, x, offset, mask: b.torchvision.deform_conv2d(
            x,
            w(b, 4, 3, 3, 3),
            offset,
            mask,
            w(b, 4),
            stride_h=2,
            stride_w=2,
            pad_h=1,
            pad_w=1,
            dilation_h=1,
            dilation_w=1,
            groups=1,
            offset_groups=1,
            use_mask=False,
        ),
        EVEN,
        1,
        multiples={"H": 2, "W": 2},
        openvino=False,  # OpenVINO does not read DeformConv
    ),
]

NORMALIZATIONS = [
    Case(
        "batch_norm",
        ["f32[N,4,H,W]"],
        lambda b, x: b.aten.batch_norm(
            x, *bn(b, 4), training=False, momentum=0.1, eps=1e-5, cudnn_enabled=False
        ),
        (*SIZES, *NO_ROWS),
        1,
    ),
    Case(
        "batch_norm-plain",
        ["f32[N,4,H,W]"],
        lambda b, x: b.aten.batch_norm(
            x,
            None,
            None,
            w(b, 4),
            w(b, 4, low=0.5, high=2.0),
            training=False,
            momentum=0.1,
            eps=1e-3,
            cudnn_enabled=False,
        ),
        SIZES,
        1,
    ),
    Case(
        "native_batch_norm",
        ["f32[N,4,H,W]"],
        lambda b, x: b.aten._native_batch_norm_legit_no_training(x, *bn(b, 4), momentum=0.1, eps=1e-5)[0],
        SIZES,
        1,
    ),
    Case(
        "layer_norm",
        ["f32[N,H,8]"],
        lambda b, x: b.aten.layer_norm(x, w(b, 8), w(b, 8), normalized_shape=(8,)),
        (*SIZES, *NO_ROWS),
        1,
    ),
    Case(
        "layer_norm-plain",
        ["f32[N,H,4,8]"],
        lambda b, x: b.aten.layer_norm(x, normalized_shape=(4, 8)),
        SIZES,
        1,
    ),
    Case(
        "native_layer_norm",
        ["f32[N,H,8]"],
        lambda b, x: b.aten.native_layer_norm(x, w(b, 8), w(b, 8), normalized_shape=(8,), eps=1e-5)[0],
        SIZES,
        1,
    ),
    Case(
        "group_norm",
        ["f32[N,8,H,W]"],
        lambda b, x: b.aten.group_norm(x, w(b, 8), w(b, 8), num_groups=4, eps=1e-3),
        SIZES,
        6,
    ),
    Case("group_norm-plain", ["f32[N,8,H,W]"], lambda b, x: b.aten.group_norm(x, num_groups=2), SIZES, 4),
    Case(
        "instance_norm",
        ["f32[N,4,H,W]"],
        lambda b, x: b.aten.instance_norm(
            x, w(b, 4), w(b, 4), use_input_stats=True, momentum=0.1, eps=1e-5, cudnn_enabled=False
        ),
        SIZES,
        1,
    ),
]

POOLINGS = [
    Case(
        "max_pool2d",
        [IMAGE],
        lambda b, x: b.aten.max_pool2d(x, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1)),
        nodes=1,
        sizes=(*SIZES, *NO_ROWS),
        openvino_sizes=SIZES,  # OpenVINO pools no empty batch
    ),
    Case(
        "max_pool2d-last-level",
        [IMAGE],
        lambda b, x: b.aten.max_pool2d(x, kernel_size=(1, 1), stride=(2, 2)),
        SIZES,
        1,
    ),
    Case(
        "max_pool2d-ceil",
        [IMAGE],
        lambda b, x: b.aten.max_pool2d(x, kernel_size=(3, 2), stride=(2, 2), ceil_mode=True),
        SIZES,
        1,
    ),
    Case(
        "max_pool2d-dilated",
        [IMAGE],
        lambda b, x: b.aten.max_pool2d(x, kernel_size=(2,), stride=(1,), dilation=(2,)),
        SIZES,
        1,
    ),
    Case(
        "max_pool2d_with_indices",
        [IMAGE],
        lambda b, x: b.aten.max_pool2d_with_indices(x, kernel_size=(2, 2))[0],
        SIZES,
        1,
    ),
    Case("max_pool1d", ["f32[N,3,9]"], lambda b, x: b.aten.max_pool1d(x, kernel_size=(2,)), SIZES, 1),
    Case(
        "avg_pool2d", [IMAGE], lambda b, x: b.aten.avg_pool2d(x, kernel_size=(2, 2), stride=(2, 2)), SIZES, 1
    ),
    Case(
        "avg_pool2d-padded",
        [IMAGE],
        lambda b, x: b.aten.avg_pool2d(x, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1)),
        SIZES,
        1,
    ),
    Case(
        "avg_pool2d-exclude",
        [IMAGE],
        lambda b, x: b.aten.avg_pool2d(x, kernel_size=(3, 3), padding=(1, 1), count_include_pad=False),
        SIZES,
        1,
    ),
    Case(
        "avg_pool2d-divisor",
        [IMAGE],
        lambda b, x: b.aten.avg_pool2d(x, kernel_size=(3, 3), padding=(1, 1), divisor_override=4),
        SIZES,
        2,
    ),
    Case(
        "avg_pool2d-ceil",
        [IMAGE],
        lambda b, x: b.aten.avg_pool2d(x, kernel_size=(2, 2), ceil_mode=True),
        SIZES,
        1,
    ),
    Case(
        "adaptive_avg_pool2d-one",
        [IMAGE],
        lambda b, x: b.aten.adaptive_avg_pool2d(x, output_size=(1, 1)),
        SIZES,
        1,
    ),
    Case(
        "adaptive_avg_pool2d-divisor",
        ["f32[N,3,14,12]"],
        lambda b, x: b.aten.adaptive_avg_pool2d(x, output_size=(7, 4)),
        SIZES,
        1,
    ),
    Case(
        "adaptive_max_pool2d",
        [IMAGE],
        lambda b, x: b.aten.adaptive_max_pool2d(x, output_size=(1, 1))[0],
        SIZES,
        1,
    ),
]


@pytest.mark.parametrize("case", [*CONVOLUTIONS, *NORMALIZATIONS, *POOLINGS], ids=lambda case: case.name)
def test_lowering_agrees_with_torch(case):
    check(case)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [-1, 2])
def test_roi_align(aligned, ratio):
    def make(b, x, corners):
        # Boxes with their corners in order, on images 0 and 1 in turn.
        low = b.aten.abs(b.aten.slice.Tensor(corners, dim=1, start=0, end=2))
        size = b.aten.add.Scalar(b.aten.abs(b.aten.slice.Tensor(corners, dim=1, start=2, end=4)), other=0.5)
        image = b.aten.zeros_like(b.aten.slice.Tensor(corners, dim=1, start=0, end=1))
        rois = b.aten.cat([image, low, b.aten.add.Tensor(low, size)], dim=1)
        return b.torchvision.roi_align(
            x, rois, spatial_scale=0.5, pooled_height=3, pooled_width=2, sampling_ratio=ratio, aligned=aligned
        )

    sizes = ({"N": 1, "H": 8, "W": 9, "R": 4}, {"N": 2, "H": 8, "W": 9, "R": 0})
    check(Case("roi_align", [IMAGE, "f32[R,4]"], make, sizes, low=-12.0, high=12.0, openvino_sizes=sizes[:1]))


def test_reshapes_with_rows_that_may_be_empty():
    """Flattening rows that the data chose: their number may be zero, which -1 in ONNX's Reshape does not take."""

    def make(b, x, scores):
        rows = b.aten.index.Tensor(x, [b.aten.gt.Scalar(scores, other=0.0)])
        flat = b.aten.flatten.using_ints(rows, start_dim=1)
        back = b.aten.view(flat, size=(-1, 4, 2, 3))
        return [
            flat,
            b.aten.linear(flat, w(b, 5, 24), w(b, 5)),
            back,
            b.aten.flatten.using_ints(rows, start_dim=2),
        ]

    sizes = ({"R": 5},)
    for low, high in ((-2.0, 2.0), (-2.0, -1.0)):
        check(Case("rows", ["f32[R,4,2,3]", "f32[R]"], make, sizes, low=low, high=high))


def fpn_step(b, x):
    inner = b.aten.relu(b.aten.conv2d(x, w(b, 8, 3, 3, 3), None, padding=(1, 1)))
    coarse = b.aten.max_pool2d(inner, kernel_size=(2, 2))
    top_down = b.aten.upsample_nearest2d.vec(coarse, output_size=None, scale_factors=(2.0, 2.0))
    return b.aten.add.Tensor(top_down, b.aten.conv2d(x, w(b, 8, 3, 1, 1), None))


def test_no_size_is_baked_in():
    lowered = check(Case("fpn", [IMAGE], fpn_step, EVEN, 6, multiples={"H": 2, "W": 2}))
    assert [list(c.data.shape) for c in lowered.weights.values()] == [[8, 3, 3, 3], [8, 3, 1, 1]]
