"""Canonicalize, rule by rule: the text before and after, with the results compared."""

from __future__ import annotations

import pytest

from detc.ir import verify
from detc.passes import Canonicalize, Context
from tests.checks import body_of, check_rewrite, graph_of, joined

X = "input %x: f64[N,4,H,W]\n"
ROWS = "input %x: f64[N,6]\n"

SAME_AS_INPUT = {
    "clone": "aten.clone(%x)",
    "contiguous": "aten.contiguous(%x)",
    "detach": "aten.detach(%x)",
    "dropout in eval mode": "aten.dropout(%x, p=0.5, train=False)",
    "cast to its own dtype": "aten.to.dtype(%x, dtype=dtype.f64)",
    "copy to its own dtype": "aten._to_copy(%x, dtype=dtype.f64)",
    "expand to its own shape": "aten.expand(%x, size=(N, 4, H, W))",
    "repeat once": "aten.repeat(%x, repeats=(1, 1, 1, 1))",
    "slice of all": "aten.slice.Tensor(%x, dim=1, start=0, end=4)",
    "padding by nothing": "aten.constant_pad_nd(%x, pad=(0, 0, 0, 0))",
    "cat of one": "aten.cat([%x], dim=1)",
    "times one": "aten.mul.Tensor(%x, f64[1,4,1,1]{1.0, 1.0, 1.0, 1.0})",
    "one times": "aten.mul.Tensor(f64[]{1.0}, %x)",
    "divided by one": "aten.div.Tensor(%x, f64[]{1.0})",
    "plus zero": "aten.add.Tensor(%x, f64[]{0.0})",
    "zero plus": "aten.add.Tensor(f64[]{0.0}, %x)",
    "minus zero": "aten.sub.Tensor(%x, f64[]{0.0})",
    "times the number one": "aten.mul.Tensor(%x, other=1)",
    "plus the number zero": "aten.add.Scalar(%x, other=0.0)",
    "view to its own shape": "aten.view(%x, size=(N, 4, H, W))",
    "permute to its own order": "aten.permute(%x, dims=(0, 1, 2, -1))",
}


@pytest.mark.parametrize("expression", SAME_AS_INPUT.values(), ids=SAME_AS_INPUT)
def test_what_changes_nothing_goes(expression: str) -> None:
    before = X + f"%y: f64[N,4,H,W] = {expression}\n%z: f64[N,4,H,W] = aten.tanh(%y)\nreturn out=%z"
    after = X + "%z: f64[N,4,H,W] = aten.tanh(%x)\nreturn out=%z"
    check_rewrite(Canonicalize(), before, after, N=2, H=3, W=5)


UNCHANGED = {
    "times two": "%y: f64[N,4,H,W] = aten.mul.Tensor(%x, f64[]{2.0})",
    "one minus": "%y: f64[N,4,H,W] = aten.sub.Tensor(f64[]{0.0}, %x)",
    "zero plus twice": "%y: f64[N,4,H,W] = aten.add.Tensor(f64[]{0.0}, %x, alpha=2)",
    "times one of several": "%y: f64[N,4,H,W] = aten.mul.Tensor(%x, f64[4,1,1]{1.0, 1.0, 1.0, 2.0})",
    "times ones that broadcast": "%y: f64[2,N,4,H,W] = aten.mul.Tensor(%x, f64[2,1,1,1,1]{1.0, 1.0})",
    "another dtype": "%y: f32[N,4,H,W] = aten.to.dtype(%x, dtype=dtype.f32)",
    "padding that shifts": "%y: f64[N,4,H,W] = aten.constant_pad_nd(%x, pad=(1, -1))",
    "slice of some": "%y: f64[N,2,H,W] = aten.slice.Tensor(%x, dim=1, start=0, end=2)",
    "cat of two": "%y: f64[2*N,4,H,W] = aten.cat([%x, %x])",
    "swapped axes": "%y: f64[N,4,W,H] = aten.permute(%x, dims=(0, 1, 3, 2))",
}


@pytest.mark.parametrize("line", UNCHANGED.values(), ids=UNCHANGED)
def test_what_changes_something_stays(line: str) -> None:
    text = X + line + "\nreturn out=%y"
    check_rewrite(Canonicalize(), text, text, N=2, H=3, W=5)


def test_dropout_in_training_stays() -> None:
    graph = graph_of(X + "%y: f64[N,4,H,W] = aten.dropout(%x, p=0.5, train=True)\nreturn out=%y")
    assert not Canonicalize().apply(graph, Context())


def test_a_copy_beside_an_op_with_effects_stays() -> None:
    text = X + ("%y: f64[N,4,H,W] = aten.clone(%x)\n%z: f64[N,4,H,W] = aten.relu_(%y)\nreturn out=%z, x=%x")
    graph = graph_of(text)
    assert not Canonicalize().apply(graph, Context())
    assert body_of(graph) == text


VIEWS = {
    "flatten": ("f64[N,4*H*W]", "aten.flatten.using_ints(%x, start_dim=1)"),
    "unsqueeze": ("f64[N,4,1,H,W]", "aten.unsqueeze(%x, dim=2)"),
    "view": ("f64[N,2,2,H,W]", "aten.view(%x, size=(N, 2, 2, H, W))"),
    "unflatten": ("f64[N,2,2,H,W]", "aten.unflatten.int(%x, dim=1, sizes=(2, 2))"),
    "unsafe view": ("f64[4*N,H*W]", "aten._unsafe_view(%x, size=(4*N, H*W))"),
}


@pytest.mark.parametrize(("type", "expression"), VIEWS.values(), ids=VIEWS)
def test_views_become_reshape(type: str, expression: str) -> None:
    before = X + f"%y: {type} = {expression}\nreturn out=%y"
    shape = ", ".join(type[4:-1].split(","))
    check_rewrite(
        Canonicalize(),
        before,
        X + f"%y: {type} = aten.reshape(%x, shape=({shape}))\nreturn out=%y",
        N=2,
        H=3,
        W=5,
    )


def test_squeezing_becomes_reshape() -> None:
    before = """
        input %x: f64[N,1,6,1]
        %a: f64[N,6] = aten.squeeze(%x)
        %b: f64[N,6,1] = aten.squeeze.dim(%x, dim=1)
        %c: f64[N,6] = aten.squeeze.dims(%x, dim=(1, -1))
        return a=%a, b=%b, c=%c"""
    after = """
        input %x: f64[N,1,6,1]
        %a: f64[N,6] = aten.reshape(%x, shape=(N, 6))
        %b: f64[N,6,1] = aten.reshape(%x, shape=(N, 6, 1))
        %c: f64[N,6] = aten.reshape(%x, shape=(N, 6))
        return a=%a, b=%b, c=%c"""
    check_rewrite(Canonicalize(), before, after, N=3)


def test_a_size_that_no_tensor_has_is_left_to_torch() -> None:
    # H appears as H + 1 only: the running graph cannot read it off.
    before = "input %x: f64[4,H+1]\n%y: f64[2,2*H+2] = aten.view(%x, size=(2, -1))\nreturn out=%y"
    after = "input %x: f64[4,H+1]\n%y: f64[2,2*H+2] = aten.reshape(%x, shape=(2, -1))\nreturn out=%y"
    check_rewrite(Canonicalize(), before, after, H=4)


def test_a_size_that_may_be_zero_beside_it_is_left_alone() -> None:
    # With N = 0 torch could not tell what -1 stands for.
    text = (
        "input %x: f64[N,2,H+1]\n%y: f64[N,2*H+2] = aten.flatten.using_ints(%x, start_dim=1)\nreturn out=%y"
    )
    check_rewrite(Canonicalize(), text, text, N=0, H=2)


def test_two_such_sizes_are_left_alone() -> None:
    text = "input %x: f64[H+1,W+1]\n%y: f64[H+1,1,W+1] = aten.unsqueeze(%x, dim=1)\nreturn out=%y"
    check_rewrite(Canonicalize(), text, text, H=2, W=3)


def test_chains_of_views_become_one() -> None:
    before = (
        X
        + """
        %a: f64[N,4,H*W] = aten.flatten.using_ints(%x, start_dim=2)
        %b: f64[N,4,H*W,1] = aten.unsqueeze(%a, dim=-1)
        %c: f64[4*N,H*W] = aten.view(%b, size=(4*N, -1))
        return out=%c"""
    )
    after = X + "%c: f64[4*N,H*W] = aten.reshape(%x, shape=(4*N, H*W))\nreturn out=%c"
    check_rewrite(Canonicalize(), before, after, N=2, H=3, W=5)


def test_chains_of_transposes_become_one() -> None:
    before = (
        X
        + """
        %a: f64[N,W,H,4] = aten.transpose.int(%x, dim0=1, dim1=-1)
        %b: f64[W,N,H,4] = aten.movedim.int(%a, source=1, destination=0)
        %c: f64[W,4,H,N] = aten.swapaxes(%b, axis0=1, axis1=3)
        return out=%c"""
    )
    after = X + "%c: f64[W,4,H,N] = aten.permute(%x, dims=(3, 1, 2, 0))\nreturn out=%c"
    check_rewrite(Canonicalize(), before, after, N=2, H=3, W=5)


def test_a_transpose_there_and_back_goes() -> None:
    before = (
        ROWS
        + """
        %a: f64[6,N] = aten.t(%x)
        %b: f64[N,6] = aten.numpy_T(%a)
        %c: f64[N,6] = aten.relu(%b)
        return out=%c"""
    )
    check_rewrite(Canonicalize(), before, ROWS + "%c: f64[N,6] = aten.relu(%x)\nreturn out=%c", N=2)


def test_a_second_relu_goes() -> None:
    before = ROWS + "%a: f64[N,6] = aten.relu(%x)\n%b: f64[N,6] = aten.relu(%a)\nreturn out=%b"
    check_rewrite(Canonicalize(), before, ROWS + "%a: f64[N,6] = aten.relu(%x)\nreturn out=%a", N=2)


def test_casts_have_one_form() -> None:
    before = ROWS + "%a: f32[N,6] = aten._to_copy(%x, dtype=dtype.f32)\nreturn out=%a"
    after = ROWS + "%a: f32[N,6] = aten.to.dtype(%x, dtype=dtype.f32)\nreturn out=%a"
    check_rewrite(Canonicalize(), before, after, N=2)


def test_products_with_a_transposed_matrix_become_linear() -> None:
    before = (
        ROWS
        + """
        %w: f64[6,3] = aten.t(@w:f64[3,6])
        %a: f64[N,3] = aten.addmm(@b:f64[3], %x, %w)
        %v: f64[3,3] = aten.transpose.int(@v:f64[3,3], dim0=0, dim1=1)
        %c: f64[N,3] = aten.mm(%a, %v)
        %u: f64[3,3] = aten.t(@u:f64[3,3])
        %d: f64[N,3] = aten.matmul(%c, %u)
        return out=%d"""
    )
    after = (
        ROWS
        + """
        %a: f64[N,3] = aten.linear(%x, @w:f64[3,6], @b:f64[3])
        %c: f64[N,3] = aten.linear(%a, @v:f64[3,3])
        %d: f64[N,3] = aten.linear(%c, @u:f64[3,3])
        return out=%d"""
    )
    check_rewrite(Canonicalize(), before, after, N=2)


def test_other_products_stay() -> None:
    text = (
        ROWS
        + """
        %a: f64[N,3] = aten.addmm(@b:f64[3], %x, @w:f64[6,3], beta=2)
        %w: f64[3,6] = aten.permute(@w:f64[6,3], dims=(1, 0))
        %m: f64[N,6] = aten.addmm(@m:f64[1,6], %a, %w)
        return out=%m"""
    )
    check_rewrite(Canonicalize(), text, text, N=2)


def test_general_convolutions_get_their_own_op() -> None:
    both = "stride=(2, 2), padding=(1, 1), dilation=(1, 1)"
    before = f"""
        input %x: f64[N,4,8,8]
        %a: f64[N,6,4,4] = aten.convolution(%x, @w:f64[6,2,3,3], @b:f64[6],
            {both}, transposed=False, output_padding=(0, 0), groups=2)
        %b: f64[N,8,9,9] = aten.convolution(%a, @v:f64[6,4,5,5], none,
            {both}, transposed=True, output_padding=(0, 0), groups=2)
        return a=%a, b=%b"""
    after = f"""
        input %x: f64[N,4,8,8]
        %a: f64[N,6,4,4] = aten.conv2d(%x, @w:f64[6,2,3,3], @b:f64[6], {both}, groups=2)
        %b: f64[N,8,9,9] = aten.conv_transpose2d.input(%a, @v:f64[6,4,5,5],
            {both}, groups=2, output_padding=(0, 0))
        return a=%a, b=%b"""
    check_rewrite(Canonicalize(), joined(before), joined(after), N=2)


def test_one_dimensional_convolutions_too() -> None:
    options = "stride=(1,), padding=(0,), dilation=(1,), transposed={}, output_padding=(0,), groups=1"
    before = f"""
        input %x: f64[N,4,8]
        %a: f64[N,6,6] = aten.convolution(%x, @w:f64[6,4,3], none, {options.format(False)})
        %b: f64[N,4,8] = aten.convolution(%a, @v:f64[6,4,3], none, {options.format(True)})
        return a=%b"""
    graph = graph_of(before)
    Canonicalize().apply(graph, Context())
    verify(graph)
    assert [node.op.name for node in graph] == ["aten.conv1d", "aten.conv_transpose1d"]


def test_tracers_batch_norm_and_pooling_get_their_usual_form() -> None:
    pool = "kernel_size=(3, 3), stride=(1, 1), padding=(1, 1)"
    norm = "%x, @g:f64[4], @b:f64[4], @mean:f64[4], @var:f64[4]"
    before = f"""
        input %x: f64[N,4,H,W]
        %a: f64[N,4,H,W], %m: f64[0], %r: f64[0] =
            aten._native_batch_norm_legit_no_training({norm}, momentum=0.1, eps=0.001)
        %p: f64[N,4,H,W], %i: i64[N,4,H,W] = aten.max_pool2d_with_indices(%a, {pool})
        return out=%p"""
    after = f"""
        input %x: f64[N,4,H,W]
        %a: f64[N,4,H,W] = aten.batch_norm({norm},
            training=False, momentum=0.1, eps=0.001, cudnn_enabled=True)
        %p: f64[N,4,H,W] = aten.max_pool2d(%a, {pool})
        return out=%p"""
    check_rewrite(Canonicalize(), joined(before), joined(after), N=2, H=3, W=5)


def test_a_pooling_whose_indices_are_used_stays() -> None:
    text = """
        input %x: f64[N,4,H,W]
        %p: f64[N,4,H,W], %i: i64[N,4,H,W] =
            aten.max_pool2d_with_indices(%x, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
        return out=%p, where=%i"""
    graph = graph_of(joined(text))
    context = Context()
    assert not Canonicalize().apply(graph, context)
    assert context.rules["", "AsMaxPool"].refused == {"result 1 is used": 1}
