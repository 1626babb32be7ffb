"""A graph as a picture: layered from top to bottom, every op a box with what it makes, as SVG.

Meant for nets of some hundred ops, to be scrolled in a browser: text is of a fixed size, and what does not fit into a
box is in its tooltip. Names are monospaced and have their length written down, so that they fit in any font.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from detc.ir import Constant, Graph, Node, Value
from detc.ir.extras import extra

with extra("report", "drawing a net"):
    import drawsvg
    from fast_sugiyama import from_edges

_KINDS = {
    "input or output": ("#fff3bf", "#9a7b00"),
    "layer with weights": ("#d7e8fc", "#1c5fa8"),
    "normalization": ("#d5f2f5", "#14707a"),
    "activation": ("#dcf5dc", "#2b7a2b"),
    "arithmetic": ("#e9f3d0", "#5d7312"),
    "pooling or resizing": ("#fde6cf", "#a85a0c"),
    "proposals and detections": ("#fbd9de", "#b0233a"),
    "regions": ("#ecdff7", "#6f3aa3"),
    "shapes and copies": ("#ececec", "#5a5a5a"),
}
"""Kind of a box -> what fills and what frames it, in the order of the legend."""
_OPS = {
    "layer with weights": "Conv ConvTranspose FC MatMul BatchMatMul",
    "normalization": "SpatialBN GroupNorm",
    "activation": "Relu Sigmoid Tanh Softmax LeakyRelu Elu PRelu Clip",
    "arithmetic": "Add Sub Mul Div Pow Sum Mean Max Min Exp Log Sqrt Abs Negative Reciprocal Floor Ceil ReduceMean "
    "ReduceSum ReduceMax ReduceMin EQ LT LE GT GE Not",
    "pooling or resizing": "MaxPool AveragePool ResizeNearest ResizeNearestGradient UpsampleBilinear PadImage",
    "proposals and detections": "GenerateProposals GenerateProposalsCPP CollectRpnProposals BBoxTransform "
    "BoxWithNMSLimit HeatmapMaxKeypoint",
    "regions": "RoIAlign RoIAlignRotated DistributeFpnProposals CollectAndDistributeFpnRpnProposals BatchPermutation",
}
_KIND_OF = {op: kind for kind, ops in _OPS.items() for op in ops.split()}

_WIDTH, _PADDING, _GAP = 250, 8, 30
_COLUMN = _WIDTH + _GAP
_ROW_GAP, _MARGIN, _TOP = 44, 30, 90
_TITLE_SIZE, _LINE_SIZE, _LINE = 13, 10, 14
_ADVANCE = 0.602
"""A monospaced character's width, in font sizes."""
_FONT = "DejaVu Sans Mono, Menlo, Consolas, monospace"
_LONG_EDGE = 0.3
"""The width that an edge takes where it passes a row, in boxes."""


@dataclass(eq=False)
class _Box:
    title: str
    kind: str
    lines: list[str]
    tooltip: str
    x: float = 0.0
    y: float = 0.0

    @property
    def height(self) -> float:
        return 2 * _PADDING + _TITLE_SIZE + 4 + _LINE * len(self.lines)


@dataclass
class _Plan:
    """Boxes, what flows between them, and the points through which each edge goes."""

    boxes: list[_Box] = field(default_factory=list)
    flows: dict[tuple[int, int], list[str]] = field(default_factory=dict)


def draw_graph(graph: Graph, types: Mapping[Value, str], caption: str = "") -> str:
    """The graph as SVG. `types` says of each value what is written beside its name: its type, or the shape that it had
    in a run. Weights stand in the box of the op that takes them."""
    plan = _plan(graph, types)
    paths, width, height = _place(plan)
    title = f"{graph.name}: {len(graph)} operators{', ' if caption else ''}{caption}"
    return _draw(plan, paths, title, max(width, 1400.0), height)


def _plan(graph: Graph, types: Mapping[Value, str]) -> _Plan:
    plan = _Plan()
    made: dict[Value, int] = {}
    for value in graph.inputs:
        made[value] = len(plan.boxes)
        plan.boxes.append(
            _Box("input", "input or output", _lines([value], types), f"{value.name}: {types[value]}")
        )
    for node in graph:
        index = len(plan.boxes)
        plan.boxes.append(_node_box(node, types))
        for value in dict.fromkeys(node.operand_values):
            if not isinstance(value, Constant):
                plan.flows.setdefault((made[value], index), []).append(f"{value.name}: {types[value]}")
        made.update(dict.fromkeys(node.results, index))
    for name, value in graph.outputs.items():
        plan.boxes.append(_Box("output", "input or output", [name], name))
        if value in made:
            plan.flows[made[value], len(plan.boxes) - 1] = [f"{name}: {types[value]}"]
    return plan


def _node_box(node: Node, types: Mapping[Value, str]) -> _Box:
    shown = [value for value in node.results if value.name or value.is_used]
    type_ = node.op.name.partition(".")[2]
    weights = [value for value in node.operand_values if isinstance(value, Constant)]
    lines = _lines(shown, types) + [f"{value.name.rpartition('.')[2]} {types[value]}" for value in weights]
    tooltip = [node.op.name]
    tooltip += [f"makes {value.name}: {types[value]}" for value in shown]
    tooltip += [f"takes {value.name}: {types[value]}" for value in node.operand_values]
    tooltip += [f"{name} = {value}" for name, value in node.attributes.items()]
    if node.source:
        tooltip.append(f"from {node.source}")
    return _Box(type_, _KIND_OF.get(type_, "shapes and copies"), lines, "\n".join(tooltip))


def _lines(values: Iterable[Value], types: Mapping[Value, str]) -> list[str]:
    """Name and type of each value, in one line where they fit into one."""
    lines: list[str] = []
    for value in values:
        both = f"{value.name} {types[value]}"
        lines += [both] if len(both) <= _capacity(_LINE_SIZE) else [value.name, f"  {types[value]}"]
    return lines


# Placing


def _place(plan: _Plan) -> tuple[dict[tuple[int, int], list[tuple[float, float]]], float, float]:
    """Give the boxes their places. Returns the points of each edge, and the picture's width and height."""
    columns, rows, chains = _layers(plan)
    heights: dict[int, float] = defaultdict(float)
    for index, box in enumerate(plan.boxes):
        heights[rows[index]] = max(heights[rows[index]], box.height)
    tops: dict[int, float] = {}
    y = float(_TOP)
    for row in sorted(set(rows.values())):
        tops[row] = y
        y += heights[row] + _ROW_GAP
    for index, box in enumerate(plan.boxes):
        box.x, box.y = _MARGIN + columns[index] * _COLUMN, tops[rows[index]]
    paths: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for (source, target), chain in chains.items():
        start, end = plan.boxes[source], plan.boxes[target]
        points = [(start.x + _WIDTH / 2, start.y + start.height)]
        # Below its own box an edge goes straight down to the end of the row: it bends between rows only.
        points.append((points[0][0], tops[rows[source]] + heights[rows[source]]))
        for step in chain:
            x = _MARGIN + columns[step] * _COLUMN + _WIDTH / 2
            points += [(x, tops[rows[step]]), (x, tops[rows[step]] + heights[rows[step]])]
        points.append((end.x + _WIDTH / 2, end.y))
        paths[source, target] = points
    return paths, 2 * _MARGIN + (max(columns.values(), default=0.0) + 1) * _COLUMN, y + _MARGIN


def _layers(
    plan: _Plan,
) -> tuple[dict[int, float], dict[int, int], dict[tuple[int, int], list[int]]]:
    """Column and row of each box and of each point where an edge passes a row; and those points for each edge."""
    columns: dict[int, float] = {}
    rows: dict[int, int] = {}
    steps: dict[int, list[int]] = defaultdict(list)
    left = 0.0
    options: dict[str, Any] = {
        "vertex_spacing": 1,
        "dummy_vertices": True,
        "dummy_size": _LONG_EDGE,
        "ranking_type": "minimize",
    }
    for placed, width, height, edges in from_edges(sorted(plan.flows), **options) if plan.flows else ():
        lowest = min(x for _, (x, _) in placed)
        for index, (x, level) in placed:
            columns[int(index)], rows[int(index)] = left + x - lowest, round(height - level)
        for source, target in edges or ():
            steps[int(source)].append(int(target))
        left += width + 1
    for index in range(len(plan.boxes)):
        if index not in columns:  # neither takes nor gives anything
            columns[index], rows[index], left = left, 0, left + 1
    chains: dict[tuple[int, int], list[int]] = {}
    for source, _ in plan.flows:
        for first in steps[source]:
            chain, at = [], first
            while at >= len(plan.boxes):
                chain.append(at)
                (at,) = steps[at]
            chains[source, at] = chain
    return columns, rows, chains


# Drawing


def _draw(
    plan: _Plan,
    paths: Mapping[tuple[int, int], list[tuple[float, float]]],
    title: str,
    width: float,
    height: float,
) -> str:
    drawing = drawsvg.Drawing(round(width), round(height), font_family=_FONT)
    drawing.append_title(title)
    drawing.append(drawsvg.Rectangle(0, 0, round(width), round(height), fill="white"))
    drawing.append(
        drawsvg.Text(title, 18, _MARGIN, 34, font_weight="bold", fill="#1a1a1a", xml__space="preserve")
    )
    _legend(drawing)
    arrow = drawsvg.Marker(-1, -4, 8, 4, orient="auto", id="arrow")
    arrow.append(drawsvg.Lines(0, -3.5, 7, 0, 0, 3.5, close=True, fill="#6b7280"))
    for edge, points in paths.items():
        path = drawsvg.Path(fill="none", stroke="#6b7280", stroke_width=1.4, marker_end=arrow)
        _route(path, points)
        path.append_title("\n".join(plan.flows[edge]))
        drawing.append(path)
    for box in plan.boxes:
        drawing.append(_group(box))
    svg: str = drawing.as_svg()
    return svg


def _route(path: drawsvg.Path, points: list[tuple[float, float]]) -> None:
    """Straight down where the edge passes a row, a curve from row to row."""
    path.M(*_rounded(points[0]))
    *points, (x, y) = points
    # The arrow's head stands before the box.
    for (x0, y0), (x1, y1) in pairwise([*points, (x, y - 9)]):
        if x0 == x1:
            path.L(*_rounded((x1, y1)))
        else:
            middle = (y0 + y1) / 2
            path.C(*_rounded((x0, middle)), *_rounded((x1, middle)), *_rounded((x1, y1)))


def _rounded(point: tuple[float, float]) -> tuple[float, float]:
    return round(point[0], 1), round(point[1], 1)


def _group(box: _Box) -> drawsvg.Group:
    fill, frame = _KINDS[box.kind]
    group = drawsvg.Group()
    group.append_title(box.tooltip)
    radius = 14 if box.kind == "input or output" else 4
    x, y = _rounded((box.x, box.y))
    group.append(
        drawsvg.Rectangle(x, y, _WIDTH, box.height, rx=radius, fill=fill, stroke=frame, stroke_width=1.4)
    )
    baseline = y + _PADDING + _TITLE_SIZE - 2
    group.append(_text(box.title, _TITLE_SIZE, x + _PADDING, baseline, frame, bold=True))
    for line in box.lines:
        baseline += _LINE + (4 if line is box.lines[0] else 0)
        group.append(_text(line, _LINE_SIZE, x + _PADDING, baseline, "#1a1a1a"))
    return group


def _text(text: str, size: float, x: float, y: float, fill: str, *, bold: bool = False) -> drawsvg.Text:
    shown = _shortened(text, _capacity(size))
    indent = len(shown) - len(shown.lstrip())
    shown = shown.lstrip()
    length = round(len(shown) * size * _ADVANCE, 1)
    x += indent * size * _ADVANCE
    weight = {"font_weight": "bold"} if bold else {}
    return drawsvg.Text(
        shown,
        size,
        round(x, 1),
        round(y, 1),
        fill=fill,
        textLength=length,
        lengthAdjust="spacingAndGlyphs",
        **weight,
    )


def _capacity(size: float) -> int:
    """How many characters fit into a box."""
    return int((_WIDTH - 2 * _PADDING) / (size * _ADVANCE))


def _shortened(text: str, capacity: int) -> str:
    """The end of a text that is too long: in module paths the beginning says least."""
    return text if len(text) <= capacity else f"…{text[-(capacity - 1) :]}"


def _legend(drawing: drawsvg.Drawing) -> None:
    x, size = float(_MARGIN), 11
    for kind, (fill, frame) in _KINDS.items():
        drawing.append(drawsvg.Rectangle(x, 50, 14, 14, rx=3, fill=fill, stroke=frame, stroke_width=1.4))
        drawing.append(
            drawsvg.Text(kind, size, x + 20, 61, fill="#1a1a1a", textLength=round(len(kind) * 6.0, 1))
        )
        x += 20 + len(kind) * 6.0 + 18
