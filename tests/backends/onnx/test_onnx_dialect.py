"""The onnx dialect: signatures from the schemas, inferred types, bodies through onnxruntime."""

from __future__ import annotations

import pytest
import torch

from detc.backends.onnx import emit
from detc.backends.onnx.body import body_text
from detc.backends.onnx.load import import_model, load
from detc.ir import (
    Builder,
    Graph,
    InputError,
    IRError,
    TensorType,
    get_op,
    parse_graph,
    print_graph,
    run,
    symbol,
    verify,
)
from detc.ir.equality import difference

N, H, W = symbol("N"), symbol("H", 32), symbol("W", 32)


def start(*shapes: tuple[object, ...], dtype: torch.dtype = torch.float32) -> tuple[Graph, Builder]:
    graph = Graph("test", "onnx")
    for i, shape in enumerate(shapes):
        graph.add_input(f"x{i}", TensorType(dtype, shape))  # type: ignore[arg-type]
    return graph, Builder(graph)


def test_text_form_round_trip():
    graph, b = start((N, 3, H, W))
    weight = graph.add_weight("w", torch.randn(8, 3, 3, 3))
    y = b.onnx.Conv(graph.inputs[0], weight, pads=(1, 1, 1, 1))
    values, rows = b.onnx.TopK(b.onnx.Reshape(y, b.constant([0, 8, -1])), b.constant([5]), axis=-1)
    parts = b.onnx.Split(rows, b.constant([1, 2, 2]), axis=2)
    _, where = b.onnx.MaxPool(y, kernel_shape=(2, 2), outputs=2)
    filled = b.onnx.ConstantOfShape(b.onnx.Shape(y), value=(torch.float32, 1.5))
    graph.set_outputs(
        {"values": values, "rows": parts[1], "where": where, "q": b.onnx.Cast(filled, to=torch.int64)}
    )
    verify(graph)
    text = print_graph(graph)
    assert "onnx.Cast(%11, to=dtype.i64)" in text or "to=dtype.i64" in text
    assert difference(graph, parse_graph(text, {"w": weight.data})) is None
    outputs = run(graph, {"x0": torch.randn(2, 3, 32, 64)})
    assert outputs["values"].shape == (2, 8, 5)
    assert outputs["rows"].shape == (2, 8, 2)
    assert outputs["where"].dtype == torch.int64
    assert outputs["q"].tolist() == torch.ones(2, 8, 30 + 2, 62 + 2, dtype=torch.int64).tolist()


def inferred(
    op: str, shapes: list[object], *, constants: dict[int, list[int]] | None = None, **attributes: object
) -> str:
    graph, b = start()
    operands = []
    for i, shape in enumerate(shapes):
        if constants and i in constants:
            operands.append(b.constant(torch.tensor(constants[i], dtype=torch.int64)))
        elif shape is None:
            operands.append(None)
        else:
            dtype, dims = shape
            operands.append(graph.add_input(f"x{i}", TensorType(dtype, dims)))
    result = getattr(b.onnx, op)(*operands, **attributes)
    return ", ".join(str(r.type) for r in (result if isinstance(result, tuple) else (result,)))


F, L, B = torch.float32, torch.int64, torch.bool


@pytest.mark.parametrize(
    ("op", "shapes", "constants", "attributes", "types"),
    [
        ("TopK", [(F, (N, 9)), (L, (1,))], None, {}, "f32[N,k], i64[N,k]"),
        ("TopK", [(F, (N, H)), None], {1: [7]}, {"axis": 0}, "f32[7,H], i64[7,H]"),
        ("GatherND", [(F, (N, 3, W)), (L, (N, H, 1))], None, {"batch_dims": 1}, "f32[N,H,W]"),
        ("NonMaxSuppression", [(F, (1, N, 4)), (F, (1, 1, N)), (L, (1,)), (F, (1,))], None, {}, "i64[d0,3]"),
        ("NonZero", [(B, (N, 3))], None, {}, "i64[2,d0]"),
        ("Compress", [(F, (N, 3)), (B, (N,))], None, {"axis": 0}, "f32[d0,3]"),
        ("RoiAlign", [(F, (N, 3, H, W)), (F, (H, 4)), (L, (H,))], None, {"output_height": 7}, "f32[H,3,7,1]"),
        ("Split", [(F, (N, 3)), None], {1: [1, 2]}, {"axis": 1}, "f32[N,1], f32[N,2]"),
        ("Split", [(F, (N, 6))], None, {"axis": 1, "num_outputs": 2}, "f32[N,3], f32[N,3]"),
        ("Split", [(F, (N,)), (L, (3,))], None, {"axis": 0}, "f32[d0], f32[d1], f32[d2]"),
        ("ScatterElements", [(F, (N, 3)), (L, (N, 3)), (F, (N, 3))], None, {"axis": 1}, "f32[N,3]"),
        ("ScatterND", [(F, (N, 3)), (L, (H, 1)), (F, (H, 3))], None, {}, "f32[N,3]"),
        ("Where", [(B, (N, 1)), (F, (1, 3)), (F, ())], None, {}, "f32[N,3]"),
        ("Range", [(L, ()), (L, ()), (L, ())], None, {}, "i64[d0]"),
        ("ConstantOfShape", [(L, (2,))], None, {}, "f32[d0,d1]"),
        ("ConstantOfShape", [None], {0: [4, 5]}, {"value": (L, 0)}, "i64[4,5]"),
        ("Gemm", [(F, (N, 4)), (F, (8, 4)), (F, (8,))], None, {"transB": 1}, "f32[N,8]"),
        ("MatMul", [(F, (N, 2, 4)), (F, (4, 5))], None, {}, "f32[N,2,5]"),
        ("ReduceMax", [(F, (N, 3, H)), None], {1: [1]}, {"keepdims": 0}, "f32[N,H]"),
        ("CumSum", [(L, (N, 3)), (L, ())], None, {}, "i64[N,3]"),
        ("Expand", [(F, (N, 3)), (L, (3,))], None, {}, "f32[d0,d1,3]"),
        ("Tile", [(F, (N, 3)), None], {1: [1, 2]}, {}, "f32[N,6]"),
        ("GridSample", [(F, (N, 3, H, W)), (F, (N, 5, 6, 2))], None, {}, "f32[N,3,5,6]"),
        ("Slice", [(F, (N, 3)), (L, (1,)), (L, (1,)), None], {3: [1]}, {}, "f32[N,d1]"),
        ("Pad", [(F, (N, 3, H)), None], {1: [0, 1, 0, 0, 1, 0]}, {}, "f32[N,5,H]"),
        ("Reshape", [(F, (N, 3, H)), None], {1: [0, -1]}, {}, "f32[N,d0]"),
        ("Reshape", [(F, (N, 3, 4)), None], {1: [-1, 12]}, {}, "f32[N,12]"),
        ("Resize", [(F, (N, 3, H, W)), None, None, (L, (4,))], None, {}, "f32[d0,d1,d2,d3]"),
        ("BatchNormalization", [(F, (N, 3, H)), *[(F, (3,))] * 4], None, {}, "f32[N,3,H]"),
        # These are functions; onnx may have no rule of their own for them.
        ("GreaterOrEqual", [(F, (N, 1)), (F, (1, 3))], None, {}, "bool[N,3]"),
        ("MeanVarianceNormalization", [(F, (N, 3, H))], None, {"axes": (0, 2)}, "f32[N,3,H]"),
    ],
)  # fmt: skip
def test_inferred_types(op, shapes, constants, attributes, types):
    assert inferred(op, shapes, constants=constants, **attributes) == types


def test_variadic_operands_are_one_list():
    graph, b = start((N, 3), (N, 3))
    joined = b.onnx.Concat(graph.inputs, axis=1)
    most = b.onnx.Max([*graph.inputs, joined[:0] if isinstance(joined, tuple) else graph.inputs[0]])
    assert str(joined.type) == "f32[N,6]"
    graph.set_outputs({"most": most})
    verify(graph)
    a, c = torch.randn(0, 3), torch.randn(0, 3)
    assert run(graph, {"x0": a, "x1": c})["most"].shape == (0, 3)
    with pytest.raises(IRError, match="takes a list of operands as 'inputs'"):
        b.onnx.Concat(graph.inputs[0], axis=1)
    with pytest.raises(IRError, match="takes a single operand as 'X'"):
        b.onnx.Relu(graph.inputs)


def test_unknown_and_refused_ops():
    for name in ("onnx.Nonsense", "onnx.Constant", "onnx.If", "onnx.Loop"):
        with pytest.raises(IRError, match="there is no op"):
            get_op(name)


def test_wrong_operands_are_named():
    graph, b = start((N, 3, H, W))
    with pytest.raises(IRError, match=r"onnx\.MatMul refuses its operands"):
        b.onnx.MatMul(graph.inputs[0], b.constant(torch.zeros(3, dtype=torch.int64)))
    with pytest.raises(IRError, match=r"onnx\.GreaterOrEqual refuses its operands"):
        b.onnx.GreaterOrEqual(graph.inputs[0], b.constant(torch.zeros(3, dtype=torch.int64)))
    with pytest.raises(IRError, match="there is no attribute 'stride'"):
        b.onnx.MaxPool(graph.inputs[0], kernel_shape=(2, 2), stride=(2, 2))
    with pytest.raises(IRError, match="the attribute 'kernel_shape' is missing"):
        b.onnx.MaxPool(graph.inputs[0])
    with pytest.raises(IRError, match="attribute kernel_shape='two'"):
        b.onnx.MaxPool(graph.inputs[0], kernel_shape="two")


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_bodies_at_any_number_of_rows(rows):
    graph, b = start((symbol("R"), 12))
    (x,) = graph.inputs
    image = b.onnx.Reshape(x, b.constant([-1, 3, 2, 2]))
    graph.set_outputs(
        {
            "conv": b.onnx.Conv(image, graph.add_weight("w", torch.ones(4, 3, 2, 2))),
            "gemm": b.onnx.Gemm(x, graph.add_weight("v", torch.ones(12, 5))),
            "where": b.onnx.NonZero(b.onnx.Greater(x, b.constant(0.5))),
            "softmax": b.onnx.Softmax(x, axis=1),
            "gather": b.onnx.GatherND(
                x, b.onnx.Unsqueeze(b.onnx.ArgMax(x, axis=1), b.constant([-1])), batch_dims=1
            ),
            "scalar": b.onnx.ReduceSum(x, b.constant([0, 1]), keepdims=0),
        }
    )
    verify(graph)
    data = torch.rand(rows, 12)
    outputs = run(graph, {"x0": data})
    torch.testing.assert_close(outputs["conv"].reshape(rows, 4), data.sum(1, keepdim=True).expand(-1, 4))
    torch.testing.assert_close(outputs["gather"], data.max(1).values[:, None] if rows else data[:, :1])
    torch.testing.assert_close(outputs["where"].T, torch.nonzero(data > 0.5))
    torch.testing.assert_close(outputs["scalar"], data.sum())
    torch.testing.assert_close(outputs["softmax"], data.softmax(1))


RUNNING_SUM = """graph running_sum (level=onnx) {
  input %total: f32[C]
  input %row: f32[C]
  %0: f32[C] = onnx.Mul(%row, f32[]{2.0})
  %1: f32[C] = onnx.Add(%total, %0)
  return total=%1, sums=%1, rows=%row
}
"""


def scanned(text: str = RUNNING_SUM, count: int = 1):
    graph, b = start((3,), (N, 3))
    results = b.onnx.Scan(list(graph.inputs), body=text, num_scan_inputs=count, outputs=3)
    graph.set_outputs({f"y{i}": value for i, value in enumerate(results)})
    verify(graph)
    return graph


def test_a_scan_walks_over_rows(tmp_path):
    """Its body is text: it is inferred, run, printed, emitted and loaded like any other attribute."""
    graph = scanned()
    assert [str(v.type) for v in graph.outputs.values()] == ["f32[3]", "f32[N,3]", "f32[N,3]"]
    start_row, rows = torch.tensor([1.0, 0.0, -1.0]), torch.arange(12.0).reshape(4, 3)
    expected = start_row + 2 * rows.cumsum(0)
    emit(graph).save(tmp_path / "scan.onnx")
    loaded = load(tmp_path / "scan.onnx")
    verify(loaded)
    again = parse_graph(print_graph(graph), {})
    assert difference(graph, again) is None
    for made in (graph, again, loaded):
        found = run(made, {"x0": start_row, "x1": rows})
        torch.testing.assert_close(found["y0"], expected[-1])
        torch.testing.assert_close(found["y1"], expected)
        torch.testing.assert_close(found["y2"], rows)


def test_what_a_scan_refuses():
    with pytest.raises(IRError, match="the body running_sum takes 2 values, 3 are given"):
        graph, b = start((3,), (N, 3), (N, 3))
        b.onnx.Scan(list(graph.inputs), body=RUNNING_SUM, num_scan_inputs=1, outputs=3)
    with pytest.raises(IRError, match=r"takes f32\[C\] as %total, not f32\[\]"):
        scanned(count=2)
    with pytest.raises(IRError, match="no place in the IR"):
        graph, b = start((3,), (N, 3))
        b.onnx.Scan(list(graph.inputs), body=RUNNING_SUM, num_scan_inputs=1, scan_input_axes=(1,), outputs=3)
    with pytest.raises(IRError, match=r"line 2.*expected '%name: type'"):
        scanned("graph body (level=onnx) {\n  input total\n}\n")
    weighted = Graph("body", level="onnx")
    weighted.set_outputs({"y": weighted.add_weight("w", torch.zeros(3, 30))})
    with pytest.raises(IRError, match="the body body has weights: w"):
        body_text(weighted)


def test_a_loaded_body_that_uses_what_is_outside_is_refused(tmp_path):
    outside = emit(scanned()).to_proto()
    body = next(a.g for a in outside.graph.node[0].attribute if a.name == "body")
    body.node[0].input[1] = "x0"
    with pytest.raises(InputError, match="'x0' is used before it is defined"):
        import_model(outside)
