"""Whole nets in the real Caffe2: those that detc makes, and the original ones after a round trip through the IR."""

from __future__ import annotations

import numpy as np
import pytest

from detc.backends.caffe2 import Caffe2Runtime, emit, load
from tests import zoo
from tests.caffe2.compiled import assert_batch, assert_golden, feeds, lowered
from tests.caffe2.outputs import assert_same_outputs
from tests.caffe2.zoo import NETS, inputs

from .client import RealCaffe2


@pytest.mark.parametrize("name", ["faster_rcnn_R_50_FPN", "mask_rcnn_R_50_FPN"])
@pytest.mark.parametrize("scene", zoo.SCENES)
def test_our_nets_give_the_goldens(real: RealCaffe2, name: str, scene: int) -> None:
    """The scenes are of several sizes, one of them no multiple of 32, and the last holds nothing."""
    graph = lowered(name)
    nets, given = emit(graph), feeds(graph, zoo.single_input(scene))
    outputs = real.run(nets.predict_net, given, init=nets.init_net)
    assert list(outputs) == list(nets.predict_net.external_output)
    assert_golden(name, outputs, scene, "the real Caffe2")
    assert_same_outputs(Caffe2Runtime(graph).run(given), outputs)


@pytest.mark.parametrize("size", [(32, 32), (33, 65), (97, 400), (320, 96)])
def test_our_nets_take_any_size(real: RealCaffe2, size: tuple[int, int]) -> None:
    graph = lowered("mask_rcnn_R_50_FPN")
    nets = emit(graph)
    image = zoo.scene(4).repeat(1, 3, 2)[:, : size[0], : size[1]]
    given = feeds(graph, [{"image": image}])
    outputs = real.run(nets.predict_net, given, init=nets.init_net)
    assert_same_outputs(Caffe2Runtime(graph).run(given), outputs)
    assert_batch("mask_rcnn_R_50_FPN", outputs, [{"image": image}])


@pytest.mark.parametrize("name", ["faster_rcnn_R_50_FPN", "mask_rcnn_R_50_FPN"])
@pytest.mark.parametrize("scenes", [(0, 3), (5, 1), (5, 5)])
def test_two_images_at_once(real: RealCaffe2, name: str, scenes: tuple[int, int]) -> None:
    graph = lowered(name, 2)
    nets, images = emit(graph), [{"image": zoo.scene(scene)} for scene in scenes]
    given = feeds(graph, images)
    outputs = real.run(nets.predict_net, given, init=nets.init_net)
    assert_batch(name, outputs, images)
    ours = Caffe2Runtime(graph).run(given)
    np.testing.assert_array_equal(ours["batch_index"], outputs["batch_index"])
    assert_same_outputs(ours, outputs)


@pytest.mark.parametrize("name", NETS)
def test_original_nets_after_a_round_trip(real: RealCaffe2, name: str) -> None:
    folder = zoo.ZOO / name / "caffe2_original"
    graph = load(folder)
    nets = emit(graph)
    for scene in ("scene0", "scene3", "scene5"):
        given = inputs(scene, graph.metadata["size_divisibility"])
        outputs = real.run(nets.predict_net, given, init=nets.init_net)
        with np.load(folder / f"{scene}.npz") as stored:
            assert_same_outputs(outputs, {blob: stored[blob] for blob in stored.files})
