"""The graph's own promises: use lists, order, changing it while walking, clones, names."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detc.ir import Builder, Constant, Graph, IRError, Node, TensorType, difference, get_op, symbol, verify
from tests.checks import check_use_lists, graph_of, joined

F32 = torch.float32
TYPE = TensorType(F32, (symbol("N"), 4))


def chain(length: int) -> tuple[Graph, list[Node]]:
    graph = Graph("chain")
    x = graph.add_input("x", TYPE)
    b = Builder(graph)
    nodes: list[Node] = []
    for i in range(length):
        x = b.aten.neg(x)
        x.name = f"v{i}"
        assert x.producer is not None
        nodes.append(x.producer)
    graph.set_outputs({"out": x})
    return graph, nodes


def unused(graph: Graph, count: int) -> list[Node]:
    b = Builder(graph)
    values = [b.aten.abs(graph.inputs[0]) for _ in range(count)]
    return [value.producer for value in values]


def free(name: str = "aten.relu") -> Node:
    return Node(get_op(name), [], {}, [TYPE])


def test_erasing_the_current_node_while_walking() -> None:
    graph = Graph("g")
    graph.add_input("x", TYPE)
    nodes = unused(graph, 5)
    seen = []
    for node in graph:
        seen.append(node)
        graph.erase(node)
    assert seen == nodes
    assert len(graph) == 0
    assert list(graph) == list(reversed(graph)) == []


def test_erasing_what_comes_next_while_walking() -> None:
    graph = Graph("g")
    graph.add_input("x", TYPE)
    first, *others = unused(graph, 6)
    seen = []
    for node in graph:
        seen.append(node)
        if node is first:
            for other in others[:3]:
                graph.erase(other)
    assert seen == [first, *others[3:]]


def test_erasing_the_current_and_the_next_nodes_in_any_order() -> None:
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        graph = Graph("g")
        graph.add_input("x", TYPE)
        nodes = unused(graph, 5)
        seen = []
        for node in graph:
            seen.append(node)
            if node is nodes[0]:
                for i in order:
                    graph.erase(nodes[i])
        assert seen == [nodes[0], nodes[3], nodes[4]]
        assert list(reversed(graph)) == nodes[:2:-1]


def test_new_nodes_are_visited_where_they_lie_ahead() -> None:
    graph, nodes = chain(3)
    before, after = free(), free()
    seen = []
    for node in graph:
        seen.append(node)
        if node is nodes[1]:
            graph.insert_before(node, before)
            graph.insert_after(node, after)
    assert seen == [nodes[0], nodes[1], after, nodes[2]]
    assert list(graph) == [nodes[0], before, nodes[1], after, nodes[2]]


def test_walking_backwards_while_erasing() -> None:
    graph, nodes = chain(5)
    graph.set_outputs({"out": nodes[1].result})
    for node in reversed(graph):
        if not node.result.is_used:
            graph.erase(node)
    assert list(graph) == nodes[:2]
    check_use_lists(graph)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_use_lists_stay_exact_under_random_changes(seed: int) -> None:
    generator = random.Random(seed)
    graph, _ = chain(4)
    for _ in range(40):
        nodes = graph.nodes
        node = generator.choice(nodes)
        results = [r for n in nodes[: nodes.index(node)] for r in n.results if r.type == TYPE]
        earlier = [graph.inputs[0], *results]
        match generator.randrange(6):
            case 0:
                Builder(graph, before=node).aten.add.Tensor(*generator.choices(earlier, k=2))
            case 1:
                node.replace_operand(next(node.operand_values), generator.choice(earlier))
            case 2 if node.result.type == TYPE:
                graph.replace_uses(node.result, generator.choice(earlier))
            case 3 if not node.result.is_used and len(nodes) > 1:
                graph.erase(node)
            case 4 if not isinstance(node.operands[0], tuple):
                node.set_operands(generator.choices(earlier, k=len(node.operands)))
            case 5:
                value = Builder(graph, before=node).aten.cat(generator.choices(earlier, k=3))
                assert value.producer is not None
        check_use_lists(graph)
    verify(graph)
    twin = graph.clone()
    check_use_lists(twin)
    assert difference(graph, twin) is None


def test_replacing_a_value_takes_its_name_its_uses_and_its_outputs() -> None:
    graph, nodes = chain(3)
    new = Builder(graph, before=nodes[1]).aten.abs(graph.inputs[0])
    graph.set_outputs({"out": nodes[2].result, "middle": nodes[0].result})
    graph.replace_uses(nodes[0].result, new)
    assert new.name == "v0"
    assert graph.outputs["middle"] is new
    assert nodes[1].operand(0) is new
    assert not nodes[0].result.is_used
    graph.replace_uses(new, new)
    assert nodes[1].operand(0) is new
    check_use_lists(graph)


def test_an_input_keeps_its_name_when_it_replaces_a_value() -> None:
    graph, nodes = chain(1)
    graph.replace_uses(nodes[0].result, graph.inputs[0])
    assert graph.inputs[0].name == "x"


def test_a_value_that_is_used_twice_by_one_node() -> None:
    graph = Graph("g")
    x, y = graph.add_input("x", TYPE), graph.add_input("y", TYPE)
    value = Builder(graph).aten.add.Tensor(x, x)
    assert value.producer is not None
    assert x.users == [value.producer]
    value.producer.set_operands([x, y])
    assert x.users == y.users == [value.producer]
    check_use_lists(graph)


@pytest.mark.parametrize("kind", ["used", "output", "foreign", "twice", "input", "input twice"])
def test_changes_that_are_refused(kind: str) -> None:
    graph, nodes = chain(2)
    match kind:
        case "used":
            with pytest.raises(IRError, match="is used by"):
                graph.erase(nodes[0])
        case "output":
            with pytest.raises(IRError, match="gives the output 'out'"):
                graph.erase(nodes[1])
        case "foreign":
            with pytest.raises(IRError, match="is not in this graph"):
                graph.insert_before(free(), free())
        case "twice":
            with pytest.raises(IRError, match="is in a graph already"):
                graph.append(nodes[0])
        case "input":
            with pytest.raises(IRError, match="cannot remove the input 'x'"):
                graph.remove_input(graph.inputs[0])
        case "input twice":
            with pytest.raises(IRError, match="there is an input 'x' already"):
                graph.add_input("x", TYPE)
    assert list(graph) == nodes
    check_use_lists(graph)


def test_moving_a_node() -> None:
    graph, nodes = chain(3)
    graph.move_before(nodes[0], nodes[2])
    assert list(graph) == [nodes[2], nodes[0], nodes[1]]
    graph.move_before(nodes[2], nodes[2])
    graph.sort()
    assert list(graph) == nodes
    assert (nodes[0].previous, nodes[0].next) == (None, nodes[1])
    check_use_lists(graph)


def test_sorting_finds_a_cycle() -> None:
    graph, nodes = chain(3)
    nodes[0].set_operands([nodes[2].result])
    with pytest.raises(IRError, match="cycle"):
        graph.sort()


def test_weights_keep_their_storage_and_their_names() -> None:
    graph = Graph("g")
    data = torch.zeros(20)
    weight = graph.add_weight("w", data)
    assert weight.data is data
    assert graph.add_weight("w", data) is weight
    with pytest.raises(IRError, match="another weight"):
        graph.add_weight("w", torch.zeros(20))
    assert graph.fresh_weight_name("w") == "w_1"
    assert graph.fresh_weight_name("v") == "v"
    names = [graph.constant(torch.zeros(20), "k").name for _ in range(3)]
    assert names == ["k", "k_1", "k_2"]
    small = graph.constant(torch.zeros(2), "k")
    assert small.is_literal
    assert graph.clone().weights["w"].data is data
    assert graph.prune_weights()
    assert not graph.prune_weights()
    assert not graph.weights


def test_a_weight_that_is_an_output_is_not_pruned() -> None:
    graph = Graph("g")
    graph.set_outputs({"out": graph.add_weight("w", torch.zeros(3))})
    assert not graph.prune_weights()


def test_fresh_sizes_are_new() -> None:
    graph = graph_of(
        joined("""
        input %boxes: f32[R,4]
        %a: i64[kept] = det.nonempty(%boxes)
        return out=%a""")
    )
    b = Builder(graph)
    types = [str(b.det.nonempty(graph.inputs[0]).type) for _ in range(2)]
    assert types == ["i64[kept_1]", "i64[kept_2]"]
    assert str(Builder(graph.clone()).det.nonempty(graph.inputs[0]).type) == "i64[kept_3]"


def test_operands_by_position() -> None:
    graph = graph_of(
        joined("""
        input %x: f32[N,4]
        %a: f32[N,8] = aten.cat([%x, %x], dim=1)
        %b: f32[N,2] = aten.linear(%a, @w:f32[2,8])
        return out=%b""")
    )
    cat, linear = graph
    assert cat.operand_list(0) == (graph.inputs[0], graph.inputs[0])
    assert linear.operand_or_none(2) is None
    assert isinstance(linear.operand(1), Constant)
    for node, index in ((cat, 0), (linear, 2)):
        with pytest.raises(IRError, match="is no single value"):
            node.operand(index)
    with pytest.raises(IRError, match="is no list"):
        linear.operand_list(0)
    sort = Builder(graph).aten.sort(graph.inputs[0])[0].producer
    assert sort is not None
    with pytest.raises(IRError, match="has 2 results, not one"):
        sort.result  # noqa: B018
