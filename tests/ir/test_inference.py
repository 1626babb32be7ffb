"""Inference of aten ops with symbolic sizes, ops' flags, and the interpreter's checks of inputs and results."""

from __future__ import annotations

import pytest
import torch

from detc.ir import (
    Builder,
    Graph,
    InputError,
    InstancesType,
    IRError,
    TensorType,
    get_op,
    run,
    symbol,
)
from detc.ir.dialects.instances import InstancesBatch
from tests.checks import graph_of, joined, random_inputs

N = symbol("N")


def test_one_is_not_one_point_zero() -> None:
    graph = Graph("g")
    x = graph.add_input("x", TensorType(torch.int64, (N, 4)))
    b = Builder(graph)
    types = [str(b.aten.mul.Scalar(x, other=number).type) for number in (1, 1.0, True, 1)]
    assert types == ["i64[N,4]", "f32[N,4]", "i64[N,4]", "i64[N,4]"]


def test_promotion_leaves_a_size_symbolic() -> None:
    # torch converts the operand in C++ here, where a symbolic size would be taken for its example value.
    graph = Graph("g")
    x = graph.add_input("x", TensorType(torch.int64, (symbol("Rows"), 4)))
    b = Builder(graph)
    assert str(b.aten.add.Scalar(x, other=1.0).type) == "f32[Rows,4]"
    assert str(b.aten.relu(x).type) == "i64[Rows,4]"


def test_sizes_follow_from_sizes() -> None:
    graph = Graph("g")
    x = graph.add_input("x", TensorType(torch.float32, (N, 3, symbol("H", 32), symbol("W"))))
    b = Builder(graph)
    weight = graph.add_weight("w", torch.zeros(8, 3, 3, 3))
    y = b.aten.conv2d(x, weight, stride=(2, 2), padding=(1, 1))
    assert str(y.type) == "f32[N,8,H/2,ceil(W/2)]"
    assert str(b.aten.flatten.using_ints(y, start_dim=1).type) == "f32[N,4*H*ceil(W/2)]"
    assert str(b.aten.cat([x, x], dim=3).type) == "f32[N,3,H,2*W]"
    assert [str(v.type) for v in b.aten.split_with_sizes(x, split_sizes=(1, 2), dim=1)] == [
        "f32[N,1,H,W]",
        "f32[N,2,H,W]",
    ]


def test_operands_that_do_not_fit_are_refused_with_torchs_reason() -> None:
    graph = Graph("g")
    x = graph.add_input("x", TensorType(torch.float32, (N, 4)))
    b = Builder(graph)
    with pytest.raises(IRError, match=r"aten\.add\.Tensor refuses its operands: Attempting to broadcast"):
        b.aten.add.Tensor(x, b.constant([1.0, 2.0]))
    with pytest.raises(IRError, match="2 operands, at most 1 are taken"):
        b.aten.relu(x, x)
    with pytest.raises(IRError, match=r"no op 'aten\.nothing'"):
        b.aten.nothing(x)
    with pytest.raises(IRError, match=r"must be a value, a list of values or None, not int"):
        b.aten.relu(3)
    with pytest.raises(IRError, match="an attribute cannot hold set"):
        b.aten.sum(x, dim={1})
    assert len(graph) == 0


def test_boxes_are_upright_or_rotated() -> None:
    graph = Graph("g")
    f32 = torch.float32
    b, upright, rotated, neither = (
        Builder(graph),
        *(
            graph.add_input(f"boxes{columns}", TensorType(f32, (symbol("R"), columns)))
            for columns in (4, 5, 6)
        ),
    )
    feature = graph.add_input("feature", TensorType(f32, (N, 8, symbol("H"), symbol("W"))))
    index = graph.add_input("index", TensorType(torch.int64, (symbol("R"),)))
    with pytest.raises(IRError, match="rows of 6 columns are not boxes of 4 or 5"):
        b.det.nonempty(neither)
    scores, im_info = (graph.add_input(f"in{size}", TensorType(f32, (N, size))) for size in (4, 3))
    with pytest.raises(IRError, match="rows of 6 columns hold neither a box of 4 or 5 nor 3 of them"):
        b.det.box_inference(
            neither, scores, index, im_info, score_thresh=0.0, nms_thresh=0.5, topk_per_image=1
        )
    options = {"output_size": (7, 7), "scales": (0.25,), "sampling_ratio": 0}
    options |= {"canonical_box_size": 224, "canonical_level": 4}
    for boxes, pooler in ((upright, "ROIAlignRotated"), (rotated, "ROIAlignV2")):
        with pytest.raises(IRError, match=f"{pooler} does not pool from boxes f32"):
            b.det.roi_pool([feature], boxes, index, pooler_type=pooler, **options)


def test_which_ops_do_more_than_compute() -> None:
    flags = {
        name: get_op(f"aten.{name}") for name in ("relu", "relu_", "rand_like", "dropout", "add_.Tensor")
    }
    assert [name for name, op in flags.items() if op.has_effects] == ["relu_", "add_.Tensor"]
    assert [name for name, op in flags.items() if op.is_random] == ["rand_like", "dropout"]


def test_results_of_another_type_than_declared_stop_the_run() -> None:
    graph = graph_of("input %x: f32[N,4]\n%a: f32[N,4] = aten.relu(%x)\nreturn out=%a")
    (node,) = graph
    node.result.type = TensorType(torch.float32, (N, 5))
    with pytest.raises(
        IRError, match=r"gave f32\[2,4\], which does not fit|gave \[2, 4\], which does not fit"
    ):
        run(graph, random_inputs(graph, {"N": 2}))


BAD_INPUTS = {
    "missing": ({}, "missing: x"),
    "unknown": ({"x": torch.zeros(2, 4), "y": torch.zeros(1)}, "not among the inputs: y"),
    "dtype": ({"x": torch.zeros(2, 4, dtype=torch.float64)}, r"the input 'x' is f64\[2, 4\], not f32\[N,4\]"),
    "rank": ({"x": torch.zeros(4)}, r"the input 'x' is f32\[4\], not"),
    "size": ({"x": torch.zeros(2, 5)}, r"is \[2, 5\], which does not fit f32\[N,4\]"),
    "divisor": ({"x": torch.zeros(3, 4)}, "N must be a multiple of 2"),
    "no tensor": ({"x": 3}, "is int, not f32"),
}


@pytest.mark.parametrize(("given", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_inputs_that_do_not_fit(given: dict[str, torch.Tensor], message: str) -> None:
    graph = graph_of("where N % 2 == 0\ninput %x: f32[N,4]\nreturn out=%x")
    with pytest.raises(InputError, match=message):
        run(graph, given)


def test_instances_as_inputs_are_looked_at() -> None:
    graph = graph_of(
        joined("""
        input %d: instances<scores: f32[R], batch_index: i64[R]>
        %s: f32[R] = instances.get(%d, field="scores")
        return out=%s""")
    )
    assert isinstance(graph.inputs[0].type, InstancesType)
    fields = {"scores": torch.zeros(3), "batch_index": torch.zeros(3, dtype=torch.int64)}
    assert run(graph, {"d": InstancesBatch(fields)})["out"].shape == (3,)
    with pytest.raises(InputError, match="is dict, not instances<"):
        run(graph, {"d": fields})
    with pytest.raises(InputError, match="instances whose field 'batch_index' is"):
        run(graph, {"d": InstancesBatch({**fields, "batch_index": torch.zeros(4, dtype=torch.int64)})})
    with pytest.raises(InputError, match="field 'scores' is NoneType"):
        run(graph, {"d": InstancesBatch({"batch_index": fields["batch_index"]})})
