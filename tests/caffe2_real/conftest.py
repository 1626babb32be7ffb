"""The real Caffe2 as a fixture; see provision.py for where it comes from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .client import RealCaffe2
from .provision import in_ci, interpreter


@pytest.fixture(scope="session")
def real() -> Iterator[RealCaffe2]:
    python = interpreter()
    if python is None:
        message = "the real Caffe2 has not been provisioned: run `make test-caffe2`"
        if in_ci():
            pytest.fail(message)
        pytest.skip(message)
    # The tests run side by side.
    with RealCaffe2(python, threads=1) as caffe2:
        yield caffe2
