"""The real Caffe2 as a fixture; see tests/environments.py for where it comes from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import system
from tests.environments import CAFFE2

from .client import RealCaffe2

NEED = system.Need(CAFFE2.find, "the real Caffe2", "make test-caffe2, which needs Python 3.8")


@pytest.fixture(scope="session")
def real() -> Iterator[RealCaffe2]:
    system.need(NEED)
    # The tests run side by side.
    with RealCaffe2(CAFFE2.python, threads=1) as caffe2:
        yield caffe2
