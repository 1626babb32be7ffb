"""Whole nets over the operators' functions, against what the real Caffe2 gave for them."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import Tensor

from detc.backends.caffe2.arguments import run_operator, unsupported_operators
from detc.backends.caffe2.proto import NetDef
from detc.backends.caffe2.read import read_net

from .outputs import assert_same_outputs
from .zoo import EXPORTED, NETS, ZOO, inputs, size_divisibility


def evaluate(net: NetDef, blobs: dict[str, Tensor]) -> dict[str, Tensor]:
    """All blobs after running the net, operator by operator."""
    blobs = dict(blobs)
    for op in net.op:
        results = run_operator(op, [blobs[name] for name in op.input])
        blobs.update(zip(op.output, results, strict=True))
    return blobs


@functools.cache
def _loaded(name: str) -> tuple[NetDef, dict[str, Tensor]]:
    folder = ZOO / name / "caffe2_original"
    return read_net(folder / "model.pb"), evaluate(read_net(folder / "model_init.pb"), {})


@pytest.mark.parametrize("scene", ["scene0", "scene1", "scene2", "scene3", "scene5"])
@pytest.mark.parametrize("name", NETS)
def test_outputs_are_the_real_ones(name: str, scene: str) -> None:
    net, weights = _loaded(name)
    feeds = {blob: torch.tensor(value) for blob, value in inputs(scene, size_divisibility(net)).items()}
    with torch.inference_mode():
        blobs = evaluate(net, weights | feeds)
    actual = {blob: blobs[blob].numpy() for blob in net.external_output}
    with np.load(ZOO / name / "caffe2_original" / f"{scene}.npz") as stored:
        expected = {blob: stored[blob] for blob in stored.files}
    assert_same_outputs(actual, expected)


@pytest.mark.parametrize("name", EXPORTED)
def test_nothing_is_unsupported(name: str) -> None:
    for path in (ZOO / name / "caffe2_original").glob("*.pb"):
        assert unsupported_operators(read_net(path)) == []
