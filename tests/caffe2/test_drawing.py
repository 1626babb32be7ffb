"""`Caffe2Model.save_graph`: every operator and tensor is drawn, inside its box, and boxes and edges keep clear."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from detc.backends.caffe2.arguments import make_operator
from detc.backends.caffe2.proto import NetDef
from detc.export import Caffe2Model
from detc.ir import InputError
from tests import zoo

from .zoo import ZOO

SVG = "{http://www.w3.org/2000/svg}"


def _draw(
    model: Caffe2Model, path: Path, inputs: list[dict[str, object]] | None = None
) -> ElementTree.Element:
    model.save_graph(path, inputs)
    return ElementTree.fromstring(path.read_text())


def _boxes(root: ElementTree.Element) -> list[tuple[float, float, float, float]]:
    found = []
    for group in root.iter(f"{SVG}g"):
        rectangle = group.find(f"{SVG}rect")
        if rectangle is not None:
            x, y, width, height = (float(rectangle.get(key, "")) for key in ("x", "y", "width", "height"))
            found.append((x, y, x + width, y + height))
    return found


@pytest.fixture(scope="module")
def model() -> Caffe2Model:
    return Caffe2Model.load_protobuf(ZOO / "mask_rcnn_R_50_FPN" / "caffe2_original")


@pytest.fixture(scope="module")
def drawn(model: Caffe2Model, tmp_path_factory: pytest.TempPathFactory) -> ElementTree.Element:
    return _draw(model, tmp_path_factory.mktemp("graph") / "net.svg", zoo.single_input(1))


def test_every_operator_has_a_box_and_every_tensor_its_shape(
    model: Caffe2Model, drawn: ElementTree.Element
) -> None:
    assert len(_boxes(drawn)) == 196 + 2 + 4  # inputs and outputs have boxes too
    tips = [title.text or "" for group in drawn.iter(f"{SVG}g") for title in group.findall(f"{SVG}title")]
    text = "\n".join(tips)
    for blob in (name for op in model.predict_net.op for name in op.output):
        found = re.search(rf"^makes {re.escape(blob)}: (\S+)$", text, re.MULTILINE)
        assert found, blob
        assert re.fullmatch(r"[a-z]+\d*\[[\d,]*\]", found[1]), f"{blob}: {found[1]}"
    found = model.runtime.run(
        {"data": zoo.scene(1)[None], "im_info": torch.tensor([[*zoo.scene(1).shape[1:], 1.0]])}
    )
    assert f"bbox_nms: f32[{len(found['boxes'])},4]" in text


def test_boxes_do_not_overlap(drawn: ElementTree.Element) -> None:
    boxes = _boxes(drawn)
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        assert x0 >= 0
        assert y0 >= 0
        assert x1 <= float(drawn.get("width", ""))
        assert y1 <= float(drawn.get("height", ""))
        for other in boxes[:i]:
            assert x1 <= other[0] or other[2] <= x0 or y1 <= other[1] or other[3] <= y0


def test_text_stays_inside_its_box(drawn: ElementTree.Element) -> None:
    for group in drawn.iter(f"{SVG}g"):
        rectangle = group.find(f"{SVG}rect")
        if rectangle is None:
            continue
        right = float(rectangle.get("x", "")) + float(rectangle.get("width", ""))
        bottom = float(rectangle.get("y", "")) + float(rectangle.get("height", ""))
        texts = list(group.iter(f"{SVG}text"))
        assert texts
        for text in texts:
            # The length is part of the file, so that it holds in any font.
            assert float(text.get("x", "")) + float(text.get("textLength", "")) < right
            assert float(text.get("y", "")) < bottom


def test_edges_keep_clear_of_boxes(drawn: ElementTree.Element) -> None:
    boxes = _boxes(drawn)
    paths = [path for path in drawn.iter(f"{SVG}path") if path.get("stroke")]
    assert len(paths) > 200
    for path in paths:
        numbers = [float(n) for n in re.findall(r"-?[\d.]+", path.get("d", ""))]
        points = list(zip(numbers[::2], numbers[1::2], strict=True))
        start, end = points[0], points[-1]
        # The points between are where it passes rows, and the curves' controls, all between two rows.
        for x, y in points[1:-1]:
            if (x, y) not in (start, end):
                assert not any(x0 < x < x1 and y0 < y < y1 for x0, y0, x1, y1 in boxes)


def test_without_inputs_types_are_drawn(model: Caffe2Model, tmp_path: Path) -> None:
    root = _draw(model, tmp_path / "a.svg")
    texts = [text.text or "" for text in root.iter(f"{SVG}text")]
    assert "bbox_nms f32[detections,4]" in texts
    assert any("proposals and detections" in text for text in texts)  # the legend
    model.save_graph(tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_names_are_escaped_and_operators_without_neighbours_drawn(tmp_path: Path) -> None:
    name = '<b>&"' + "long/" * 30
    net = NetDef(name="net", external_input=["data"], external_output=[name])
    net.op.append(make_operator("ConstantFill", [], [name], {"shape": [2, 3], "value": 1.0}))
    root = _draw(Caffe2Model(net, NetDef(name="init")), tmp_path / "net.svg")
    texts = [text.text or "" for text in root.iter(f"{SVG}text")]
    assert any(text.startswith("…") and len(text) < 60 for text in texts)
    assert any(name in (title.text or "") for title in root.iter(f"{SVG}title"))


def test_what_cannot_be_drawn(model: Caffe2Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"should end in \.svg"):
        model.save_graph(tmp_path / "net.png")
    with pytest.raises(InputError, match="no image"):
        model.save_graph(tmp_path / "net.svg", [])
    with pytest.raises(InputError, match="missing"):
        model.save_graph(tmp_path / "missing" / "net.svg")
    assert not list(tmp_path.iterdir())
