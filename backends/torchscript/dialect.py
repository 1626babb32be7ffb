"""The `torchscript` dialect: what takes a loop, and so is no chain of aten's operators."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch

from detc.ir import Op, TensorType, Type, get_op, register_dialect, register_level
from detc.ir.dialects.boxes import tensor
from detc.ir.ops import Fresh, parameters_of

from . import functions

DIALECT = "torchscript"


def _roi_align_type(
    features: tuple[Type, ...], rois: Type, levels: Type, *, output_size: tuple[int, int], **_: object
) -> Type:
    tensor(levels, 1, "levels")
    maps = tensor(features[0], 4, "a feature map")
    return maps.with_shape(tensor(rois, 2, "rois").shape[0], maps.shape[1], *output_size)


def _nms_type(boxes: Type, scores: Type, groups: Type, **_: object) -> Type:
    for operand, rank, name in ((boxes, 2, "boxes"), (scores, 1, "scores"), (groups, 1, "groups")):
        tensor(operand, rank, name)
    return TensorType(torch.int64, (Fresh("kept"),))


RULES: dict[str, Callable[..., Type]] = {
    "roi_align_rotated_by_level": _roi_align_type,
    "nms_rotated_by_group": _nms_type,
}
"""The types of what functions give. The others are the bodies of det ops, and have these' types."""


def _resolve(name: str) -> Op | None:
    base = name.partition(".")[2]
    if base not in functions.__all__:
        return None
    body = getattr(functions, base)
    doc = inspect.getdoc(body) or ""
    if base not in RULES:
        meant = get_op(f"det.{base}")
        return Op(name, meant.operands, meant.attributes, body, meant.infer, doc)
    operands, attributes = parameters_of(body)
    return Op(name, operands, attributes, body, RULES[base], doc)


register_dialect(DIALECT, _resolve)
register_level("torchscript", "aten", "torchvision", DIALECT)
