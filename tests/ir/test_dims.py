"""Sizes: arithmetic agrees with that of numbers, one spelling for one size, the text reads back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detc.ir import Dim, IRError, SymExpr, evaluate, parse_dim, symbol
from detc.ir.dims import floor_div, maximum, minimum, mod, substitute, symbols_of

MULTIPLES = {"A": 1, "B": 1, "H": 32, "W": 4}
SYMBOLS = [symbol(name, multiple) for name, multiple in MULTIPLES.items()]

leaves = st.one_of(st.integers(-6, 12), st.sampled_from(SYMBOLS))
OPERATIONS: dict[str, Callable[[Dim, Dim], Dim]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "min": minimum,
    "max": maximum,
}


def _combined(children: st.SearchStrategy[Dim]) -> st.SearchStrategy[Dim]:
    two = st.tuples(st.sampled_from(sorted(OPERATIONS)), children, children)
    halved = st.tuples(children, st.integers(1, 9), st.booleans())
    return st.one_of(
        two.map(lambda t: OPERATIONS[t[0]](t[1], t[2])),
        halved.map(lambda t: floor_div(t[0], t[1]) if t[2] else mod(t[0], t[1])),
    )


dims = st.recursive(leaves, _combined, max_leaves=8)
values = st.fixed_dictionaries(
    {name: st.integers(0, 40).map(lambda n, m=multiple: n * m) for name, multiple in MULTIPLES.items()}
)
thorough = settings(max_examples=300, deadline=None, derandomize=True)


@thorough
@given(a=dims, b=dims, given=values)
def test_arithmetic_agrees_with_numbers(a: Dim, b: Dim, given: dict[str, int]) -> None:
    left, right = evaluate(a, given), evaluate(b, given)
    assert evaluate(a + b, given) == left + right
    assert evaluate(a - b, given) == left - right
    assert evaluate(a * b, given) == left * right
    assert evaluate(minimum(a, b), given) == min(left, right)
    assert evaluate(maximum(a, b), given) == max(left, right)
    if isinstance(a, SymExpr):
        assert evaluate(-a, given) == -left


@thorough
@given(a=dims, divisor=st.integers(-9, 9).filter(bool), given=values)
def test_division_by_a_number_agrees_with_numbers(a: Dim, divisor: int, given: dict[str, int]) -> None:
    assert evaluate(floor_div(a, divisor), given) == evaluate(a, given) // divisor
    assert evaluate(mod(a, divisor), given) == evaluate(a, given) % divisor


@thorough
@given(a=dims, b=dims, given=values)
def test_division_by_a_size_agrees_with_numbers(a: Dim, b: Dim, given: dict[str, int]) -> None:
    divisor = evaluate(b, given)
    if divisor and b != 0:
        assert evaluate(floor_div(a, b), given) == evaluate(a, given) // divisor
        assert evaluate(mod(a, b), given) == evaluate(a, given) % divisor


@thorough
@given(a=dims)
def test_the_text_reads_back(a: Dim) -> None:
    again = parse_dim(str(a), MULTIPLES)
    assert again == a
    assert hash(again) == hash(a)
    assert str(again) == str(a)


@thorough
@given(a=dims, b=dims, given=values)
def test_substituting_is_evaluating_in_two_steps(a: Dim, b: Dim, given: dict[str, int]) -> None:
    # A holds no divisor: any size may stand for it.
    replaced = substitute(a, {"A": b})
    assert evaluate(replaced, given) == evaluate(a, {**given, "A": evaluate(b, given)})


@thorough
@given(a=dims, b=dims, c=dims)
def test_one_size_has_one_form(a: Dim, b: Dim, c: Dim) -> None:
    assert a + b == b + a
    assert a * b == b * a
    assert (a + b) + c == a + (b + c)
    assert (a + b) * c == a * c + b * c
    assert a - a == 0
    assert {s.name for s in symbols_of(a)} <= set(MULTIPLES)


TEXTS = {
    "H/4": floor_div(symbol("H", 32), 4),
    "floor(A/2)": floor_div(symbol("A"), 2),
    "ceil(A/2)": floor_div(symbol("A") + 1, 2),
    "ceil(A/4)": floor_div(floor_div(symbol("A") + 1, 2) + 1, 2),
    "floor((A+B)/(A*B))": floor_div(symbol("A") + symbol("B"), symbol("A") * symbol("B")),
    "2*A-B+3": 2 * symbol("A") - symbol("B") + 3,
    "A*A*B": symbol("A") * symbol("B") * symbol("A"),
    "min(A,4)": minimum(symbol("A"), 4),
    "A-3*floor(A/3)": mod(symbol("A"), 3),
    "2*ceil(A/2)": symbol("A") + mod(symbol("A"), 2),
    "mod(A, B)": mod(symbol("A"), symbol("B")),
    "7*ceil(A/7)": symbol("A") + mod(7 - mod(symbol("A"), 7), 7),
    "7*ceil(H/28)": floor_div(symbol("H", 32), 4) + mod(-floor_div(symbol("H", 32), 4), 7),
    "A*B+1": floor_div(7 * symbol("A") * symbol("A") * symbol("B") + 7 * symbol("A"), 7 * symbol("A")),
}


@pytest.mark.parametrize("text", TEXTS)
def test_how_sizes_are_written(text: str) -> None:
    assert str(TEXTS[text]).replace(" ", "") == text.replace(" ", "")
    assert parse_dim(text, {"H": 32}) == TEXTS[text]


def test_a_known_divisor_makes_division_exact() -> None:
    height = symbol("H", 32)
    assert floor_div(height, 8) * 8 == height
    assert mod(height, 16) == 0
    assert mod(height + 3, 16) == 3
    assert floor_div(height + 7, 8) == floor_div(height, 8)
    assert floor_div(symbol("A") * 6, symbol("A")) == 6
    assert floor_div(symbol("A"), symbol("A")) == 1
    assert mod(symbol("A") * symbol("B"), symbol("A")) == 0
    assert floor_div(-symbol("A"), 3) == -floor_div(symbol("A") + 2, 3)


@pytest.mark.parametrize("text", ["", "A+", "A**2", "A.b", "f(A)", "'A'", "1.5", "A/0", "A B", "[A]", "A/B"])
def test_text_that_is_no_size(text: str) -> None:
    with pytest.raises(IRError):
        parse_dim(text)


def test_a_size_that_is_not_known() -> None:
    with pytest.raises(IRError, match="A is not known"):
        evaluate(symbol("A"), {})


def test_a_name_that_is_no_identifier() -> None:
    with pytest.raises(IRError, match="identifier"):
        symbol("a b")
