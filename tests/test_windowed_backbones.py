"""Users' backbones whose sizes need arithmetic: padded and shifted windows, position tables resized to the map."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

import detc
from detc.frontend import AssumptionWarning
from detc.frontend.detectron2 import build_model
from detc.frontend.detectron2.register import REGISTRIES
from detc.ir import Builder, Graph, TensorType, run, symbol, verify
from detc.ir.tracing import trace
from tests.windowed_backbones import BACKBONES, to_windows

CONFIG = {
    "MODEL": {
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "PIXEL_STD": [58.0, 58.0, 58.0],
        "ANCHOR_GENERATOR": {"SIZES": [[32], [64]], "ASPECT_RATIOS": [[0.5, 1.0, 2.0]]},
        "RPN": {"IN_FEATURES": ["s0", "s1"], "PRE_NMS_TOPK_TEST": 100, "POST_NMS_TOPK_TEST": 30},
        "ROI_HEADS": {"NAME": "StandardROIHeads", "IN_FEATURES": ["s1"], "NUM_CLASSES": 3},
        "ROI_BOX_HEAD": {"NAME": "FastRCNNConvFCHead", "NUM_FC": 1, "FC_DIM": 32, "POOLER_RESOLUTION": 5},
    }
}
SIZES = {
    # Pads of windows of 7 and of odd maps; no pads at all; pads on one side; less than a window.
    "swin": [(60, 100), (224, 112), (56, 85), (20, 37)],
    # The tables for 8 and the embedding for 6 x 6 as they are, windows of 5 with and without pads.
    "vitdet": [(64, 64), (48, 48), (40, 120), (61, 90)],
}


@pytest.fixture
def backbone_names() -> Iterator[None]:
    """The backbones are registered for one test."""
    known = REGISTRIES["MODEL.BACKBONE.NAME"]
    before = dict(known)
    for name, cls in BACKBONES.items():
        detc.register("MODEL.BACKBONE.NAME", name)(lambda cfg, shape, cls=cls: cls())
    yield
    known.clear()
    known.update(before)


@pytest.mark.usefixtures("backbone_names")
@pytest.mark.parametrize("name", BACKBONES)
def test_a_detector_of_ones_own(name: str) -> None:
    """One file, for images of all sizes, gives what the model gives."""
    torch.manual_seed(0)
    model = build_model({"MODEL": {**CONFIG["MODEL"], "BACKBONE": {"NAME": name}}})
    with warnings.catch_warnings():
        warnings.simplefilter("error", AssumptionWarning)
        artifact = detc.compile(model)
    assert "assumptions" not in artifact.metadata
    images = {
        f"{height}x{width}": {"image": 255 * torch.rand(3, height, width)} for height, width in SIZES[name]
    }
    rows = detc.check_parity(model, artifact, images)
    assert [row.report.problem for row in rows if not row.report.agrees] == []
    assert sum(row.report.matched for row in rows) > 0


def capture(
    function: Callable[..., object], shape: tuple[object, ...], root: nn.Module | None = None
) -> Graph:
    """The function of one tensor as a graph with the output `y`."""
    graph = Graph("own", level="captured")
    x = graph.add_input("x", TensorType(torch.float32, shape))
    graph.set_outputs({"y": trace(Builder(graph), function, (x,), root=root or nn.Module(), path="part")})
    verify(graph)
    return graph


N, H, W = symbol("N"), symbol("H", 2), symbol("W", 2)


def parts(x: Tensor) -> Tensor:
    y = x + 1
    left, right = y.split([2, 2], dim=1)
    right.copy_(left.flip(2))
    left.zero_()
    y.chunk(2, dim=1)[0].narrow(2, 1, 2).fill_(3)
    y.transpose(1, 2)[:, 0].add_(5)
    return y


def stacked(x: Tensor) -> Tensor:
    y = x.reshape(x.shape[0], 2, 2, -1).clone()
    q, k = y.unbind(1)
    q.mul_(3)
    k[:, 0] = q[:, 1]
    return y.squeeze(1) + q.unsqueeze(1)


@pytest.mark.parametrize("function", [parts, stacked], ids=lambda f: f.__name__)
def test_a_change_of_a_part_is_a_change_of_the_whole(function: Callable[[Tensor], Tensor]) -> None:
    graph = capture(function, (N, 4, W))
    for width in (4, 10):
        x = torch.randn(2, 4, width)
        torch.testing.assert_close(run(graph, {"x": x})["y"], function(x.clone()), rtol=0, atol=0)


def test_whole_numbers_of_sizes() -> None:
    """`int` of a size, or of a quotient of sizes, keeps it."""

    def halves(x: Tensor) -> Tensor:
        count, height = int(x.shape[0]), int(x.shape[2] / 2)
        assert isinstance(int("3"), int) and isinstance(count, int | torch.SymInt)
        return x.reshape(count, -1, height, 2).sum(-1) / float(height) + height * 0.5

    graph = capture(halves, (N, 3, H, W))
    for height, width in ((4, 6), (10, 2)):
        x = torch.randn(2, 3, height, width)
        torch.testing.assert_close(run(graph, {"x": x})["y"], halves(x))
    assert int is __builtins__["int"] and "int" not in globals()  # type: ignore[index]


def test_a_loop_over_a_size_names_its_place() -> None:
    def rows(x: Tensor) -> Tensor:
        return torch.stack([x[:, :, row].mean() for row in range(x.shape[2])])

    with pytest.raises(
        detc.UnsupportedError,
        match=r"^part \(test_windowed_backbones.py:\d+\) needs the size H as a number.*@detc.importer",
    ):
        capture(rows, (N, 3, H, W))


def test_sizes_that_grow_without_end_are_refused() -> None:
    def grown(x: Tensor) -> Tensor:
        size = x.shape[2]
        for step in range(3, 40):
            size = size + (size * size // step) % 5
            x = nn.functional.pad(x, (0, 0, 0, size - x.shape[2]))
        return x

    with pytest.raises(
        detc.UnsupportedError, match=r"^part \(test_windowed_backbones.py:\d+\) computes sizes from sizes"
    ):
        capture(grown, (N, 3, H, W))


def assumptions(function: Callable[[Tensor], Tensor]) -> list[str]:
    return [entry["condition"] for entry in capture(function, (N, 3, H, W)).metadata.get("assumptions", [])]


def test_branches_that_only_save_work_are_none() -> None:
    def cropped(x: Tensor) -> Tensor:
        right = -x.shape[3] % 6
        y = nn.functional.pad(x, (0, right)).cumsum(2)
        return y[..., : x.shape[3]] if right > 0 else y

    def other_for_some(x: Tensor) -> Tensor:
        right = -x.shape[3] % 6
        return x * 2 if right > 0 else x * 3

    def refused_for_some(x: Tensor) -> Tensor:
        if x.shape[2] == 8:
            raise ValueError("not for 8")
        return to_windows(x.permute(0, 2, 3, 1), 2)

    def other_far_away(x: Tensor) -> Tensor:
        return x * 2 if x.shape[2] * x.shape[3] < 3_000_000_000 else x

    assert assumptions(cropped) == []
    assert assumptions(other_for_some) == ["-W+6*ceil(W/6) > 0"]
    assert assumptions(refused_for_some) == ["H != 8"]
    assert assumptions(other_far_away) == ["H*W < 3000000000"]
