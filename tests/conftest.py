"""What tests share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.rule_coverage import pytest_configure  # noqa: F401  (pytest finds the hook here)

if TYPE_CHECKING:  # pytest-xdist's controller, which waits for nothing else, need not import torch
    from torch import nn

    import detc

Shell = Callable[..., tuple[int, str, str]]
"""Gives the exit status, standard output, standard error."""


WHEN_NAMED = ("caffe2_real", "test_targets.py")
"""Tests against the real Caffe2, which `make test-caffe2` makes for them; and those by which `make test-python` and
`make test-lowest` judge their environments: to the rest of the suite they add two exported programs."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    name = collection_path.name
    return True if name in WHEN_NAMED and not any(name in argument for argument in config.args) else None


@pytest.fixture(scope="session")
def loaded() -> Callable[[str], nn.Module]:
    """loaded(name): the model of the zoo; made once, not to be changed."""
    from tests import models

    return models.loaded


@pytest.fixture(scope="session")
def captured() -> Callable[[str], detc.Graph]:
    """captured(name): its graph; made once, not to be changed."""
    from tests import models

    return models.captured


@pytest.fixture(scope="session")
def compiled() -> Callable[..., detc.Artifact]:
    """compiled(name, **options): `detc.compile` of the zoo's model; made once, not to be changed."""
    from tests import models

    return models.compiled


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """shell(*arguments): the command line in this process, in the test's folder."""
    from detc.commands.main import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def detc_command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """detc_command(*arguments): the command line in a process of its own, in the test's folder, in a pipe.

    Importing torch takes such a process seconds: it is for what a process does, `shell` for what a command does.
    """

    def run(
        *arguments: object, program: tuple[str, ...] = ("-m", "detc")
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *program, *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )

    return run
