"""The text form: what the parser refuses, with the line, and what must survive the round trip."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detc.ir import (
    Builder,
    Graph,
    InstancesType,
    ParseError,
    TensorType,
    Type,
    difference,
    parse_graph,
    parse_type,
    print_graph,
    symbol,
)
from detc.ir.types import DTYPES
from tests.checks import body_of, check_round_trip, graph_of, joined

HEAD = "graph test (level=captured) {\n  input %x: f32[N,4]\n"
TAIL = "  return out=%x\n}\n"

BAD_LINES = {
    "no equals sign": ("%a: f32[N] aten.relu(%x)", "expected '='"),
    "no call": ("%a: f32[N] = aten.relu", "expected '%result: type = dialect.op(...)'"),
    "no type": ("%a = aten.relu(%x)", "expected '%name: type', not '%a'"),
    "an unknown dtype": ("%a: f31[N] = aten.relu(%x)", "not a type: 'f31[N]'"),
    "an unknown op": ("%a: f32[N,4] = aten.rleu(%x)", "there is no op 'aten.rleu'"),
    "an unknown dialect": ("%a: f32[N,4] = nothing.relu(%x)", "there is no op 'nothing.relu'"),
    "an unknown value": ("%a: f32[N,4] = aten.relu(%y)", "%y is used before it is defined"),
    "a value defined twice": ("%x: f32[N,4] = aten.relu(%x)", "%x is defined twice"),
    "a bad size": ("%a: f32[N!] = aten.relu(%x)", "not a dimension: 'N!'"),
    "an operand that is none": ("%a: f32[N,4] = aten.relu(x)", "not an operand: 'x'"),
    "an operand after an attribute": ("%a: f32[N,4] = aten.sum(dim=1, %x)", "'%x' follows an attribute"),
    "a list in a list": ("%a: f32[N,4] = aten.cat([[%x]])", "not a list of values"),
    "a list without an end": ("%a: f32[N,4] = aten.cat([%x)", "not a list of values"),
    "a weight without a type": ("%a: f32[N,4] = aten.add.Tensor(%x, @w)", "not a type"),
    "a weight of a symbolic size": ("%a: f32[N,4] = aten.add.Tensor(%x, @w:f32[N])", "has a symbolic size"),
    "a short weight without a path": (
        "%a: f32[N,4] = aten.add.Tensor(%x, @.w:f32[4])",
        "needs the node's module path",
    ),
    "a literal with too few elements": (
        "%a: f32[N,4] = aten.add.Tensor(%x, f32[4]{1.0})",
        "1 elements for the shape [4]",
    ),
    "a literal with a wrong element": (
        "%a: f32[N,4] = aten.add.Tensor(%x, f32[1]{one})",
        "could not convert",
    ),
    "a literal of an unknown dtype": (
        "%a: f32[N,4] = aten.add.Tensor(%x, f9[1]{1})",
        "there is no dtype 'f9'",
    ),
    "an attribute that is code": ('%a: f32[N,4] = aten.sum(%x, dim=__import__("os"))', "not a dimension"),
    "an attribute that is nothing": ("%a: f32[N,4] = aten.sum(%x, dim=)", "not an attribute's value"),
    "an unknown dtype as attribute": (
        "%a: f32[N,4] = aten.to.dtype(%x, dtype=dtype.f9)",
        "there is no dtype 'f9'",
    ),
    "a string without an end": ('%a: f32[N,4] = aten.sum(%x, dim="a)', "a string does not end"),
    "a bad divisor": ("where N is 4", "expected 'NAME % NUMBER == 0', not 'N is 4'"),
    "bad metadata": ("metadata {", "Expecting property name"),
    "an input without a type": ("input %y", "expected '%name: type'"),
    "an input twice": ("input %x: f32[N]", "there is an input 'x' already"),
    "an output without a name": ("return %x", "expected 'name=%value'"),
    "an output that is a list": ("return out=[%x]", "is no single value"),
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_line_that_does_not_parse_is_named(line: str, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_graph(f"{HEAD}  {line}\n{TAIL}")
    text = str(caught.value)
    assert text.startswith("line 3: ")
    assert message in text
    assert line in text


BAD_TEXTS = {
    "nothing": ("", "line 0: the text ends before the graph does"),
    "no header": ("hello\n", "line 1: expected 'graph NAME (level=LEVEL) {'"),
    "no end": (HEAD, "line 2: the text ends before the graph does"),
    "more after the end": (HEAD + TAIL + "more\n", "line 5: text after the graph's end"),
}


@pytest.mark.parametrize(("text", "message"), BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_text_that_is_no_graph(text: str, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_graph(text)
    assert str(caught.value).startswith(message)


def test_a_weight_with_two_types_is_refused() -> None:
    lines = (
        "  %a: f32[N,4] = aten.add.Tensor(%x, @w:f32[4])\n  %b: f32[N,4] = aten.add.Tensor(%x, @w:f32[1])\n"
    )
    with pytest.raises(ParseError, match=r"line 4: the weight @w is f32\[4\], not f32\[1\]"):
        parse_graph(HEAD + lines + TAIL)
    with pytest.raises(ParseError, match=r"line 3: the weight @w is f32\[5\]"):
        parse_graph(HEAD + lines + TAIL, {"w": torch.zeros(5)})


def test_what_a_graph_can_hold_survives() -> None:
    graph = graph_of(
        joined("""
        where H % 32 == 0
        metadata {"classes": ["a \\"quoted\\" name, and a comma"], "threshold": 0.5}
        input %x: f32[N,3,H,floor(W/2)]
        input %i: i64[P]
        %a: f32[N,3,H/4,floor(W/2)] = aten.slice.Tensor(%x, dim=2, end=H/4)  # stage one | a-pass
        %b: f32[N,3,H,floor(W/2)] = aten.add.Tensor(%x, @c.weight:f32[3,1,1])
        %c: f32[N,3,H,floor(W/2)] = aten.add.Tensor(%b, @.weight:f32[1])  # c.d
        %d: f32[P] = aten.to.dtype(%i, dtype=dtype.f32)
        %e: i64[3] = aten.add.Tensor(i64[3]{1, -2, 3}, i64[]{4})
        %f: bool[2] = aten.logical_not(bool[2]{True, False})
        %g: f32[P] = aten.clamp(%d, none, max=inf)
        %h: instances<batch_index: i64[P], scores: f32[P]> =
            instances.make([%i, %d], names=("batch_index", "scores"))
        return a=%a, c=%c, e=%e, f=%f, g=%g, h=%h, w=@c.weight:f32[3,1,1]""").replace(
            "aten.clamp(%d, none, max=inf)", "aten.clamp(%d, max=inf)"
        )
    )
    check_round_trip(graph)
    names = {node.results[0].name: node for node in graph}
    assert (names["a"].source, names["a"].created_by) == ("stage one", "a-pass")
    assert (names["b"].source, names["b"].created_by) == ("", "capture")
    assert list(graph.weights) == ["c.weight", "c.d.weight"]
    assert names["g"].attributes == {"max": math.inf}


@pytest.mark.parametrize(
    "value", [0.1, 1 / 3, 1e-30, 3.4e38, -0.0, math.inf, -math.inf, math.nan, 16777217.0]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_numbers_survive_to_the_last_bit(value: float, dtype: torch.dtype) -> None:
    graph = Graph("numbers")
    graph.set_outputs({"out": graph.constant(torch.tensor([value, 2.0], dtype=dtype))})
    again = parse_graph(print_graph(graph))
    expected, actual = (next(iter(g.outputs.values())).data for g in (graph, again))  # type: ignore[attr-defined]
    assert torch.equal(expected.view(torch.uint8), actual.view(torch.uint8)) or math.isnan(value)
    assert difference(graph, again) is None


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.floats(width=32), min_size=1, max_size=4))
def test_any_float32_survives(numbers: list[float]) -> None:
    graph = Graph("numbers")
    graph.set_outputs({"out": graph.constant(torch.tensor(numbers, dtype=torch.float32))})
    assert difference(graph, parse_graph(print_graph(graph))) is None


attributes = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**12), 10**12),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from([symbol("N"), symbol("N") + 1, torch.float32, torch.complex64]),
    ),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(value=attributes)
def test_any_attribute_survives(value: object) -> None:
    graph = Graph("attributes")
    x = graph.add_input("x", TensorType(torch.float32, (symbol("N"),)))
    out = Builder(graph).aten.relu(x)
    assert out.producer is not None
    out.producer.attributes["inplace"] = value  # type: ignore[assignment]
    graph.set_outputs({"out": out})
    again = parse_graph(print_graph(graph))
    assert difference(graph, again) is None
    assert print_graph(again) == print_graph(graph)


tensor_types = st.builds(
    TensorType,
    st.sampled_from(sorted(DTYPES.values(), key=str)),
    st.lists(st.sampled_from([1, 7, symbol("N"), symbol("N") * 2 + 1]), max_size=4).map(tuple),
)
fields = st.dictionaries(st.sampled_from(["a", "b_1", "c"]), tensor_types, min_size=1)
types = st.one_of(tensor_types, fields.map(lambda f: InstancesType(tuple(f.items()))))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(type=types)
def test_any_type_survives(type: Type) -> None:
    assert parse_type(str(type)) == type


def test_values_of_one_name_are_told_apart() -> None:
    graph = Graph("names")
    value = graph.add_input("x", TensorType(torch.float32, (2,)))
    for name in ("y", "y", "y_1", "a.b", "7", ""):
        value = Builder(graph).aten.relu(value)
        value.name = name
    graph.set_outputs({"out": value})
    names = [line.split(":")[0] for line in body_of(graph).splitlines()[1:-1]]
    assert names == ["%y", "%y_1", "%y_1_1", "%a_b", "%0", "%1"]
    check_round_trip(graph)


def test_differences_are_found() -> None:
    text = joined("""
        input %x: f32[N,4]
        %a: f32[N,4] = aten.add.Tensor(%x, f32[1]{1.0})  # here
        %b: f32[N] = aten.sum.dim_IntList(%a, dim=(1,))
        return out=%b""")
    graph = graph_of(text)
    for old, new, message in (
        ("dim=(1,)", "dim=(-1,)", "attributes"),
        ("# here", "# there", "it comes from 'there'"),
        ("{1.0}", "{2.0}", "operand 1 differs"),
        ("aten.add", "aten.mul", "the op is aten.mul.Tensor"),
        ("out=%b", "other=%b", "outputs"),
        ("out=%b", "out=%a", "comes from another value"),
        ("%x: f32[N,4]\n", "%y: f32[N,4]\n", "the inputs differ"),
        ("(%a, dim", "(%x, dim", "operand 0 differs"),
        ("dim=(1,))", "dim=(1,), keepdim=False)", "attributes"),
    ):
        changed = text.replace(old, new)
        if "%y" in changed:
            changed = changed.replace("(%x", "(%y")
        assert message in str(difference(graph, graph_of(changed))), new
    assert difference(graph, graph_of(text.replace("# here", "# there")), origins=False) is None
    renamed = graph_of(text)
    renamed.name = "other"
    assert difference(graph, renamed) == "name: 'test' and 'other'"
