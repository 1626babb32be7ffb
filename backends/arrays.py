"""detectron2's inputs as arrays, and arrays as its outputs.

Compiled detectors run on arrays. A caller that passes tensors gets tensors back; for arrays torch is not imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from detc.ir import InputError
from detc.ir.instances import BOX_FIELDS, Instances, is_tensor


def to_array(value: Any) -> np.ndarray:
    """A tensor or anything that numpy takes as an array; a tensor's own memory where it can be shared."""
    if not is_tensor(value):
        return np.asarray(value)
    value = value.detach().cpu()
    half = value.is_floating_point() and value.element_size() == 2  # numpy has no bfloat16
    array: np.ndarray = (value.float() if half else value).numpy()
    return array


def as_arrays(instances: Instances) -> Instances:
    """The instances with every field as an array, boxes included."""
    fields = {name: to_array(getattr(f, "tensor", f)) for name, f in instances.get_fields().items()}
    return Instances(instances.image_size, **fields)


def to_tensors(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The results of `Detector` as detectron2 returns them: tensors, and boxes in `Boxes` or `RotatedBoxes`."""
    return [{name: _as_tensors(value) for name, value in result.items()} for result in results]


def _as_tensors(value: Any) -> Any:
    import torch  # noqa: PLC0415  (arrays need no torch)

    from detc.ir.structures import Boxes, RotatedBoxes  # noqa: PLC0415  (as above)

    if isinstance(value, Instances):
        moved = Instances(value.image_size)
        for name, field in value.get_fields().items():
            tensor = torch.from_numpy(field)
            if name in BOX_FIELDS:
                moved.set(name, Boxes(tensor) if tensor.shape[1] == 4 else RotatedBoxes(tensor))
            else:
                moved.set(name, tensor)
        return moved
    if isinstance(value, tuple):  # a panoptic segmentation
        ids, segments = value
        return torch.from_numpy(ids), segments
    return torch.from_numpy(value)


def batch_images(batched_inputs: Sequence[Mapping[str, Any]], divisibility: int) -> dict[str, Any]:
    """detectron2's inputs as one batch: data f32[N,C,H,W] padded with zeros to the largest image and then to a multiple
    of the divisibility, im_info f32[N,3] (height, width, 1), output_size i64[N,2] (height, width).

    They are tensors where the first image is one, else arrays.

    Errors:
        InputError: there is no image, or one is not a tensor or an array [C,h,w].
    """
    if not batched_inputs:
        raise InputError("the batch holds no image")
    images: list[np.ndarray] = []
    for i, given in enumerate(batched_inputs):
        image: Any = given.get("image")
        known = is_tensor(image) or isinstance(image, np.ndarray)
        if not known or image.ndim != 3 or 0 in image.shape:
            shape = list(image.shape) if known else type(image).__name__
            raise InputError(f'input {i}: "image" must be a tensor or an array [C,height,width], not {shape}')
        images.append(to_array(image))
    if len({image.shape[0] for image in images}) != 1:
        raise InputError("the images differ in their number of channels")
    step = max(divisibility, 1)
    height, width = (-(-max(image.shape[axis] for image in images) // step) * step for axis in (1, 2))
    data = np.zeros((len(images), images[0].shape[0], height, width), np.float32)
    for row, image in enumerate(images):
        data[row, :, : image.shape[1], : image.shape[2]] = image
    sizes = [
        (int(given.get("height", image.shape[1])), int(given.get("width", image.shape[2])))
        for given, image in zip(batched_inputs, images, strict=True)
    ]
    feed = {
        "data": data,
        "im_info": np.array([(*image.shape[1:], 1) for image in images], np.float32),
        "output_size": np.array(sizes, np.int64),
    }
    if not is_tensor(batched_inputs[0]["image"]):
        return feed
    import torch  # noqa: PLC0415  (arrays need no torch)

    return {name: torch.from_numpy(array) for name, array in feed.items()}


def batch_proposals(batched_inputs: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The proposals that inputs bring along ("proposals": Instances with proposal_boxes): proposal_boxes f32[P,4] and
    proposal_batch_index i64[P].

    Errors:
        InputError: an input brings none.
    """
    boxes: list[np.ndarray] = []
    for i, given in enumerate(batched_inputs):
        proposals = given.get("proposals")
        if proposals is None or not proposals.has("proposal_boxes"):
            raise InputError(
                f'input {i}: "proposals" must be Instances with proposal_boxes: the model has no proposal generator'
            )
        mine = proposals.proposal_boxes
        boxes.append(to_array(getattr(mine, "tensor", mine)).astype(np.float32))
    index = np.repeat(np.arange(len(boxes)), [len(mine) for mine in boxes])
    return {"proposal_boxes": np.concatenate(boxes), "proposal_batch_index": index.astype(np.int64)}
