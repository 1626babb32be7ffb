"""Running one operator here and in the real Caffe2, and comparing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from detc.backends.caffe2.arguments import make_operator, run_operator
from detc.backends.caffe2.errors import InputError
from detc.backends.caffe2.proto import NetDef, OperatorDef

from .client import RealCaffe2, RealCaffe2Error

RTOL, ATOL = 1e-5, 1e-6
"""Rounding: the sums of a convolution and the exponentials differ between the two in the last bits."""


def operator(
    type_: str, inputs: Sequence[np.ndarray], outputs: int, arguments: Mapping[str, Any]
) -> OperatorDef:
    return make_operator(
        type_, [f"in{i}" for i in range(len(inputs))], [f"out{i}" for i in range(outputs)], arguments
    )


def run_real(real: RealCaffe2, op: OperatorDef, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    net = NetDef(name="one", op=[op], external_input=op.input, external_output=op.output)
    blobs = real.run(net, dict(zip(op.input, inputs, strict=True)))
    return [blobs[name] for name in op.output]


def run_ours(op: OperatorDef, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    # Through the bytes, as a net that is read would come.
    op = OperatorDef.FromString(op.SerializeToString())
    return [result.numpy() for result in run_operator(op, [torch.tensor(array) for array in inputs])]


def check(
    real: RealCaffe2,
    type_: str,
    inputs: Sequence[np.ndarray],
    arguments: Mapping[str, Any] | None = None,
    *,
    outputs: int = 1,
    rtol: float = RTOL,
    atol: float = ATOL,
) -> list[np.ndarray]:
    """The outputs of the real Caffe2, after comparing ours: number, types, shapes, values."""
    op = operator(type_, inputs, outputs, arguments or {})
    expected = run_real(real, op, inputs)
    actual = run_ours(op, inputs)
    assert len(actual) == len(expected) == outputs
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol)
        assert ours.shape == theirs.shape
    return expected


def check_refused(
    real: RealCaffe2,
    type_: str,
    inputs: Sequence[np.ndarray],
    arguments: Mapping[str, Any] | None = None,
    *,
    outputs: int = 1,
    match: str,
) -> None:
    """Both refuse these inputs, ours with this message."""
    op = operator(type_, inputs, outputs, arguments or {})
    with pytest.raises(RealCaffe2Error):
        run_real(real, op, inputs)
    with pytest.raises(InputError, match=match):
        run_ours(op, inputs)
