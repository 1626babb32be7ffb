"""What the tracer records of functions is what they compute: in-place changes, views, constants, numbers from sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from detc.ir import Builder, Graph, TensorType, UnsupportedError, run, symbol, verify
from detc.ir.tracing import trace

SHAPE = (symbol("N"), 4, symbol("H", 4), symbol("W", 4))
SIZES = [(2, 4, 8, 12), (1, 4, 4, 4)]


def traced(function: Callable[[Tensor], Tensor]) -> Graph:
    graph = Graph("g", level="captured")
    x = graph.add_input("x", TensorType(torch.float32, SHAPE))
    graph.set_outputs({"y": trace(Builder(graph), function, (x,), root=nn.Module(), path="function")})
    verify(graph)
    return graph


def check(function: Callable[[Tensor], Tensor]) -> Graph:
    """The graph gives what the function gives, and none of the function's tensors is changed."""
    graph = traced(function)
    for shape in SIZES:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        wanted = function(x.clone())
        (found,) = run(graph, {"x": x}).values()
        assert torch.equal(found, wanted) and found.dtype == wanted.dtype
    return graph


def other_shape(x: Tensor) -> Tensor:
    y = x + 0
    y.unsqueeze_(0)
    return y.squeeze_(0) * 2


def other_order(x: Tensor) -> Tensor:
    y = x * 1
    y.transpose_(1, 2)
    return y + 1


def reshaped_view(x: Tensor) -> Tensor:
    y = x + 1
    z = y.reshape(y.shape[0], -1)
    z += 1
    return y


def reshaped_copy(x: Tensor) -> Tensor:
    y = (x + 1).permute(0, 2, 3, 1)
    z = y.reshape(y.shape[0], -1)
    z += 1
    return y


def contiguous_copy(x: Tensor) -> Tensor:
    y = (x + 1).transpose(2, 3)
    z = y.contiguous()
    z.zero_()
    return y.contiguous().view(y.shape[0], -1)


def parts(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, 1:3] = x[:, 1:3]
    y[:, 0].fill_(3)
    y[..., 0::2, :] += 1
    first, second = y.chunk(2, 1)
    first += 1
    second *= 2
    return y


def view_of_view(x: Tensor) -> Tensor:
    y = x * 1
    flat = y.view(-1)
    flat[1:].zero_()
    return y + flat.view(y.shape)


def moved(x: Tensor) -> Tensor:
    y = x.movedim(1, -1).clone()
    z = y.movedim(-1, 1)
    z += 1
    return y


def diagonal(x: Tensor) -> Tensor:
    y = x.clone()
    torch.diagonal(y[..., :4, :4], dim1=-2, dim2=-1).fill_(1)
    return y


def masked(x: Tensor) -> Tensor:
    y = x.clone()
    y[x > 0] = 0
    return y


def expanded(x: Tensor) -> Tensor:
    y = x.expand(2, -1, -1, -1, -1).clone()
    y[1] = 0
    return y.sum(0)


def keeps_its_type(x: Tensor) -> Tensor:
    y = x.clone()
    y += torch.ones(1, dtype=torch.float64)
    return y


def chained(x: Tensor) -> Tensor:
    y = x + 1
    y.mul_(2).add_(x, alpha=3).clamp_(min=0)
    return y


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).reshape(x.shape[0], -1)


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)


def own_gradient(x: Tensor) -> Tensor:
    found: Tensor = Swish.apply(x)
    return found


def checkpointed(x: Tensor) -> Tensor:
    found: Tensor = checkpoint(lambda y: y * 2 + 1, x, use_reentrant=False)
    return found


def constants(x: Tensor) -> Tensor:
    return x[:, torch.tensor([0, 2])] * x.new_tensor([1.0, 2.0]).view(1, 2, 1, 1)


def tensors_of_sizes(x: Tensor) -> Tensor:
    height, width = x.shape[-2:]
    made = (
        torch.tensor([[height, width], [width, 1]]).sum()
        + torch.as_tensor(height * 0.5)
        + x.new_tensor([width])
    )
    return x * made + torch.linspace(-1, height, steps=width) + torch.linspace(0, 1, width // 4)[:1]


def numbers_from_sizes(x: Tensor) -> Tensor:
    return x * x.shape[2] ** -0.5 + x.shape[3] / x.shape[2] + int(x.shape[3] * 0.5)


@pytest.mark.parametrize(
    "function",
    [
        *(other_shape, other_order, reshaped_view, reshaped_copy, contiguous_copy, parts, view_of_view, moved, diagonal),
        *(masked, expanded, keeps_its_type, chained, channels_last, own_gradient, checkpointed, constants),
    ],
)  # fmt: skip
def test_the_graph_gives_what_the_function_gives(function: Callable[[Tensor], Tensor]) -> None:
    check(function)


@pytest.mark.parametrize("function", [numbers_from_sizes, tensors_of_sizes])
def test_numbers_from_sizes(function: Callable[[Tensor], Tensor]) -> None:
    graph = traced(function)
    for shape in SIZES:
        x = torch.randn(shape)
        torch.testing.assert_close(run(graph, {"x": x})["y"], function(x))


def test_nothing_outside_is_changed() -> None:
    layer = nn.BatchNorm2d(4).eval()
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}

    def function(x: Tensor) -> Tensor:
        layer.running_mean.add_(1)
        return layer(x)

    fast = torch.backends.mha.get_fastpath_enabled()
    traced(function)
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())
    assert torch.backends.mha.get_fastpath_enabled() is fast and not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x * x.max().item(), "looks at the data of a tensor"),
        (lambda x: x if x.sum() > 0 else -x, "looks at the data of a tensor"),
        (lambda x: x.add_(1), "changes its input in place"),
        (lambda x: torch.add(x, 1, out=torch.empty(1)), "has no place in the IR"),
        (lambda x: x[:, : round(x.shape[1] * x.shape[2] * 0.3)], "cannot express: round"),
    ],
)
def test_what_is_no_pure_function_is_refused(function: Callable[[Tensor], Tensor], reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        traced(function)


def test_a_tensor_that_is_kept_says_so_when_it_is_used() -> None:
    kept: list[Tensor] = []

    def function(x: Tensor) -> Tensor:
        kept.append(x)
        return x + 1

    traced(function)
    with pytest.raises(UnsupportedError, match="with a tensor of a trace that has ended"):
        kept[0] + 1
    assert repr(kept[0]) == "<traced f32[N,4,H,W]>"
