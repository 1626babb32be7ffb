"""The report in a real browser: without a network, with mouse and keyboard, at the width of a phone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, Page, sync_playwright

import detc
from detc.commands.main import main
from detc.ir import Builder, Graph, TensorType, symbol
from detc.passes import Context, Pipeline, parse_passes, save_graph
from detc.report import Recorder, write_report
from detc.report.layout import layered
from tests import system, zoo

NAME = "mask_rcnn_R_50_FPN"
DESK, PHONE = (1400, 850), (390, 844)
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, captured: Callable[[str], Graph]) -> Path:
    """The report of Mask R-CNN on its way to ONNX."""
    folder = tmp_path_factory.mktemp("report")
    save_graph(captured(NAME), folder / "m.ir")
    page = folder / "report.html"
    scene = str(zoo.ZOO / "scenes" / "scene3.png")
    assert (
        main(["report", str(folder / "m.ir"), "--pipeline", "onnx", "--check", scene, "-o", str(page)]) == 0
    )
    return page


@pytest.fixture(scope="module")
def running() -> Iterator[Browser]:
    system.need(system.BROWSER)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=system.find_browser(), args=list(system.BROWSER_OPTIONS)
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(running: Browser) -> Iterator[Open]:
    """open_page(file, size=...): the page in a browser that is offline. No script may fail in it."""
    contexts, problems = [], []

    def open_it(file: Path, size: tuple[int, int] = DESK, **options: Any) -> Page:
        context = running.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        contexts.append(context)
        context.set_offline(True)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(file.as_uri())
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert problems == []


def stages_of(file: Path) -> list[dict[str, Any]]:
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', file.read_text(), re.DOTALL)
    assert text is not None
    return json.loads(text.group(1))["stages"]  # type: ignore[no-any-return]


def number_of(file: Path, name: str) -> int:
    return next(i for i, stage in enumerate(stages_of(file)) if stage["name"] == name)


def test_it_is_one_file(report: Path) -> None:
    text = report.read_text()
    assert not re.findall(r"(?:src|href)\s*=|@import|url\(", text)
    assert [stage["name"] for stage in stages_of(report)][1:] == [item.name for item in detc.pipeline("onnx")]


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_it_opens_on_the_ir_beside_the_passes(report: Path, open_page: Open, size: tuple[int, int]) -> None:
    page = open_page(report, size)
    shown = page.locator("#ir-rows .row").all_text_contents()
    assert shown[0] == "level=captured" and any("aten.conv2d" in line for line in shown)
    page.wait_for_function("element('ir-rows').getBoundingClientRect().top < innerHeight / 2")
    assert page.locator(".added, .removed").count() == 0
    # A verdict is a word beside its pass, and fills no line of its own.
    verdicts = page.locator("#passes .verdict")
    assert verdicts.count() == len(stages_of(report)) - 1
    words = verdicts.all_text_contents()
    assert words[0] == "new reference" and all(re.fullmatch(r"same|±\d\.\de-\d+", word) for word in words[1:])
    assert re.search(r"boxes \d\.\de", verdicts.last.get_attribute("title") or "")
    assert all(
        page.evaluate(
            """() => [...document.querySelectorAll("#passes .verdict")].map((e) => Math.abs(
            e.getBoundingClientRect().bottom - e.parentElement.querySelector(".numbers").getBoundingClientRect().bottom) < 2)"""
        )
    )


def test_a_view_that_is_chosen_stays(report: Path, open_page: Open) -> None:
    page = open_page(report)
    page.click("#pass-7")
    assert page.get_attribute("#tab-diff", "aria-selected") == "true"
    page.click("#pass-0")
    assert page.get_attribute("#tab-ir", "aria-selected") == "true"
    page.click("#tab-diff")
    assert page.locator("#diff-rows .row").all_text_contents() == [
        "No pass has run yet: choose one to see what it changed."
    ]
    page.click("#tab-ir")
    page.click("#pass-8")
    page.reload()
    assert page.get_attribute("#tab-ir", "aria-selected") == "true"
    assert page.get_attribute("#pass-8", "aria-selected") == "true"


def test_a_pass_and_its_diff(report: Path, open_page: Open) -> None:
    page = open_page(report)
    number = number_of(report, "fuse-rpn-head")
    page.click(f"#pass-{number}")
    assert page.text_content("#pass-name") == "fuse-rpn-head"
    left = page.locator("#diff-rows .removed").all_text_contents()
    right = page.locator("#diff-rows .added").all_text_contents()
    assert (
        sum("aten.conv2d" in line for line in left) == 10
        and sum("aten.conv2d" in line for line in right) == 5
    )
    assert any("det.grid_proposals" in line for line in left)
    assert any("det.dense_proposals" in line for line in right)
    assert re.fullmatch(r"… \d+ unchanged", page.locator("#diff-rows .gap").first.text_content() or "")
    page.uncheck("#only-changes")
    assert page.locator("#diff-rows .gap").count() == 0


def test_the_keyboard_alone(report: Path, open_page: Open) -> None:
    page = open_page(report)
    page.focus("#passes")
    page.keyboard.press("End")
    last = len(stages_of(report)) - 1
    assert page.get_attribute(f"#pass-{last}", "aria-selected") == "true"
    page.keyboard.press("ArrowUp")
    assert page.get_attribute("#passes", "aria-activedescendant") == f"pass-{last - 1}"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "tab-diff"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-graph"
    page.focus("#drawing")
    page.keyboard.press("ArrowDown")
    assert page.text_content("#details h2") == "input"
    page.keyboard.press("ArrowDown")
    assert (page.text_content("#details h2") or "").startswith("onnx.")
    page.keyboard.press("ArrowUp")
    assert page.text_content("#details h2") == "input"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_node_in_the_drawing_and_its_history(report: Path, open_page: Open) -> None:
    page = open_page(report)
    page.click(f"#pass-{number_of(report, 'fold-batch-norm')}")
    page.click("#tab-graph")
    place = page.evaluate(
        """() => { const d = state.drawing, n = d.nodes.find((n) => n.text.op === "aten.conv2d");
        d.select(n.key, true); return [(n.x + 20 - d.x) * d.scale, (n.y + 20 - d.y) * d.scale]; }"""
    )
    page.click("#drawing", position={"x": place[0], "y": place[1]})
    assert page.text_content("#details h2") == "aten.conv2d"
    details = page.text_content("#details") or ""
    assert "backbone.bottom_up.stem.conv1" in details and "Operands from" in details
    made = page.locator("#details button", has_text="fold-batch-norm: made")
    assert made.count() == 1
    page.locator("#details button", has_text="lower-to-onnx: taken away").click()
    assert page.text_content("#pass-name") == "lower-to-onnx"
    assert "It is not there after this pass." in (page.text_content("#details") or "")

    page.locator("#drawing").hover()
    before = page.evaluate("state.drawing.scale")
    page.mouse.wheel(0, -300)
    assert page.evaluate("state.drawing.scale") > before
    moved = page.evaluate("state.drawing.x")
    page.mouse.down()
    page.mouse.move(200, 400, steps=4)
    page.mouse.up()
    assert page.evaluate("state.drawing.x") != moved
    page.click("#zoom-fit")
    inside = page.evaluate(
        """() => { const d = state.drawing; return d.nodes.every((n) => (n.x - d.x) * d.scale > -1
        && (n.y - d.y) * d.scale > -1 && (n.y - d.y) * d.scale < d.canvas.clientHeight); }"""
    )
    assert inside
    painted = page.evaluate(
        """() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => { const c = state.drawing
        .canvas; done(new Set(new Uint32Array(c.getContext("2d").getImageData(0, 0, c.width, c.height).data.buffer))
        .size); })))"""
    )
    assert painted > 3


def test_searching(report: Path, open_page: Open) -> None:
    page = open_page(report)
    page.click("#tab-ir")
    page.fill("#search", "ROI_POOL")
    assert page.text_content("#search-count") == "2 found"
    page.press("#search", "Enter")
    assert page.text_content("#details h2") == "det.roi_pool"
    assert page.locator("#ir-rows .chosen").count() == 1
    first = page.text_content("#details pre")
    page.press("#search", "Enter")
    assert page.text_content("#details pre") != first
    page.fill("#search", "no such thing")
    assert page.text_content("#search-count") == "0 found"


def test_parity_and_rules(report: Path, open_page: Open) -> None:
    page = open_page(report)
    page.click("#tab-parity")
    rows = page.locator("#view-parity tbody tr").all_text_contents()
    assert len(rows) == len(stages_of(report)) - 1
    assert "the new reference" in rows[0] and re.search(r"boxes \d\.\de", rows[-1])
    page.click(f"#pass-{number_of(report, 'fold-batch-norm')}")
    page.click("#tab-rules")
    cells = (
        page.locator("#view-rules tbody tr", has_text="BatchNormIntoProducer")
        .locator("td")
        .all_text_contents()
    )
    assert cells[:3] == ["BatchNormIntoProducer", "53", "53"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(report: Path, open_page: Open, scheme: str) -> None:
    page = open_page(report, color_scheme=scheme)
    page.click(f"#pass-{number_of(report, 'fuse-rpn-head')}")
    page.fill("#search", "conv2d")
    assert page.evaluate(CONTRAST) == []


CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = (rgb) => { const [r, g, b] = rgb.map((v) => { v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > 0) return c.slice(0, 3); } return [255, 255, 255]; };
  const bad = [];
  for (const e of document.querySelectorAll("body *")) {
    if (!e.checkVisibility() || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    const found = ratio(parse(getComputedStyle(e).color).slice(0, 3), behind(e));
    if (found < 4.5) bad.push([e.tagName, e.className, e.textContent.slice(0, 30), found]);
  }
  const hex = (text) => [1, 3, 5].map((k) => parseInt(text.slice(k, k + 2), 16));
  for (const colour of [...Object.values(COLOURS), OTHER])
    if (ratio(hex(colour), [255, 255, 255]) < 4.5) bad.push([colour]);
  return bad;
}"""


def test_on_a_phone(report: Path, open_page: Open) -> None:
    page = open_page(report, PHONE, has_touch=True, is_mobile=True)
    page.tap(f"#pass-{number_of(report, 'fuse-anchors')}")
    for view in ("diff", "ir", "graph", "rules", "parity"):
        page.tap(f"#tab-{view}")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0], view
        assert page.evaluate(f"document.getElementById('view-{view}').clientHeight") > 60, view
    page.tap("#tab-graph")
    box = page.locator("#drawing").bounding_box()
    assert box is not None and box["height"] > 300
    page.locator("#drawing").tap(position={"x": PHONE[0] / 2, "y": 40})
    assert page.text_content("#details h2") == "input"


def chain(nodes: int) -> Graph:
    graph = Graph("long", level="flat")
    b = Builder(graph, created_by="capture")
    value = first = graph.add_input("x", TensorType(torch.float32, (symbol("N"), 8)))
    for i in range(nodes):
        with b.at(f"layer{i // 10}.</script><b>"):
            value = b.aten.add.Tensor(value, first) if i % 7 == 0 else b.aten.relu(value)
    graph.set_outputs({"y": value})
    return graph


def test_5000_nodes(tmp_path: Path, open_page: Open) -> None:
    recorder, context = Recorder(), Context()
    parse_passes("canonicalize,dead-code").run(chain(5000), [recorder], context=context)
    write_report(recorder.data(context), tmp_path / "long.html")
    page = open_page(tmp_path / "long.html")
    page.click("#tab-ir")
    page.evaluate("element('ir-rows').scrollTop = 50000")
    page.wait_for_function(
        "document.querySelector('#ir-rows .row:last-child').textContent.includes('layer2')"
    )
    # Only what is in view is in the page, and is drawn.
    assert page.locator("#ir-rows .row").count() < 120
    page.click("#tab-graph")
    labels = page.evaluate(
        """() => { let n = 0; const old = state.drawing.label; state.drawing.label = function (node) { n++;
        old.call(this, node); }; state.drawing.paint(); return n; }"""
    )
    assert 0 < labels < 100
    page.fill("#search", "layer499.")
    assert page.text_content("#search-count") == "10 found"


def test_layers_follow_the_wires() -> None:
    edges = [(0, 2), (1, 5), (2, 3), (2, 4), (3, 5), (4, 5)]
    places = layered(6, edges)
    assert all(places[a][1] < places[b][1] for a, b in edges)
    assert len(set(places)) == 6
    # What depends on nothing stands right above its use.
    assert places[1][1] == places[5][1] - 1
    assert layered(0, []) == [] and layered(1, []) == [(0, 0)]


def test_a_run_that_fails_is_reported_up_to_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_graph(chain(3), tmp_path / "m.ir")
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom detc.passes import Pass\n@dataclass(frozen=True)\nclass Bad(Pass):\n"
        "    def apply(self, graph, context):\n        return {}[0]\n"
    )
    arguments = [
        "report",
        str(tmp_path / "m.ir"),
        "--pass-file",
        str(tmp_path / "mine.py"),
        "--passes",
        "dead-code,bad",
    ]
    assert main([*arguments, "-o", str(tmp_path / "r.html")]) == 1
    assert "the pass bad failed: KeyError: 0" in capsys.readouterr().err
    assert [stage["name"] for stage in stages_of(tmp_path / "r.html")] == ["flat", "dead-code"]
    assert main([*arguments, "-o", str(tmp_path / "r.txt")]) == 2
    assert capsys.readouterr().err == "detc: error: the report is a page: end r.txt in .html\n"


def test_nothing_happens_in_an_empty_pipeline(tmp_path: Path) -> None:
    recorder, context = Recorder(), Context()
    Pipeline().run(chain(2), [recorder], context=context)
    write_report(recorder.data(context), tmp_path / "r.html")
    assert len(stages_of(tmp_path / "r.html")) == 1
