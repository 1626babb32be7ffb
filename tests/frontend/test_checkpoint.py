"""Checkpoints: every format, and hostile, damaged and ill-fitting ones."""

from __future__ import annotations

import collections
import io
import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from detc.frontend.detectron2 import build_model, load_into, load_model, load_state_dict
from detc.frontend.errors import InputError
from tests import zoo

MODEL = "faster_rcnn_R_50_FPN"


def reference() -> dict[str, torch.Tensor]:
    return torch.load(zoo.weights_path(MODEL), weights_only=True)["model"]


def as_numpy(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def assert_same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype and torch.equal(actual[name], tensor), name


@pytest.mark.parametrize(
    "form", ["zoo", "pth", "bare", "legacy", "ddp", "safetensors", "pkl2", "pkl4", "pkl5", "training"]
)
def test_formats(tmp_path: Path, form: str) -> None:
    weights = reference()
    path = tmp_path / "weights.pth"
    if form == "zoo":
        path = zoo.weights_path(MODEL)
    elif form == "pth":
        torch.save({"model": weights, "__author__": "me"}, path)
    elif form == "bare":
        torch.save(weights, path)
    elif form == "legacy":
        torch.save({"model": weights}, path, _use_new_zipfile_serialization=False)
    elif form == "ddp":
        torch.save({"model": {f"module.{name}": tensor for name, tensor in weights.items()}}, path)
    elif form == "training":  # detectron2's own checkpoints hold more than weights
        extra = {"optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}}, "best": np.float64(1.5)}
        torch.save({"model": weights, "iteration": 5, **extra}, path)
    elif form == "safetensors":
        path = tmp_path / "weights.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    else:
        path = tmp_path / "weights.pkl"
        content = {"model": as_numpy(weights), "__author__": "Detectron2 Model Zoo"}
        path.write_bytes(pickle.dumps(content, protocol=int(form[-1])))
    assert_same(load_state_dict(path), weights)


def test_pickle_of_old_numpy(tmp_path: Path) -> None:
    """numpy 1 wrote numpy.core where numpy 2 writes numpy._core."""
    data = pickle.dumps({"model": collections.OrderedDict(a=np.arange(3.0))}, protocol=2)
    old = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != data
    (tmp_path / "old.pkl").write_bytes(old)
    expected = {"a": torch.arange(3.0, dtype=torch.float64)}
    assert_same(load_state_dict(tmp_path / "old.pkl"), expected)
    torch.save({"model": {"a": np.arange(3.0)}}, tmp_path / "new.pth", _use_new_zipfile_serialization=False)
    data = (tmp_path / "new.pth").read_bytes()
    assert b"numpy._core" in data
    (tmp_path / "old.pth").write_bytes(data.replace(b"numpy._core", b"numpy.core"))
    for name in ("new.pth", "old.pth"):
        assert_same(load_state_dict(tmp_path / name), expected)


class Exploit:
    """Unpickled carelessly, it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".pt"])
@pytest.mark.parametrize("saved_by", ["pickle", "torch", "torch-legacy"])
def test_code_in_pickles_is_not_run(tmp_path: Path, suffix: str, saved_by: str) -> None:
    target, path = tmp_path / "made", tmp_path / f"evil{suffix}"
    content = {"model": {"a": torch.zeros(1) if saved_by != "pickle" else np.zeros(1)}, "x": Exploit(target)}
    if saved_by == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=saved_by == "torch")
    with pytest.raises(InputError, match=r"evil\.\w+ is (refused: it asks for|truncated, or not)"):
        load_state_dict(path)
    assert not target.exists()


@pytest.mark.parametrize(
    "global_name",
    [
        "os\nsystem",
        "builtins\neval",
        "builtins\ngetattr",
        "numpy\nload",
        "numpy.core.multiarray\n_reconstruct.__self__",
        "collections\nabc.sys.modules",
        "torch\nload",
        "codecs\nencode",
    ],
)
def test_pickle_globals_are_named(tmp_path: Path, global_name: str) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(b"\x80\x02c" + global_name.encode() + b"\n.")
    with pytest.raises(InputError, match="refused: it asks for " + global_name.replace("\n", r"\.")):
        load_state_dict(path)


def test_allowed_codec_is_only_latin1(tmp_path: Path) -> None:
    path = tmp_path / "codec.pkl"
    path.write_bytes(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.")
    pickletools.dis(path.read_bytes(), out=io.StringIO())  # it is a valid pickle
    with pytest.raises(InputError, match="the encoding 'rot13'"):
        load_state_dict(path)


@pytest.mark.parametrize("keep", [1, 100, 5000, -2000, -1])
@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors"])
def test_truncated_files(tmp_path: Path, suffix: str, keep: int) -> None:
    whole = tmp_path / f"whole{suffix}"
    weights = {name: tensor for name, tensor in reference().items() if "fpn" in name}
    if suffix == ".pth":
        torch.save({"model": weights}, whole)
    elif suffix == ".pkl":
        whole.write_bytes(pickle.dumps({"model": as_numpy(weights)}))
    else:
        save_file(weights, whole)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(whole.read_bytes()[:keep])
    with pytest.raises(InputError, match=rf"cut\{suffix} is truncated, or not"):
        load_state_dict(path)


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors"])
def test_foreign_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"page{suffix}"
    path.write_text("<html>Not found</html>" * 50)
    with pytest.raises(InputError, match="truncated, or not a"):
        load_state_dict(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(InputError, match="Git LFS pointer"):
        load_state_dict(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        load_state_dict(path)
    with pytest.raises(InputError, match="cannot read the checkpoint"):
        load_state_dict(tmp_path / f"none{suffix}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([np.zeros(2)], "holds no weights by name, but a list"),
        ({}, "holds no weights"),
        ({"model": {}}, "holds no weights"),
        ({"model": {"a": 3}}, "a is no tensor, but a int"),
        ({"model": {"a": np.array(["x"])}}, "a has the type <U1"),
        ({3: np.zeros(1)}, "3 is not a string"),
        ({"blobs": {"conv1_w": np.zeros(1)}}, "Detectron1"),
        ({"conv1_w": np.zeros(1), "res2_0_branch2a_bn_s": np.zeros(1)}, "Detectron1"),
    ],
)
def test_files_without_weights(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "odd.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=message):
        load_state_dict(path)


def test_remote_weights_are_not_fetched() -> None:
    with pytest.raises(InputError, match="download the checkpoint"):
        load_state_dict(
            "detectron2://COCO-Detection/faster_rcnn_R_50_FPN_1x/137257794/model_final_b275ba.pkl"
        )
    with pytest.raises(InputError, match=r"no MODEL\.WEIGHTS"):
        load_model(zoo.config_path(MODEL))


def test_every_misfit_is_listed(tmp_path: Path) -> None:
    weights = reference()
    missing = ["backbone.fpn_lateral2.weight", "proposal_generator.rpn_head.conv.bias"]
    for name in missing:
        del weights[name]
    weights["roi_heads.box_predictor.cls_score.weight"] = torch.zeros(7, 5)
    weights["extra.one"], weights["extra.two"] = torch.zeros(1), torch.zeros(1)
    net = build_model(zoo.config_path(MODEL))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_into(net, weights, tmp_path / "misfit.pth")
    text = str(caught.value)
    for expected in [
        "misfit.pth",
        "2 missing",
        *missing,
        "2 unexpected",
        "extra.one",
        "extra.two",
        "1 of another",
    ]:
        assert expected in text
    assert "cls_score.weight: [7, 5] in the checkpoint, [4, 128] in the model" in text
    assert_same(dict(net.state_dict()), before)


def test_what_detectron2_does_without_may_be_there_or_not(tmp_path: Path) -> None:
    weights = reference()
    constants = {
        "pixel_mean": torch.zeros(3, 1, 1),
        "pixel_std": torch.ones(3, 1, 1),
        "proposal_generator.anchor_generator.cell_anchors.0": torch.zeros(3, 4),
        "roi_heads.box_predictor.fed_loss_cls_weights": torch.zeros(3),
    }
    net = build_model(zoo.config_path(MODEL))
    mean = net.pixel_mean.clone()
    bare = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    load_into(net, {**bare, **constants}, "with constants")
    assert torch.equal(net.pixel_mean, mean)  # the config decides
    load_into(net, weights, "without")


def test_matching_heuristics_match_by_suffix(tmp_path: Path) -> None:
    net = nn.ModuleDict({"backbone": nn.ModuleDict({"bottom_up": nn.Linear(2, 3)}), "head": nn.Linear(3, 1)})
    arrays = {"bottom_up.weight": np.ones((3, 2), np.float32), "bottom_up.bias": np.ones(3, np.float32)}
    arrays |= {"head.weight": np.full((1, 3), 2, np.float32), "head.bias": np.full(1, 2, np.float32)}
    path = tmp_path / "imagenet.pkl"
    path.write_bytes(
        pickle.dumps({"model": arrays, "__author__": "torchvision", "matching_heuristics": True})
    )
    load_into(net, load_state_dict(path), path)
    assert net["backbone"]["bottom_up"].weight.sum().item() == 6 and net["head"].bias.item() == 2
    del arrays["head.bias"]
    path.write_bytes(pickle.dumps({"model": {"weight": arrays["head.weight"]}, "matching_heuristics": True}))
    with pytest.raises(InputError, match="weight fits more than one"):
        load_into(net, load_state_dict(path), path)


def test_names_of_old_pointrend_checkpoints() -> None:
    net = build_model(zoo.config_path("pointrend_rcnn_R_50_FPN"))
    weights = dict(load_state_dict(zoo.weights_path("pointrend_rcnn_R_50_FPN")))
    old = {}
    for name, tensor in weights.items():
        renamed = name.replace("mask_head.point_head.", "mask_point_head.")
        if "mask_head.coarse_head." in name:
            renamed = name.replace("mask_head.coarse_head.", "mask_coarse_head.").replace(
                ".fc", ".coarse_mask_fc"
            )
        old[renamed] = tensor
    assert old.keys() != weights.keys()
    load_into(net, old, "old.pkl")
    assert_same({n: t for n, t in net.state_dict().items() if n in weights}, weights)
