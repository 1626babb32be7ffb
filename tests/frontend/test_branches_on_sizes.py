"""A module that branches on a size is captured for one branch: the graph says for which, or it is an error."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import detc
from detc.frontend import AssumptionWarning
from detc.ir import Condition, symbol
from tests import zoo

NAME = "faster_rcnn_R_50_FPN"


class ByImageSize(nn.Module):
    """A backbone that treats small images in another way."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.size_divisibility = backbone.size_divisibility
        self.padding_constraints = backbone.padding_constraints

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if x.shape[2] // 4 <= 40:
            x = x.roll(8, dims=3)
        return self.backbone(x)


class ByRows(nn.Module):
    """A head that treats few rows in another way."""

    def __init__(self, head: nn.Module, rows: int) -> None:
        super().__init__()
        self.head = head
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] <= self.rows:
            return self.head(x) * 0
        return self.head(x)


def load() -> nn.Module:
    return detc.load_model(zoo.config_path(NAME), zoo.weights_path(NAME))


def test_a_branch_on_the_images_size_is_an_assumption_that_runtimes_check() -> None:
    model = load()
    plain = model.backbone
    model.backbone = ByImageSize(plain).eval()
    with pytest.warns(
        AssumptionWarning, match=r"holds for images \(padded\) with .*H.*test_branches_on_sizes.py"
    ):
        graph = detc.capture(model)
    [assumption] = graph.metadata["assumptions"]
    assert assumption["where"].startswith("backbone (test_branches_on_sizes.py:")
    condition = Condition.parse(assumption["condition"], {"H": 32})
    assert [condition.holds({"H": size, "W": 64}) for size in (32, 160, 192, 800)] == [
        False,
        False,
        True,
        True,
    ]
    artifact = detc.emit(detc.pipeline("onnx").run(graph))
    large, small = torch.rand(3, 170, 90) * 255, torch.rand(3, 120, 200) * 255
    with torch.no_grad():
        expected = model([{"image": large}])[0]["instances"]
    found = artifact([{"image": large}])[0]["instances"]
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=1e-3, atol=1e-3)
    artifact([{"image": large}, {"image": small}])  # padded, the batch is large
    with pytest.raises(detc.InputError, match=r"was captured for images with .*H=128, W=224"):
        artifact([{"image": small}])


def test_a_branch_on_a_number_of_rows_is_an_error() -> None:
    model = load()
    model.roi_heads.box_head = ByRows(model.roi_heads.box_head, 3).eval()
    with pytest.raises(
        detc.UnsupportedError,
        match=r"^roi_heads.box_head \(test_branches_on_sizes.py:\d+\) branches on a number of rows .*proposals",
    ):
        detc.capture(model)


def test_asking_whether_there_is_any_row_is_no_branch() -> None:
    model = load()
    model.roi_heads.box_head = ByRows(model.roi_heads.box_head, 0).eval()
    assert "assumptions" not in detc.capture(model).metadata


@pytest.mark.parametrize(
    "text", ["H/32 > 7", "3 <= floor(W/64)", "N != 1", "mod(H, 64) == 0", "max(H, W) < 2*N"]
)
def test_conditions_read_what_they_write(text: str) -> None:
    condition = Condition.parse(text, {"H": 32, "W": 32})
    assert Condition.parse(str(condition), {"H": 32, "W": 32}) == condition
    assert {s.name for s in condition.symbols()} <= {"N", "H", "W"}


def test_what_is_no_condition() -> None:
    for text in ("H", "H > 3 > 2", "H ~ 3", "__import__('os') > 1"):
        with pytest.raises(detc.ir.IRError):
            Condition.parse(text)
    assert not Condition(symbol("N"), ">=", 2).holds({"N": 1})
