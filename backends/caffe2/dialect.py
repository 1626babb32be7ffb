"""The `caffe2` dialect: Caffe2's operators as ops, from the functions that say what they compute.

`caffe2.Conv(%x, @w, @b, kernels=(3, 3), pads=(1, 1, 1, 1))`: operands are the operator's inputs, attributes its
arguments under Caffe2's names and with its defaults. A node has all the results that its operator can have, also
where a net leaves out the last ones. `output_count` of Split is no argument but the number of its outputs.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from detc.ir import IRError, Op, TensorType, register_dialect
from detc.ir.ops import InferRule, OperandType, Parameter

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
    operands: list[Parameter] = []
    attributes: dict[str, object] = {}
    for parameter in inspect.signature(body).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            attributes[parameter.name] = parameter.default
        else:
            annotation = str(parameter.annotation)
            operands.append(
                Parameter(parameter.name, "None" in annotation, annotation.startswith("Sequence"))
            )
    doc = inspect.getdoc(body) or ""
    return Op(name, tuple(operands), attributes, body, _infer(name, attributes, RULES[type_]), doc)


register_dialect("caffe2", _resolve)
