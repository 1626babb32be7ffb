"""The `caffe2` dialect: Caffe2's operators as ops, from the functions that say what they compute.

`caffe2.Conv(%x, @w, @b, kernels=(3, 3), pads=(1, 1, 1, 1))`: operands are the operator's inputs, attributes its
arguments under Caffe2's names and with its defaults. A node has all the results that its operator can have, also
where a net leaves out the last ones. `output_count` of Split is no argument but the number of its outputs.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence

from detc.ir import IRError, Node, Op, TensorType, register_dialect, register_level
from detc.ir.ops import InferRule, OperandType, parameters_of
from detc.passes.analysis.cost import convolution, register_flops, shape, transposed
from detc.passes.debug.outputs import register_detection_names

from .infer import Rule, Use
from .infer_shapes import RULES
from .ops import BODIES

LEAST_OUTPUTS = {
    "GenerateProposals": 2,
    "GenerateProposalsCPP": 2,
    "BoxWithNMSLimit": 3,
    "Concat": 2,
    "Reshape": 2,
    "TopK": 2,
}
"""How many outputs Caffe2 wants an operator to name at least, where it is neither 1 nor all."""
ALL_OUTPUTS = frozenset({"Split", "DistributeFpnProposals", "CollectAndDistributeFpnRpnProposals"})
"""The operators whose outputs are all to be named: their number says how many there are."""


def _infer(name: str, defaults: dict[str, object], rule: Rule) -> InferRule:
    def infer(*operands: OperandType, **attributes: object) -> Sequence[TensorType]:
        missing = [n for n, value in {**defaults, **attributes}.items() if value is inspect.Parameter.empty]
        if missing:
            raise IRError(f"{name}: the attribute {missing[0]!r} is missing")
        return rule(Use(name, operands, {**defaults, **attributes}))

    return infer


def _resolve(name: str) -> Op | None:
    type_ = name.partition(".")[2]
    if type_ not in RULES:
        return None
    body = BODIES[type_]
    operands, attributes = parameters_of(body)
    doc = inspect.getdoc(body) or ""
    return Op(name, operands, attributes, body, _infer(name, attributes, RULES[type_]), doc)


def _fully_connected(node: Node, sizes: Mapping[str, int]) -> int:
    # The weight is [O, I]; what is multiplied with it is flattened.
    return 2 * math.prod(shape(node.results[0], sizes)) * math.prod(shape(node.operand(1), sizes)[1:])


register_dialect("caffe2", _resolve)
register_level("caffe2", "caffe2")
register_flops(
    {
        "caffe2.Conv": convolution(1),
        "caffe2.ConvTranspose": transposed,
        "caffe2.FC": _fully_connected,
    }
)
# What detectron2's nets call the fields of their detections. A net for one image has no batch_index.
register_detection_names(
    {"bbox_nms": "boxes", "score_nms": "scores", "class_nms": "classes", "mask_fcn_probs": "masks"}
)
