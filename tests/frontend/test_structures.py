"""The containers: what detectron2's do."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch

from detc.ir.structures import Boxes, ImageList, Instances, Keypoints, RotatedBoxes, pairwise_iou


def test_boxes() -> None:
    boxes = Boxes([[0, 0, 10, 20], [-5, 5, 30, 8], [4, 4, 4, 9]])
    assert len(boxes) == 3 and boxes.tensor.dtype == torch.float32
    assert boxes.area().tolist() == [200, 105, 0]
    assert boxes.nonempty().tolist() == [True, True, False]
    assert boxes.nonempty(threshold=3).tolist() == [True, False, False]
    assert boxes.inside_box((20, 20)).tolist() == [False, False, True]  # 20 is not below 20
    assert boxes.inside_box((21, 21), boundary_threshold=10).tolist() == [True, True, True]
    assert boxes.get_centers()[0].tolist() == [5, 10]
    clone = boxes.clone()
    boxes.clip((15, 25))
    assert boxes.tensor[:2].tolist() == [[0, 0, 10, 15], [0, 5, 25, 8]]
    boxes.scale(2, 0.5)
    assert boxes.tensor[0].tolist() == [0, 0, 20, 7.5]
    assert clone.tensor[0].tolist() == [0, 0, 10, 20]
    assert "Boxes(tensor" in repr(boxes)
    assert boxes.to("cpu").device == torch.device("cpu")
    assert [box.tolist() for box in clone][2] == [4, 4, 4, 9]


def test_boxes_indexing_cat_and_empty() -> None:
    boxes = Boxes(torch.arange(12.0).view(3, 4))
    assert boxes[1].tensor.tolist() == [[4, 5, 6, 7]]
    assert len(boxes[1:]) == 2 and len(boxes[torch.tensor([True, False, True])]) == 2
    assert len(Boxes.cat([boxes, boxes[:1]])) == 4
    assert Boxes.cat([]).tensor.shape == (0, 4) and Boxes([]).tensor.shape == (0, 4)
    with pytest.raises(IndexError):
        boxes[0, 0]
    with pytest.raises(TypeError):
        Boxes.cat([boxes, RotatedBoxes([])])
    with pytest.raises(ValueError, match="matrix of 4 columns"):
        Boxes(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="infinite or NaN"):
        Boxes([[0, 0, math.nan, 1]]).clip((5, 5))


def test_pairwise_iou() -> None:
    one = Boxes([[0, 0, 1, 1], [0, 0, 0, 0]])
    two = Boxes([[0, 0, 1, 1], [0.5, 0, 1.5, 1], [2, 2, 3, 3], [0, 0, 0, 0]])
    assert torch.allclose(pairwise_iou(one, two), torch.tensor([[1, 1 / 3, 0, 0], [0, 0, 0, 0]]))


def test_rotated_boxes() -> None:
    boxes = RotatedBoxes([[10, 10, 8, 4, 0], [10, 10, 8, 4, 450], [1, 1, 8, 4, 359.5]])
    assert boxes.area().tolist() == [32, 32, 32]
    boxes.clip((12, 12))  # only the upright ones: the first and the last
    assert boxes.tensor[:, 4].tolist() == [0, 90, -0.5]
    assert boxes.tensor[0].tolist() == [9, 10, 6, 4, 0]
    assert boxes.tensor[1].tolist() == [10, 10, 8, 4, 90]
    assert boxes.tensor[2, :4].tolist() == [2.5, 1.5, 5, 3]
    assert boxes.nonempty(threshold=3.5).tolist() == [True, True, False]
    assert RotatedBoxes([[5, 5, 8, 2, 90], [5, 5, 8, 2, 0]]).inside_box((10, 7)).tolist() == [True, False]
    assert boxes.get_centers()[1].tolist() == [10, 10]
    assert boxes[1].tensor.shape == (1, 5) and len(RotatedBoxes.cat([boxes, boxes])) == 6


def test_rotated_boxes_scale() -> None:
    upright, turned = RotatedBoxes([[2, 3, 4, 6, 0]]), RotatedBoxes([[2, 3, 4, 6, 90]])
    upright.scale(2, 3)
    turned.scale(2, 3)
    assert torch.allclose(upright.tensor, torch.tensor([[4.0, 9, 8, 18, 0]]))
    assert torch.allclose(turned.tensor, torch.tensor([[4.0, 9, 12, 12, 90]]), atol=1e-5)
    alike = RotatedBoxes([[1, 1, 5, 3, 33]])
    alike.scale(2, 2)
    assert torch.allclose(alike.tensor, torch.tensor([[2.0, 2, 10, 6, 33]]), atol=1e-4)
    skewed = RotatedBoxes([[0, 0, 2, 2, 45]])
    skewed.scale(
        2, 1
    )  # sides of length sqrt(5); the height's direction (1, 0.5) is atan2(2, 1) off the y axis
    expected = [0, 0, math.sqrt(10), math.sqrt(10), math.degrees(math.atan2(2, 1))]
    assert torch.allclose(skewed.tensor, torch.tensor([expected]), atol=1e-4)


def test_instances() -> None:
    instances = Instances((30, 40), scores=torch.tensor([0.5, 0.9]))
    instances.pred_boxes = Boxes(torch.rand(2, 4))
    instances.set("names", ["a", "b"])
    assert len(instances) == 2 and instances.image_size == (30, 40)
    assert instances.has("names") and not instances.has("masks")
    assert list(instances.get_fields()) == ["scores", "pred_boxes", "names"]
    assert instances.get("names") == ["a", "b"] == instances.names
    picked = instances[1]
    assert len(picked) == 1 and picked.names == ["b"] and picked.pred_boxes.tensor.shape == (1, 4)
    assert instances[-1].names == ["b"] and instances[:1].names == ["a"]
    instances.remove("names")
    assert instances[torch.tensor([False, True])].scores.tolist() == pytest.approx([0.9])
    assert instances.to("cpu").pred_boxes.device == torch.device("cpu")
    assert repr(instances).startswith(
        "Instances(num_instances=2, image_height=30, image_width=40, fields=[scores"
    )
    for copied in (copy.deepcopy(instances), pickle.loads(pickle.dumps(instances))):
        assert copied.scores.tolist() == instances.scores.tolist()


def test_instances_errors() -> None:
    instances = Instances((5, 5), scores=torch.zeros(2))
    with pytest.raises(AttributeError, match="no field 'boxes'"):
        _ = instances.boxes
    with pytest.raises(ValueError, match="field 'x' has 3 entries, but these Instances have 2"):
        instances.x = [1, 2, 3]
    for index in (2, -3):
        with pytest.raises(IndexError):
            instances[index]
    with pytest.raises(NotImplementedError):
        len(Instances((5, 5)))
    with pytest.raises(NotImplementedError):
        iter(instances)
    with pytest.raises(AttributeError):
        instances.image_size = (1, 1)


def test_instances_cat() -> None:
    def make(count: int) -> Instances:
        return Instances((5, 5), s=torch.ones(count), b=Boxes(torch.ones(count, 4)), n=["x"] * count)

    joined = Instances.cat([make(2), make(0), make(1)])
    assert len(joined) == 3 and len(joined.b) == 3 and joined.n == ["x"] * 3
    single = make(2)
    assert Instances.cat([single]) is single
    with pytest.raises(TypeError):
        Instances.cat([])
    with pytest.raises(ValueError, match="one image size"):
        Instances.cat([make(1), Instances((6, 6), s=torch.ones(1))])
    with pytest.raises(ValueError, match="cannot be concatenated"):
        Instances.cat([Instances((5, 5), t=(1, 2)), Instances((5, 5), t=(1, 2))])


def test_image_list() -> None:
    images = [torch.ones(3, 5, 7), torch.full((3, 6, 4), 2.0)]
    batch = ImageList.from_tensors(images, 4, pad_value=-1)
    assert batch.tensor.shape == (2, 3, 8, 8) and batch.image_sizes == [(5, 7), (6, 4)] and len(batch) == 2
    for image, padded in zip(images, batch, strict=False):
        assert torch.equal(image, padded)
    assert (batch.tensor[0, :, 5:] == -1).all() and (batch.tensor[1, :, :, 4:] == -1).all()
    assert batch.to(torch.float64).tensor.dtype == torch.float64
    assert ImageList.from_tensors(images[:1]).tensor.shape == (1, 3, 5, 7)
    constraints = {"square_size": 10, "size_divisibility": 8}
    assert ImageList.from_tensors(images, 4, padding_constraints=constraints).tensor.shape == (2, 3, 16, 16)
    assert ImageList.from_tensors(images, 4, padding_constraints={"square_size": 0}).tensor.shape == (
        2,
        3,
        8,
        8,
    )
    with pytest.raises(ValueError, match="at least one"):
        ImageList.from_tensors([])
    with pytest.raises(ValueError, match="more than size"):
        ImageList.from_tensors([torch.ones(3, 5, 5), torch.ones(1, 5, 5)])


def test_keypoints() -> None:
    keypoints = Keypoints(torch.rand(3, 5, 3))
    assert len(keypoints) == 3 and keypoints[1].tensor.shape == (1, 5, 3) and len(keypoints[1:]) == 2
    assert len(Keypoints.cat([keypoints, keypoints])) == 6
    assert repr(keypoints.to("cpu")) == "Keypoints(num_instances=3)"
    with pytest.raises(ValueError, match=r"\(N, K, 3\)"):
        Keypoints(torch.zeros(3, 3))
