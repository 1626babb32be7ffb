"""Each rule of the verifier fires: one thing is corrupted in a valid graph, and the message says what."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from detc.ir import (
    Constant,
    Graph,
    InstancesType,
    Node,
    TensorType,
    VerificationError,
    get_op,
    symbol,
    verify,
)
from detc.ir.dims import Dim
from tests.checks import graph_of, joined

TEXT = joined("""
    input %x: f32[N,4]
    input %boxes: f32[R,4]
    input %scores: f32[R,3]
    input %index: i64[R]
    input %info: f32[N,3]
    %a: f32[N,4] = aten.relu(%x)  # model.relu
    %b: f32[N,2] = aten.linear(%a, @w:f32[2,4])  # model.head
    %k: i64[kept] = det.nonempty(%boxes)
    %c: f32[kept,4] = aten.index_select(%boxes, %k, dim=0)
    %v: f32[kept,4], %i: i64[kept,4] = aten.sort(%c)
    %d: f32[found,4], %s: f32[found], %n: i64[found], %m: i64[found] = det.box_inference(%boxes, %scores, %index, \
%info, score_thresh=0.5, nms_thresh=0.5, topk_per_image=10)
    return out=%b, values=%v""")


def nodes(graph: Graph) -> dict[str, Node]:
    return {node.results[0].name: node for node in graph}


def _level(graph: Graph) -> None:
    graph.level = "nowhere"


def _inputs(graph: Graph) -> None:
    graph.inputs[1].name = "x"


def _weight_name(graph: Graph) -> None:
    graph.weights["w"].name = "other"


def _foreign_weight(graph: Graph) -> None:
    node = nodes(graph)["b"]
    node.set_operands([node.operand(0), Constant(torch.zeros(2, 4), "w")])


def _dialect(graph: Graph) -> None:
    graph.level = "torchscript"


def _excluded(graph: Graph) -> None:
    text = """
        input %i: i64[R]
        input %boxes: f32[R,4]
        input %im_info: f32[N,3]
        input %size: i64[N,2]
        %a: instances<pred_boxes: f32[R,4], batch_index: i64[R]> =
            instances.make([%boxes, %i], names=("pred_boxes", "batch_index"))
        %p: instances<pred_boxes: f32[kept,4], batch_index: i64[kept]> =
            det.postprocess(%a, %im_info, %size, mask_threshold=0.5)
        return out=%p"""
    other = graph_of(joined(text))
    _, postprocess = other
    other.level = "flat"
    postprocess.set_operands([other.inputs[1], *postprocess.operands[1:]])
    for node in other.nodes[:1]:
        other.erase(node)
    verify(other)


def _early(graph: Graph) -> None:
    graph.move_before(nodes(graph)["a"], nodes(graph)["b"])


def _foreign_value(graph: Graph) -> None:
    other = graph_of(TEXT)
    nodes(graph)["b"].replace_operand(nodes(graph)["a"].result, nodes(other)["a"].result)


def _use_list(graph: Graph) -> None:
    nodes(graph)["a"].result._users.clear()


def _too_many(graph: Graph) -> None:
    node = nodes(graph)["a"]
    node.set_operands([*node.operands, graph.inputs[0]])


def _too_few(graph: Graph) -> None:
    nodes(graph)["b"].set_operands(nodes(graph)["b"].operands[:1])


def _unknown_attribute(graph: Graph) -> None:
    nodes(graph)["k"].attributes["size"] = 3


def _missing_attribute(graph: Graph) -> None:
    del nodes(graph)["c"].attributes["dim"]


def _dtype(graph: Graph) -> None:
    nodes(graph)["a"].result.type = TensorType(torch.float64, (symbol("N"), 4))


def _dim(graph: Graph) -> None:
    nodes(graph)["b"].result.type = TensorType(torch.float32, (symbol("N"), 3))


def _rank(graph: Graph) -> None:
    nodes(graph)["b"].result.type = TensorType(torch.float32, (symbol("N"),))


def _instances(rows: Dim) -> InstancesType:
    return InstancesType((("boxes", TensorType(torch.float32, (rows, 2))),))


def _kind(graph: Graph) -> None:
    nodes(graph)["b"].result.type = _instances(symbol("N"))


def _refused(graph: Graph) -> None:
    nodes(graph)["b"].replace_operand(nodes(graph)["a"].result, graph.inputs[1])
    graph.inputs[1].type = TensorType(torch.float32, (symbol("R"), 5))


def _result_count(graph: Graph) -> None:
    nodes(graph)["v"].results.pop()


def _fresh_names(graph: Graph) -> None:
    # A size that depends on data may have any name, but the same one wherever it stands.
    nodes(graph)["d"].results[2].type = TensorType(torch.int64, (symbol("other"),))


def _attribute_size(graph: Graph) -> None:
    # What is as long as the node k finds, before k.
    k = nodes(graph)["k"]
    size = k.result.shape[0]
    node = Node(get_op("aten.arange"), (), {"end": size}, [TensorType(torch.int64, (size,))])
    graph.insert_before(k, node)


def _output(graph: Graph) -> None:
    graph.set_outputs({"out": nodes(graph_of(TEXT))["a"].result})


def _output_type(graph: Graph) -> None:
    graph.level = "flat"
    graph.set_outputs({"out": graph.add_input("found", _instances(2))})


def _instances_at_flat(graph: Graph) -> None:
    graph.level = "flat"
    sort = nodes(graph)["v"]
    sort.results[0].type = _instances(2)


def _stray_node(graph: Graph) -> None:
    nodes(graph)["a"].graph = Graph("other")


CORRUPTIONS: dict[str, tuple[Callable[[Graph], None], str]] = {
    "an unknown level": (_level, "there is no level 'nowhere'"),
    "two inputs of one name": (_inputs, "two inputs have the same name"),
    "a weight under another name": (_weight_name, "the weight 'w' calls itself 'other'"),
    "a weight of another graph": (_foreign_weight, "the weight @w is not in the graph"),
    "a dialect of another level": (_dialect, r"ops of 'det' may not stand at the level 'torchscript'"),
    "an op that the level excludes": (_excluded, r"det\.postprocess may not stand at the level 'flat'"),
    "a use before the definition": (_early, "%a is used before it is defined"),
    "a value of another graph": (_foreign_value, "%a is used before it is defined"),
    "a use list that misses a use": (_use_list, "%a does not know that it is used here"),
    "an operand too many": (_too_many, "2 operands, at most 1 are taken"),
    "an operand too few": (_too_few, "1 operands, at least 2 are needed"),
    "an unknown attribute": (_unknown_attribute, "there is no attribute 'size'; known: threshold"),
    "a size of no value before": (
        _attribute_size,
        "the size kept in the attribute 'end' is of no value before",
    ),
    "a missing attribute": (_missing_attribute, "the attribute 'dim' is missing"),
    "another dtype": (_dtype, r"declared f64\[N,4\], its rule gives f32\[N,4\]"),
    "another size": (_dim, r"declared f32\[N,3\], its rule gives f32\[N,2\]"),
    "another rank": (_rank, r"declared f32\[N\], its rule gives f32\[N,2\]"),
    "another kind of type": (_kind, r"declared instances<boxes: f32\[N,2\]>, its rule gives"),
    "operands that do not fit": (_refused, r"aten\.linear refuses its operands"),
    "a missing result": (_result_count, "it has 1 results, its rule gives 2"),
    "two names for one size": (_fresh_names, r"result 2 is declared i64\[other\]"),
    "an output of another graph": (_output, "the output 'out' is no value of this graph"),
    "an output that the level forbids": (_output_type, "the output 'out': only tensors may stand"),
    "a value that the level forbids": (_instances_at_flat, "only tensors may stand at the level 'flat'"),
    "a node of another graph": (_stray_node, "the node does not belong to this graph"),
}


@pytest.mark.parametrize(("corrupt", "message"), CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_a_corrupted_graph_is_refused(corrupt: Callable[[Graph], None], message: str) -> None:
    graph = graph_of(TEXT)
    with pytest.raises(VerificationError, match=message):
        corrupt(graph)
        verify(graph)


def test_the_message_shows_the_op_its_source_the_pass_and_the_ir_around() -> None:
    graph = graph_of(TEXT)
    nodes(graph)["b"].created_by = "some-pass"
    _dim(graph)
    with pytest.raises(VerificationError) as caught:
        verify(graph, after="another-pass")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("aten.linear: result 0 is declared f32[N,3]")
    assert lines[0].endswith("(after the pass another-pass)")
    assert "  source: model.head" in lines
    assert "  made by: some-pass" in lines
    assert any(line.startswith("  > %b: f32[N,3] = aten.linear(") for line in lines)
    assert any(line.startswith("    %a: f32[N,4] = aten.relu(") for line in lines)


def test_a_fresh_size_may_be_a_number() -> None:
    graph = graph_of(TEXT.replace("kept", "7"))
    verify(graph)


def test_an_empty_graph_is_valid() -> None:
    verify(Graph("nothing"))
    graph = Graph("constant")
    graph.set_outputs({"out": graph.constant(torch.zeros(2))})
    verify(graph)


def test_nothing_of_an_op_is_checked_twice_in_vain() -> None:
    # The same signature again and again is inferred once.
    graph = graph_of(TEXT)
    op = get_op("aten.relu")
    verify(graph)
    before = op.infer(graph.inputs[0].type)
    assert op.infer(graph.inputs[0].type) is before
