"""What tests share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

import detc
from detc.commands.main import main
from tests import models
from tests.rule_coverage import pytest_configure  # noqa: F401  (pytest finds the hook here)

Shell = Callable[..., tuple[int, str, str]]
"""Gives the exit status, standard output, standard error."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The tests against the real Caffe2 run when they are named: `make test-caffe2` makes it for them."""
    if collection_path.name == "caffe2_real" and not any("caffe2_real" in a for a in config.args):
        return True
    return None


@pytest.fixture(scope="session")
def loaded() -> Callable[[str], nn.Module]:
    """loaded(name): the model of the zoo; made once, not to be changed."""
    return models.loaded


@pytest.fixture(scope="session")
def captured() -> Callable[[str], detc.Graph]:
    """captured(name): its graph; made once, not to be changed."""
    return models.captured


@pytest.fixture(scope="session")
def compiled() -> Callable[..., detc.Artifact]:
    """compiled(name, **options): `detc.compile` of the zoo's model; made once, not to be changed."""
    return models.compiled


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """shell(*arguments): the command line in this process, in the test's folder."""
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
