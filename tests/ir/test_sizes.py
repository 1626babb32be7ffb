"""A size in an attribute is a use of the value that it comes from; so is an output."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detc.ir import (
    Builder,
    Graph,
    IRError,
    Node,
    TensorType,
    Value,
    difference,
    parse_graph,
    print_graph,
    run,
    symbol,
    verify,
)
from detc.ir.types import substitute_type
from detc.passes import CommonSubexpressions, Context, DeadCode
from tests.checks import body_of, check_round_trip, check_same_results, check_use_lists, graph_of, joined
from tests.strategies import graphs, inputs_for

TEXT = joined("""
    input %boxes: f32[R,4]
    %rows: i64[kept] = det.nonempty(%boxes)
    %x: f32[2*kept] = aten.full(size=(2*kept,), fill_value=0.5, dtype=dtype.f32)
    return out=%x""")


def nodes(graph: Graph) -> dict[str, Node]:
    return {result.name: node for node in graph for result in node.results}


def value(graph: Graph, name: str) -> Value:
    return nodes(graph)[name].result


def test_what_a_size_comes_from_is_used() -> None:
    graph = graph_of(TEXT)
    rows, x = value(graph, "rows"), value(graph, "x")
    assert not rows.users and rows.size_users == [x.producer]
    assert rows.is_used and rows.only_user is None
    assert x.is_output and x.is_used and not x.users
    assert [rows] == list(nodes(graph)["x"].uses)
    with pytest.raises(IRError, match=r"the size kept, which comes from %rows, is used by <Node aten\.full>"):
        graph.erase(nodes(graph)["rows"])
    assert not DeadCode().apply(graph, Context())
    graph.set_outputs({})
    assert DeadCode().apply(graph, Context())
    assert not len(graph)


def test_a_size_comes_from_what_brings_it_in_not_from_what_carries_it_on() -> None:
    graph = graph_of(
        joined("""
        input %boxes: f32[R,4]
        %rows: i64[kept] = det.nonempty(%boxes)
        %b: f32[kept,4] = aten.index_select(%boxes, %rows, dim=0)
        %x: f32[kept*4] = aten.view(%b, size=(4*kept,))
        %y: f32[R] = aten.full(size=(R,), fill_value=0.5, dtype=dtype.f32)
        return x=%x, y=%y""")
    )
    assert value(graph, "rows").size_users == [nodes(graph)["x"]]
    assert not value(graph, "b").size_users
    assert value(graph, "b").only_user is nodes(graph)["x"]
    assert graph.input("boxes").size_users == [nodes(graph)["y"]]


def test_all_but_one_of_the_inputs_that_have_a_size_can_go() -> None:
    graph = graph_of(
        joined("""
        input %a: f32[N]
        input %b: f32[N,2]
        %x: f32[N] = aten.full(size=(N,), fill_value=0.5, dtype=dtype.f32)
        return x=%x""")
    )
    graph.remove_input(graph.input("a"))
    with pytest.raises(
        IRError, match="cannot remove the input 'b': the size N, which comes from %b, is used by"
    ):
        graph.remove_input(graph.input("b"))
    check_use_lists(graph)


def test_sorting_puts_a_size_before_its_uses() -> None:
    graph = graph_of(TEXT)
    graph.move_before(nodes(graph)["rows"], nodes(graph)["x"])
    with pytest.raises(IRError, match="the size kept in the attribute 'size' is of no value before"):
        verify(graph)
    graph.sort()
    assert list(nodes(graph)) == ["rows", "x"]
    verify(graph)


@pytest.mark.parametrize(
    ("old", "new", "size"),
    [
        ("late", "early", "kept"),
        ("early", "late", "kept"),
        ("late", "boxes", "R"),
        ("wide", "narrow", "kept"),
    ],
)
def test_replacing_a_value_makes_the_sizes_the_same(old: str, new: str, size: str) -> None:
    """The older name stays, whichever is replaced; an input's always does."""
    graph = graph_of(
        joined("""
        input %boxes: f32[R,4]
        %early: i64[kept] = det.nonempty(%boxes)
        %narrow: f32[kept,4] = aten.index_select(%boxes, %early, dim=0)
        %late: i64[kept_1] = det.nonempty(%boxes, threshold=0.5)
        %wide: f32[kept_1,4] = aten.index_select(%boxes, %late, dim=0)
        %x: f32[3*kept_1] = aten.full(size=(3*kept_1,), fill_value=0.5, dtype=dtype.f32)
        return x=%x, wide=%wide""")
    )
    values = {**{name: node.result for name, node in nodes(graph).items()}, "boxes": graph.inputs[0]}
    if new == "boxes":
        values["boxes"] = graph.add_input("given", TensorType(torch.int64, (symbol("R"),)))
    graph.replace_uses(values[old], values[new])
    assert str(values["x"].type) == f"f32[3*{size}]"
    assert nodes(graph)["x"].attributes["size"] == (3 * symbol(size),)
    assert str(values["wide"].type) == f"f32[{size},4]"
    graph.sort()
    verify(graph)
    check_use_lists(graph)
    DeadCode().apply(graph, Context())
    verify(graph)


def test_a_size_that_is_found_out_is_a_number_everywhere() -> None:
    graph = graph_of(TEXT)
    graph.replace_uses(value(graph, "rows"), graph.constant(torch.tensor([0, 2])))
    DeadCode().apply(graph, Context())
    assert body_of(graph).splitlines()[1:] == [
        "%x: f32[4] = aten.full(size=(4,), fill_value=0.5, dtype=dtype.f32)",
        "return out=%x",
    ]
    verify(graph)


def test_a_change_of_types_is_a_change_of_what_sizes_come_from() -> None:
    graph = graph_of(
        joined("""
        input %boxes: f32[R,4]
        %rows: i64[kept] = det.nonempty(%boxes)
        %b: f32[kept,4] = aten.index_select(%boxes, %rows, dim=0)
        return b=%b""")
    )
    rows, b = value(graph, "rows"), value(graph, "b")
    for size, origin in (("other", b), ("kept", rows)):
        rows.type = TensorType(torch.int64, (symbol(size),))
        assert graph.sizes.origin("kept") is origin
        check_use_lists(graph)
    graph.inputs[0].type = TensorType(torch.float32, (symbol("kept"), 4))
    assert graph.sizes.origin("kept") is graph.inputs[0]
    check_use_lists(graph)


def test_a_change_of_attributes_is_a_change_of_uses() -> None:
    graph = graph_of(TEXT)
    rows, attributes, size = value(graph, "rows"), nodes(graph)["x"].attributes, (2 * symbol("kept"),)
    changes = {
        "set": (lambda: attributes.__setitem__("size", (2,)), False),
        "update": (lambda: attributes.update(size=size), True),
        "delete": (lambda: attributes.__delitem__("size"), False),
        "default": (lambda: attributes.setdefault("size", size), True),
        "pop": (lambda: attributes.pop("size"), False),
        "or": (lambda: attributes.__ior__({"size": size}), True),
        "pop item": (attributes.popitem, False),
        "set again": (lambda: attributes.__setitem__("size", size), True),
        "clear": (attributes.clear, False),
    }
    for name, (change, used) in changes.items():
        change()
        assert rows.is_used is used, name
        check_use_lists(graph)


def test_a_clone_keeps_names_that_are_gone() -> None:
    graph = graph_of(TEXT)
    assert graph.fresh_symbol("kept") == "kept_1"
    assert graph.clone().fresh_symbol("kept") == "kept_2"


def test_nodes_keep_their_places_when_many_come_in_between() -> None:
    graph = graph_of(TEXT)
    first, last = graph
    for _ in range(100):
        graph.insert_after(first, first.copy(first.operands))
    for _ in range(3000):
        graph.insert_before(last, first.copy(first.operands))
    for _ in range(100):
        graph.insert_before(graph.nodes[0], first.copy(first.operands))
    places = [node._order for node in graph]
    assert places == sorted(set(places))
    assert graph.sizes.origin("kept") is graph.nodes[0].result


Edit = tuple[int, int, int]


class Editor:
    """Does random edits on a graph. Each is allowed or refused with an IRError, and leaves a graph as it should be."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def do(self, edit: Edit) -> None:
        kind, i, j = edit
        actions = (
            self.erase,
            self.replace,
            self.replace,
            self.move,
            self.insert,
            self.ask,
            self.bring,
            self.outputs,
            self.input,
            self.whole,
        )
        if len(self.graph):
            actions[kind % len(actions)](i, j)

    def node(self, i: int) -> Node:
        nodes = self.graph.nodes
        return nodes[i % len(nodes)]

    def erase(self, i: int, j: int) -> None:
        node = self.node(i)
        used = node.is_used
        try:
            self.graph.erase(node)
        except IRError:
            assert used
        else:
            assert not used

    def replace(self, i: int, j: int) -> None:
        old = self.node(i).results[0]
        after = {old.producer}
        for node in self.graph:
            if any(value.producer in after for value in node.uses):
                after.add(node)
        fitting = [v for v in self.graph.values() if v.producer not in after and self.fits(old, v)]
        if fitting:
            self.graph.replace_uses(old, fitting[j % len(fitting)])
            self.graph.sort()

    def fits(self, old: Value, new: Value) -> bool:
        names = self.graph.sizes.unify(old.type, new.type)
        return substitute_type(old.type, names) == substitute_type(new.type, names)

    def move(self, i: int, j: int) -> None:
        self.graph.move_before(self.node(i), self.node(j))
        self.graph.sort()

    def insert(self, i: int, j: int) -> None:
        """The same again, with sizes of its own, at some place after its operands."""
        node, place = self.node(i), self.node(j)
        Builder(self.graph, before=place).call(node.op, *node.operands, **node.attributes)
        self.graph.sort()

    def ask(self, i: int, j: int) -> None:
        """A node that uses a size, and nothing else of the value that has it."""
        type = self.node(i).results[0].type
        if isinstance(type, TensorType) and type.rank:
            build = Builder(self.graph, before=self.node(j))
            build.aten.full(size=type.shape[:1], fill_value=0.5, dtype=torch.float64)
            self.graph.sort()

    def bring(self, i: int, j: int) -> None:
        """A node that brings in a size, from rows that may have a size of their own."""
        tensors = [v for v in self.graph.values() if isinstance(v.type, TensorType)]
        boxes = [v for v in tensors if v.dtype == torch.float64 and v.shape[1:] == (4,)]
        if boxes:
            chosen = boxes[i % len(boxes)]
            build = Builder(self.graph)
            build.aten.index_select(chosen, build.det.nonempty(chosen, threshold=0.1 * (j % 2)), dim=0)

    def outputs(self, i: int, j: int) -> None:
        self.graph.set_outputs({f"out{n}": self.node(n).results[0] for n in (i, j)})

    def input(self, i: int, j: int) -> None:
        value = self.graph.inputs[i % len(self.graph.inputs)]
        used = value.is_used
        try:
            self.graph.remove_input(value)
        except IRError:
            assert used
        else:
            assert not used

    def whole(self, i: int, j: int) -> None:
        match i % 5:
            case 0:
                self.graph.sort()
            case 1:
                twin = self.graph.clone()
                assert difference(self.graph, twin) is None
                assert list(twin.sizes.known) == list(self.graph.sizes.known)
                self.graph = twin
            case 2:
                DeadCode().apply(self.graph, Context())
                assert all(node.is_used for node in self.graph)
            case 3:
                CommonSubexpressions().apply(self.graph, Context())
            case 4:
                weights = {name: weight.data for name, weight in self.graph.weights.items()}
                self.graph = parse_graph(print_graph(self.graph), weights)


edits = st.lists(st.tuples(*[st.integers(0, 1000)] * 3), min_size=1, max_size=12)
slow = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@slow
@given(graph=graphs(), steps=edits)
def test_edits_are_refused_or_leave_a_valid_graph(graph: Graph, steps: list[Edit]) -> None:
    editor = Editor(graph)
    for step in steps:
        editor.do(step)
        verify(editor.graph)
        check_use_lists(editor.graph)
        check_round_trip(editor.graph)


@slow
@given(graph=graphs(), steps=edits)
def test_edits_that_keep_the_meaning_keep_the_results(graph: Graph, steps: list[Edit]) -> None:
    """Moving, sorting, cloning, inserting, erasing what is not used: all but replacing."""
    inputs = inputs_for(graph)
    expected = run(graph, inputs)
    editor = Editor(graph)
    for _, i, j in steps:
        actions = (editor.erase, editor.move, editor.insert, editor.ask, editor.bring, editor.whole)
        actions[j % len(actions)](i, j)
    check_same_results(expected, run(editor.graph, inputs))
