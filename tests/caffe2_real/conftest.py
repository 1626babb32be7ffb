"""The real Caffe2 as a fixture; see provision.py for where it comes from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import system

from .client import RealCaffe2
from .provision import CAFFE2, interpreter


@pytest.fixture(scope="session")
def real() -> Iterator[RealCaffe2]:
    system.need(CAFFE2)
    # The tests run side by side.
    with RealCaffe2(interpreter(), threads=1) as caffe2:
        yield caffe2
