"""What detc does on arrays for files that leave it to their caller, against the det ops that say what it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from detc.backends.arrays import to_array
from detc.backends.postprocess import paste_masks, postprocess
from detc.backends.segmentation import panoptic_combine, place_instances, resize
from detc.ir.dialects import masks, segmentation
from detc.ir.dialects import postprocess as det
from detc.ir.dialects.instances import InstancesBatch
from detc.ir.instances import Instances

IM_INFO = torch.tensor([[60.0, 90.0, 1.0], [64.0, 70.0, 1.0], [31.0, 96.0, 1.0]])
SIZES = {
    "larger": torch.tensor([[90, 135], [96, 105], [46, 144]]),
    "smaller": torch.tensor([[21, 30], [64, 70], [13, 19]]),
    "sheared": torch.tensor([[120, 30], [20, 140], [31, 96]]),
}


def boxes(count: int, columns: int, seed: int = 0) -> Tensor:
    """Some reach over the image's border, some lie outside of it, and some are empty."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 120 - 20
    size = torch.rand(count, 2, generator=generator) * 50
    size[::7] = 0
    if columns == 4:
        return torch.cat((corner, corner + size), dim=1)
    angle = torch.rand(count, 1, generator=generator) * 720 - 360
    angle[::3] /= 500
    return torch.cat((corner, size, angle), dim=1)


def fields(count: int, columns: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    made = {
        "pred_boxes": boxes(count, columns),
        "scores": torch.rand(count, generator=generator),
        "pred_classes": torch.randint(0, 3, (count,), generator=generator),
        "batch_index": torch.arange(count) * 3 // max(count, 1),
    }
    if columns == 4:
        made["pred_masks"] = torch.rand(count, 1, 28, 28, generator=generator)
        made["pred_keypoints"] = torch.rand(count, 5, 3, generator=generator) * 90
    return made


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("columns", [4, 5])
@pytest.mark.parametrize("count", [0, 60])
def test_detections(count: int, columns: int, sizes: str) -> None:
    given = fields(count, columns)
    wanted = det.postprocess(InstancesBatch(given), IM_INFO, SIZES[sizes], mask_threshold=0.5).fields
    arrays = {name: to_array(value) for name, value in given.items()}
    found = postprocess(arrays, to_array(IM_INFO), to_array(SIZES[sizes]), 0.5)
    assert set(found) == set(wanted)
    for name, value in found.items():
        assert value.dtype == to_array(wanted[name]).dtype
        if name == "pred_masks":
            differing = (value != to_array(wanted[name])).sum()
            assert differing <= value.sum() * 1e-4, "probabilities at the threshold are rounded either way"
        else:
            np.testing.assert_allclose(value, to_array(wanted[name]), rtol=1e-5, atol=1e-4, err_msg=name)
    assert count == 0 or 0 < len(found["scores"]) < count


def test_masks_of_one_cell_and_in_one_pixel() -> None:
    placed = torch.tensor([[0.0, 0.0, 1.0, 1.0], [3.2, 1.1, 3.4, 1.2], [-5.0, -5.0, 12.0, 30.0]])
    given, index, size = torch.rand(3, 1, 1, 1), torch.tensor([0, 0, 0]), torch.tensor([[9, 7]])
    wanted = masks.paste_masks(given, placed, index, size, threshold=0.2)
    assert np.array_equal(paste_masks(*map(to_array, (given, placed, index, size)), 0.2), to_array(wanted))


@pytest.mark.parametrize("size", [(7, 5), (40, 64), (1, 1), (13, 200)])
def test_resizing(size: tuple[int, int]) -> None:
    logits = torch.randn(1, 4, 13, 21)
    info = torch.tensor([[13.0, 21.0, 1.0]])
    wanted = segmentation.sem_seg_postprocess(logits, info, torch.tensor([size]))[0]
    np.testing.assert_allclose(resize(to_array(logits[0]), *size), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 12])
def test_panoptic(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    given: dict[str, Any] = {
        "pred_masks": torch.rand(count, 20, 30, generator=generator) > 0.8,
        "scores": torch.rand(count, generator=generator).round(decimals=1),
        "pred_classes": torch.randint(0, 3, (count,), generator=generator),
    }
    sem_seg = torch.randn(4, 20, 30, generator=generator)
    limits = {"overlap_threshold": 0.3, "stuff_area_limit": 100, "score_threshold": 0.3}
    ids, segments = segmentation.panoptic_combine(
        given["pred_masks"], given["scores"], given["pred_classes"], torch.zeros(count, dtype=torch.int64),
        sem_seg[None], torch.tensor([[20, 30]]), **limits,
    )  # fmt: skip
    instances = Instances((20, 30), **{name: to_array(value) for name, value in given.items()})
    found, rows = panoptic_combine(instances, to_array(sem_seg), **limits)
    assert np.array_equal(found, to_array(ids[0])) and np.array_equal(rows, to_array(segments[:, 1:]))
    kept, canvas = place_instances(instances.pred_masks, instances.scores, 0.3, 0.3)
    wanted, placed = segmentation.place_instances(given["pred_masks"], given["scores"], 0.3, 0.3)
    assert kept == wanted.tolist() and np.array_equal(canvas, to_array(placed))
