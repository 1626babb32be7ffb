"""Bad input: one clear message, exit status 2, a typed exception from Python, and no file, or the old one, left."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

import detc
from detc.commands.main import main
from tests import zoo

NAME = "mask_rcnn_R_50_FPN"
OLD = b"the old file"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with a config and a checkpoint; running must leave it as it was."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(zoo.config_path(NAME), "config.yaml")
    (tmp_path / "weights.pth").symlink_to(zoo.weights_path(NAME))
    shutil.copy(zoo.ZOO / "scenes" / "scene0.png", "scene.png")
    yield tmp_path
    assert not (tmp_path / "ran").exists(), "code in a file was run"


Refused = Callable[..., str]


@pytest.fixture
def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """refused(*arguments): the message, without its beginning, of a command that must fail and leave no trace."""

    def run(*arguments: str) -> str:
        before = snapshot(folder)
        try:
            status: Any = main(list(arguments))
        except SystemExit as exit:
            status = exit.code
        printed = capsys.readouterr()
        assert (status, printed.out) == (2, "")
        assert printed.err.startswith("detc: error: ")
        assert snapshot(folder) == before
        return printed.err.removeprefix("detc: error: ").removesuffix("\n")

    return run


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def export(
    *more: str, config: str = "config.yaml", weights: str = "weights.pth", output: str = "model.onnx"
) -> list[str]:
    return ["export", "--config", config, "--weights", weights, "--output", output, *more]


class Runs:
    """Unpickled as it wants to be, it makes the file `ran`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def edited(old: str, new: str) -> str:
    text = Path("config.yaml").read_text()
    assert old in text
    Path("edited.yaml").write_text(text.replace(old, new))
    return "edited.yaml"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "META_ARCHITECTURE: GeneralizedRCNN", "META_ARCHITECTURE: MyRCNN",
            "edited.yaml: MODEL.META_ARCHITECTURE 'MyRCNN' is not supported; there are GeneralizedRCNN, ",
        ),
        (
            "NAME: StandardROIHeads", "NAME: MyHeads",
            "edited.yaml: MODEL.ROI_HEADS.NAME 'MyHeads' is not supported; there are StandardROIHeads, ",
        ),
        (
            "NAME: build_resnet_fpn_backbone", "NAME: build_my_backbone",
            "edited.yaml: MODEL.BACKBONE.NAME 'build_my_backbone' is not supported; there are build_resnet_backbone, ",
        ),
        (
            "MIN_SIZE_TEST: 0", "MIN_SIZE_TEST: much",
            "edited.yaml: INPUT.MIN_SIZE_TEST must be of type int (like 800), not str: ",
        ),
        ("NUM_CLASSES: 3", "NUM_CLASSES: -1", "edited.yaml: no model can be built from its values: "),
        (
            "NUM_WORKERS: 4", "NUM_WORKERS: !!python/object/apply:os.mkdir ['ran']",
            "cannot read the config edited.yaml, line 5: the tag !!python/object/apply:os.mkdir would run code; "
            "write the value itself",
        ),
        ("CUDNN_BENCHMARK: false", "CUDNN_BENCHMARK: [", "cannot read the config edited.yaml, line "),
    ],
)  # fmt: skip
def test_config_with_a_wrong_value(refused: Refused, old: str, new: str, message: str) -> None:
    text = refused(*export(config=edited(old, new)))
    assert text.startswith(message)
    assert "\n" not in text
    with pytest.raises(detc.InputError) as caught:
        detc.load_model("edited.yaml", "weights.pth")
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- 1\n- 2\n", "other.yaml is not a detectron2 config: it holds a list, not a mapping"),
        (b"\xff\xfe\x00", "other.yaml is not a YAML config: it is not UTF-8 text"),
        (b"MODEL: 3\nVERSION: 2\n", "other.yaml: MODEL must be of type section, not int: 3"),
        (None, "cannot read the config other.yaml: No such file or directory"),
    ],
)
def test_config_that_is_none(refused: Refused, folder: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (folder / "other.yaml").write_bytes(content)
    assert refused(*export(config="other.yaml")) == message


def test_checkpoint_that_would_run_code(refused: Refused, folder: Path) -> None:
    state = torch.load("weights.pth", weights_only=True)
    torch.save({**state, "more": Runs()}, "evil.pth")
    (folder / "evil.pkl").write_bytes(pickle.dumps({"model": Runs()}))
    for name in ("evil.pth", "evil.pkl"):
        assert (
            refused(*export(weights=name))
            == f"{name} is refused: it asks for posix.mkdir, which is no part of weights"
        )


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors", "cut.pkl"])
def test_truncated_checkpoint(refused: Refused, folder: Path, name: str) -> None:
    content = (folder / "weights.pth").read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    message = refused(*export(weights=name))
    assert message.startswith(f"{name} is truncated, or not a ")
    assert "\n" not in message


def test_checkpoint_of_another_model(refused: Refused) -> None:
    state = torch.load("weights.pth", weights_only=True)["model"]
    del state["backbone.fpn_lateral2.weight"]
    state["backbone.more"] = torch.zeros(2)
    state["roi_heads.box_predictor.cls_score.bias"] = torch.zeros(7)
    torch.save({"model": state}, "other.pth")
    assert refused(*export(weights="other.pth")).splitlines() == [
        "other.pth does not fit the model of the config:",
        "  1 missing:",
        "    backbone.fpn_lateral2.weight",
        "  1 unexpected:",
        "    backbone.more",
        "  1 of another shape:",
        "    roi_heads.box_predictor.cls_score.bias: [7] in the checkpoint, [4] in the model",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "tflite"], "there is no target 'tflite'; there are onnx"),
        (["--masks", "pasted"], "masks are pasted into the output image: ask for postprocessing too (--postprocess)"),
        (["--print-after", "fuze"], "there is no pass 'fuze'; there are remove-postprocess, decompose-postprocess, "),
        (["--class-names", "a,b"], "2 class names for a model of 3 classes"),
        (["--class-names", "a,,b"], "a name is empty in --class-names a,,b"),
        (["--dump-ir", "scene.png"], "cannot write IR into scene.png: it is no folder"),
        (["--dump-ir", "scene.png/ir"], "cannot write IR to scene.png/ir: Not a directory"),
        (["--check", "config.yaml"], "cannot read the image config.yaml: cannot identify image file 'config.yaml'"),
        (["--check", "none.png"], "there is no image none.png"),
        (["--confg", "x"], "unrecognized arguments: --confg x (see 'detc --help')"),
    ],
)  # fmt: skip
def test_option(refused: Refused, options: list[str], message: str) -> None:
    text = refused(*export(*options))
    assert text.startswith(message)
    assert "\n" not in text


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("none/model.onnx", "the output folder does not exist: none"),
        ("folder", "the output is a folder: folder"),
        ("model.pt", "the target onnx writes files that end in .onnx, not model.pt"),
        ("/proc/model.onnx", "cannot write into /proc: No such file or directory"),
    ],
)
def test_output(refused: Refused, folder: Path, output: str, message: str) -> None:
    (folder / "folder").mkdir()
    assert refused(*export(output=output)) == message


def test_the_old_file_stays(refused: Refused, folder: Path) -> None:
    (folder / "model.onnx").write_bytes(OLD)
    refused(*export("--class-names", "a,b"))
    assert (folder / "model.onnx").read_bytes() == OLD


def test_a_dump_spares_the_weights_of_others(refused: Refused, folder: Path) -> None:
    (folder / "ir").mkdir()
    (folder / "ir" / "weights.safetensors").write_bytes(OLD)
    message = refused(*export("--dump-ir", "ir"))
    assert message == "ir/weights.safetensors is not of an IR dump: choose another folder"


@pytest.fixture
def model_file(folder: Path, compiled: Callable[..., detc.Artifact]) -> str:
    compiled(NAME).save(folder / "model.onnx")
    return "model.onnx"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("none.png", "there is no image none.png"),
        ("config.yaml", "cannot read the image config.yaml: cannot identify image file 'config.yaml'"),
        ("cut.png", "cannot read the image cut.png: image file is truncated"),
    ],
)
def test_image(refused: Refused, folder: Path, model_file: str, image: str, message: str) -> None:
    (folder / "cut.png").write_bytes((folder / "scene.png").read_bytes()[:3000])
    assert refused("run", model_file, image).startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "drawn.xyz"], "cannot write a picture to drawn.xyz: its name must end in .png, .jpg or the like"),
        (["--output", "none/drawn.png"], "the output folder does not exist: none"),
        (["--json", "none/found.json"], "the output folder does not exist: none"),
        (["--min-score", "high"], "argument --min-score: invalid float value: 'high' (see 'detc run --help')"),
    ],
)  # fmt: skip
def test_output_of_run(refused: Refused, model_file: str, options: list[str], message: str) -> None:
    assert refused("run", model_file, "scene.png", *options) == message


def test_files_that_detc_did_not_write(refused: Refused, folder: Path) -> None:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["data"], ["y"])], "g", [value("data", 1, [1])], [value("y", 1, [1])]
    )
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), folder / "foreign.onnx")
    (folder / "junk.onnx").write_bytes(OLD)
    for name, message in {
        "foreign.onnx": "foreign.onnx is no detector that detc wrote: it lacks the input 'data' or detc's metadata",
        "junk.onnx": "onnxruntime cannot load junk.onnx: ",
        "none.onnx": "there is no file none.onnx",
        "weights.pth": "cannot tell what weights.pth is: compiled detectors are files that end in .onnx",
    }.items():
        assert refused("run", name, "scene.png").startswith(message)


def test_demo_folder(refused: Refused) -> None:
    assert refused("demo", "--output", "scene.png") == "cannot write into scene.png: File exists"


class Bessel(nn.Module):
    """Two functions that ONNX has no operator for."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.i0(self.layer(x)) + torch.special.bessel_j0(x).sum()


def test_ops_without_a_lowering_are_listed_with_their_modules() -> None:
    model = detc.load_model(zoo.config_path(NAME), zoo.weights_path(NAME))
    model.roi_heads.box_head = nn.Sequential(Bessel(model.roi_heads.box_head)).eval()
    model.proposal_generator.rpn_head.conv = Bessel(model.proposal_generator.rpn_head.conv).eval()
    with pytest.raises(detc.UnsupportedError) as caught:
        detc.compile(model)
    message = str(caught.value)
    for path in ("proposal_generator.rpn_head.conv", "roi_heads.box_head.0"):
        for op in ("aten.special_bessel_j0", "aten.special_i0"):
            assert f"{op} at {path}: " in message


class OwnHeads(nn.Module):
    """ROI heads of a user's own, which take instances."""

    def __init__(self, heads: nn.Module) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, *arguments: object) -> object:
        return self.heads(*arguments)


def test_a_component_that_no_importer_takes() -> None:
    model = detc.load_model(zoo.config_path(NAME), zoo.weights_path(NAME))
    model.roi_heads = OwnHeads(model.roi_heads).eval()
    with pytest.raises(
        detc.UnsupportedError, match=r"^roi_heads \(OwnHeads\) takes instances, .* @detc.importer"
    ):
        detc.capture(model)


def test_training_mode_and_other_than_models() -> None:
    model = detc.load_model(zoo.config_path(NAME), zoo.weights_path(NAME))
    with pytest.raises(detc.InputError, match=r"call model.eval\(\)"):
        detc.capture(model.train())
    with pytest.raises(detc.InputError, match=r"takes an nn\.Module, not str"):
        detc.capture("model.pth")  # type: ignore[arg-type]


def test_inputs_of_a_compiled_detector(compiled: Callable[..., detc.Artifact]) -> None:
    artifact = compiled(NAME)
    for batch, message in (
        ([], "the batch holds no image"),
        ([{"image": None}], 'input 0: "image" must be a tensor'),
        ([{"image": torch.zeros(3, 0, 4)}], 'input 0: "image" must be a tensor'),
        (
            [{"image": torch.zeros(3, 8, 8)}, {"image": torch.zeros(1, 8, 8)}],
            "the images differ in their number",
        ),
        ([{"image": torch.zeros(1, 8, 8)}], "dimension 1 of the input 'data' is 1, not 3"),
    ):
        with pytest.raises(detc.InputError, match=f"^{message}"):
            artifact(batch)  # type: ignore[arg-type]


class SkipIfEmpty(nn.Module):
    """Asks for the number of rows."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) if len(x) else x.new_zeros(0, 128)


def test_a_module_that_looks_at_a_size() -> None:
    model = detc.load_model(zoo.config_path(NAME), zoo.weights_path(NAME))
    model.roi_heads.box_head = SkipIfEmpty(model.roi_heads.box_head).eval()
    with pytest.raises(
        detc.UnsupportedError, match=r"^roi_heads.box_head .* needs the size proposals as a number"
    ):
        detc.capture(model)
