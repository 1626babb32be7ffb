"""TorchScript modules and exported programs: what is in the files, and what is refused."""

from __future__ import annotations

import json
import re
import zipfile

import pytest
import torch

import detc
from detc.backends.torchscript import ExportedRuntime, TorchScriptRuntime, emit, export
from detc.backends.torchscript.source import write_source
from detc.ir import Builder, Graph, TensorType, run, symbol
from tests import zoo
from tests.test_truth import assert_matches, feed

F32, I64 = torch.float32, torch.int64
N, H = symbol("N"), symbol("H", 4)


def small(build) -> Graph:
    graph = Graph("small", level="torchscript")
    x = graph.add_input("x", TensorType(F32, (N, 8, H)))
    made = build(Builder(graph, source="head.0"), x)
    graph.set_outputs({"y": made})
    return graph


ODD = {
    "sizes": lambda b, x: b.aten.reshape(x, shape=(N * 2, 4, H // 4, 4)),
    "sizes that meet": lambda b, x: b.aten.reshape(b.aten.cat([x, x], dim=2), shape=(N, 16 * H)),
    "nothing but sizes": lambda b, x: b.aten.add.Tensor(b.aten.arange(end=H, dtype=F32), x),
    "not finite": lambda b, x: b.aten.where.ScalarOther(
        b.aten.gt.Scalar(x, other=0.5), x, other=-float("inf")
    ),
    "several results": lambda b, x: b.aten.sub.Tensor(*b.aten.split.Tensor(x, split_size=4, dim=1)),
    "one of a list": lambda b, x: b.aten.split.Tensor(x, split_size=8, dim=1),
    "optional indices": lambda b, x: b.aten.index.Tensor(x, [None, b.constant([1, 0, 3], I64)]),
    "an empty list": lambda b, x: b.aten.add.Tensor(x, b.aten.new_zeros(x, size=())),
    "numbers": lambda b, x: b.aten.add.Tensor(x, other=2, alpha=3),
    "an input again": lambda b, x: x,
    "types": lambda b, x: b.aten._to_copy(x, dtype=torch.int64),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_written_is_what_the_interpreter_computes(name):
    graph = small(ODD[name])
    inputs = {"x": torch.rand(3, 8, 12)}
    expected = run(graph, inputs)["y"]
    found = TorchScriptRuntime(emit(graph)).run(inputs)["y"]
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected)


def test_weights_keep_their_names_and_odd_ones_find_a_place():
    graph = Graph("weights", level="torchscript")
    x = graph.add_input("x", TensorType(F32, (N, 3)))
    names = (
        "layers.0.weight",
        "layers.0.bias",
        "class.weight",
        "training",
        "half.scale",
        "layers",
        "a-b",
        'say "x"',
    )
    total = x
    for name in names:
        total = Builder(graph).aten.add.Tensor(total, graph.add_weight(name, torch.rand(3)))
    graph.set_outputs({"y": total})
    model = emit(graph)
    inputs = {"x": torch.rand(2, 3)}
    torch.testing.assert_close(TorchScriptRuntime(model).run(inputs)["y"], run(graph, inputs)["y"])
    kept = [name for name, _ in model.module.named_parameters()]
    assert {"layers.0.weight", "layers.0.bias", "class.weight", "a-b"} <= set(kept)
    assert len(kept) == len(names)


def test_two_modules_that_look_alike_are_two():
    """torch.jit shares types among modules of one structure."""
    graphs = [small(lambda b, x, f=f: b.aten.mul.Scalar(x, other=f)) for f in (2.0, 3.0)]
    x = torch.ones(1, 8, 4)
    assert [float(emit(graph).module(x)[0].mean()) for graph in graphs] == [2.0, 3.0]


def test_no_device_is_in_the_code_and_parameters_move(compiled):
    model = compiled("mask_rcnn_R_50_FPN", target="torchscript", postprocess=True, masks="pasted").model
    code = str(model.module.inlined_graph)
    made = re.findall(r"aten::(?:arange|full|zeros|ones)\(.*", code)
    assert made and "cpu" not in code and "cuda" not in code
    assert all("device" not in node.kind() for node in model.module.graph.nodes() if "GetAttr" in node.kind())
    on_meta = torch.jit.load(_bytes(model), map_location="meta")
    assert {p.device.type for p in [*on_meta.parameters(), *on_meta.buffers()]} == {"meta"}


def _bytes(model):
    import io

    buffer = io.BytesIO()
    torch.jit.save(model.module, buffer)
    buffer.seek(0)
    return buffer


def test_the_file_holds_what_it_promises(compiled, tmp_path):
    """The same names, in the same order, with the same metadata as the ONNX file has."""
    options = {"postprocess": True, "masks": "pasted"}
    artifact = compiled("mask_rcnn_R_50_FPN", target="torchscript", **options)
    onnx = compiled("mask_rcnn_R_50_FPN", **options)
    artifact.save(tmp_path / "model.ts")
    with zipfile.ZipFile(tmp_path / "model.ts") as archive:
        (name,) = (entry for entry in archive.namelist() if entry.endswith("detc.json"))
        said = json.loads(archive.read(name))
    assert said == json.loads(json.dumps(onnx.metadata))
    module = torch.jit.load(tmp_path / "model.ts")
    found = module(*feed(artifact.graph, zoo.single_input(3)).values())
    assert list(found._fields) == list(onnx.runtime.output_names)
    assert [arg.name for arg in module.forward.schema.arguments[1:]] == list(onnx.runtime.input_names)
    assert "backbone.fpn_lateral2.weight" in module.state_dict()
    assert not any(p.requires_grad for p in module.parameters())


def test_source_reads_like_the_model(compiled):
    text = write_source(compiled("mask_rcnn_R_50_FPN", target="torchscript").graph, "Detections").text
    assert "# backbone.bottom_up.res2.0.conv1" in text
    assert "weights = self.backbone.fpn_lateral5\n" in text
    assert "aten.conv2d(relu_49, weights.weight, weights.bias)" in text
    assert "H = data.size(2)" in text


def test_exported_program(compiled, tmp_path):
    """Any size and batch, images with nothing in them, and names."""
    name = "faster_rcnn_R_50_FPN"
    artifact = compiled(name, target="torch-export")
    artifact.save(tmp_path / "model.pt2")
    with pytest.raises(detc.InputError, match="can run code that is in it"):
        detc.load_artifact(tmp_path / "model.pt2")
    runtime = ExportedRuntime(tmp_path / "model.pt2")
    for scene in zoo.SCENES:
        outputs = runtime.run(feed(artifact.graph, zoo.single_input(scene)))
        assert_matches(outputs, [zoo.golden(name).under(f"image{scene}/raw")], "torch.export")
    batch = feed(artifact.graph, zoo.batch_input())
    expected = run(artifact.graph, batch)
    for key, value in runtime.run(batch).items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-3)
    with pytest.raises(detc.InputError, match="the size H is 64; an exported program takes 96 or more"):
        runtime.run({"data": torch.zeros(1, 3, 64, 96), "im_info": torch.tensor([[64.0, 96, 1]])})


@pytest.mark.parametrize(
    ("dtype", "sure_from", "score", "pixels"), [("float16", 0.6, 0.005, 0.3), ("bfloat16", 0.9, 0.04, 2.5)]
)
def test_half_precision(dtype, sure_from, score, pixels, compiled):
    """The weights take half the room; confident detections stay, as far off as the type's rounding makes them.

    With bfloat16's three digits, which of several overlapping boxes survives may change below.
    """
    name = "mask_rcnn_R_50_FPN_dconv"
    half = compiled(name, target="torchscript", dtype=dtype)
    whole = compiled(name, target="torchscript")
    named = {key: p.dtype for key, p in whole.model.module.named_parameters() if p.ndim > 1}
    kept = dict(half.model.module.named_parameters())
    assert {key for key in named if kept[key].dtype != getattr(torch, dtype)} <= {
        # What torchvision computes in float32, and boxes.
        key
        for key in named
        if "constants" in key or "anchor" in key or ".conv2." in key
    }
    assert [str(v.type) for v in half.graph.outputs.values()] == [
        str(v.type) for v in whole.graph.outputs.values()
    ]
    for inputs in (zoo.single_input(3), zoo.single_input(5), zoo.batch_input()):
        found, wanted = (each.runtime.run(feed(each.graph, inputs)) for each in (half, whole))
        sure = [{k: v[o["scores"] > sure_from] for k, v in o.items()} for o in (found, wanted)]
        kinds = [list(zip(o["batch_index"].tolist(), o["classes"].tolist(), strict=True)) for o in sure]
        assert sorted(kinds[0]) == sorted(kinds[1])
        # Rounding may put two of nearly the same score in another order.
        for kind, value, box in zip(kinds[1], sure[1]["scores"], sure[1]["boxes"], strict=True):
            mine = torch.tensor([other == kind for other in kinds[0]])
            apart = (sure[0]["boxes"][mine] - box).abs().amax(dim=1)
            assert apart.min() <= pixels
            assert abs(sure[0]["scores"][mine][apart.argmin()] - value) <= score


def test_half_precision_is_for_torch():
    with pytest.raises(detc.InputError, match="the target onnx stores weights as float32"):
        detc.pipeline("onnx", dtype="float16")
    with pytest.raises(detc.InputError, match="float32, float16, bfloat16, not as 'int8'"):
        detc.pipeline("torchscript", dtype="int8")


def test_what_cannot_be_loaded(tmp_path):
    path = tmp_path / "model.ts"
    path.write_bytes(b"no archive")
    with pytest.raises(detc.InputError, match=r"torch cannot load .*model\.ts"):
        detc.load_artifact(path)
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), path)
    with pytest.raises(detc.InputError, match="no TorchScript file that detc wrote"):
        detc.load_artifact(path)
    with pytest.raises(detc.InputError, match="there is no file"):
        TorchScriptRuntime(tmp_path / "missing.ts")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": torch.zeros(1, 3, 64, 65)}, "multiple of 32"),
        ({"data": torch.zeros(1, 3, 64, 64, dtype=torch.uint8)}, r"u8\[1, 3, 64, 64\], not f32"),
        ({"data": torch.zeros(2, 3, 64, 64)}, "does not fit"),
        ({"im_info": None}, "missing: im_info"),
        ({"scale": torch.ones(1)}, "not among the inputs: scale"),
    ],
)
def test_inputs_are_checked(change, message, compiled):
    runtime = compiled("faster_rcnn_R_50_FPN", target="torchscript").runtime
    inputs = {"data": torch.zeros(1, 3, 64, 64), "im_info": torch.tensor([[64.0, 64, 1]]), **change}
    with pytest.raises(detc.InputError, match=message):
        runtime.run({name: value for name, value in inputs.items() if value is not None})


def test_only_lowered_graphs_are_emitted():
    with pytest.raises(detc.DetcError, match="level 'torchscript'"):
        emit(Graph("g"))
    with pytest.raises(detc.DetcError, match="level 'torchscript'"):
        export(Graph("g"))
    with pytest.raises(detc.InputError, match="not lowered"):
        detc.emit(Graph("g"), "torch-export")
