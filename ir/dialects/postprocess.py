"""`det.postprocess` brings detections into the output image (detectron2 modeling/postprocessing.py)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import IRError
from ..instances import BOX_FIELDS
from ..ops import Fresh, op
from ..types import InstancesType, TensorType, Type
from .boxes import nonempty, rescale_boxes, rows_of, tensor
from .instances import InstancesBatch
from .keypoints import rescale_keypoints
from .masks import paste_masks


def _postprocess_type(
    instances: Type, im_info: Type, output_size: Type, *, mask_threshold: float, paste: bool = True
) -> Type:
    if not isinstance(instances, InstancesType):
        raise IRError(f"takes instances, not {instances}")
    tensor(im_info, 2, "im_info")
    tensor(output_size, 2, "output_size")
    rows = Fresh("kept")
    fields: list[tuple[str, TensorType]] = []
    pasted = TensorType(torch.bool, (rows, Fresh("output_height"), Fresh("output_width")))
    for name, field in instances.fields:
        fields.append((name, pasted if name == "pred_masks" and paste else rows_of(field, rows)))
    return InstancesType(tuple(fields))


@op("det.postprocess", infer=_postprocess_type)
def postprocess(
    instances: InstancesBatch,
    im_info: Tensor,
    output_size: Tensor,
    *,
    mask_threshold: float,
    paste: bool = True,
) -> InstancesBatch:
    """Detections in the output image: boxes and keypoints rescaled, empty boxes left out, masks pasted.

    Shapes: im_info f32[N,3], rows (height, width, scale) of the network's input; output_size i64[N,2],
    rows (height, width). `pred_masks` turns from f32[D,1,S,S] to bool[D,h,w], unless `paste` is off.
    """
    fields = dict(instances.fields)
    batch_index = fields["batch_index"]
    name = next(n for n in BOX_FIELDS if n in fields)
    fields[name] = rescale_boxes(fields[name], batch_index, im_info, output_size)
    rows = nonempty(fields[name])
    fields = {n: t[rows] for n, t in fields.items()}
    if "pred_keypoints" in fields:
        fields["pred_keypoints"] = rescale_keypoints(
            fields["pred_keypoints"], fields["batch_index"], im_info, output_size
        )
    if "pred_masks" in fields and paste:
        fields["pred_masks"] = paste_masks(
            fields["pred_masks"], fields[name], fields["batch_index"], output_size, threshold=mask_threshold
        )
    return InstancesBatch(fields)
