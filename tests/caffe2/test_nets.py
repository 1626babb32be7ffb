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

from .match import match
from .zoo import NETS, ZOO, inputs, size_divisibility


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
    assert set(expected) <= set(actual)
    if "bbox_nms" not in expected:
        for blob, value in expected.items():
            # The features reach 30 and more. Near their zeros both runtimes are up to 5e-5 off what float64
            # gives, the real one more than this one, so that 1e-5 can only be asked for in units of their
            # size.
            scale = np.abs(value).max() if blob.startswith("feature_") else 1.0
            np.testing.assert_allclose(actual[blob], value, rtol=1e-3, atol=1e-5 * scale, err_msg=blob)
        return
    rows = match(actual, expected)
    if "mask_fcn_probs" in expected:
        ours, theirs = actual["mask_fcn_probs"][rows] >= 0.5, expected["mask_fcn_probs"] >= 0.5
        both, either = (ours & theirs).sum((2, 3)), (ours | theirs).sum((2, 3))
        classes = expected["class_nms"].astype(int)
        chosen = np.arange(len(rows)), classes
        assert (both[chosen] >= 0.98 * either[chosen]).all()
    if "kps_score" in expected:
        np.testing.assert_allclose(actual["kps_score"][rows], expected["kps_score"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NETS)
def test_nothing_is_unsupported(name: str) -> None:
    for file in ("model.pb", "model_init.pb"):
        assert unsupported_operators(read_net(ZOO / name / "caffe2_original" / file)) == []
