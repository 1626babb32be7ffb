"""The environments besides `.venv` that tests run in. uv makes each once, and again when what it is made of changes.

    python -m tests.environments lowest     .venv-lowest: the lowest versions that pyproject.toml allows
    python -m tests.environments pythons    .venv-3.12 and others: the newest versions, on each other Python
    python -m tests.environments caffe2     .venv-caffe2: Python 3.8 and the last torch that holds Caffe2

The first two run tests in what they make. A Python that is missing is named, and passed over. In CI (CI=true) one must be
there all the same.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import system

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ROOT / "pyproject.toml"
FLOOR = tomllib.loads(PROJECT.read_text())["project"]["requires-python"].removeprefix(">=")
PYTHONS = (FLOOR, "3.12", "3.13", "3.14")
"""Those that detc is tested on where they are found."""

SHORT = ("tests/test_demo.py", "tests/test_targets.py", "tests/ir")
LONG = (
    *SHORT,
    "tests/passes",
    "tests/test_cpp_example.py",
    "tests/test_images.py",
    "tests/test_report.py",
    "tests/export/test_config.py",
    "tests/test_truth.py::test_openvino",
)
"""All that the packages in pyproject.toml are needed for, but types: mypy judges by annotations, which change with them."""


@dataclass(frozen=True)
class Environment:
    """The folder `.venv-NAME` at the repository's root.

    Attributes:
        name: the end of the folder's name.
        version: Python's, such as 3.11.
        install: what `uv pip install` is told.
    """

    name: str
    version: str
    install: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return ROOT / f".venv-{self.name}"

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def stamp(self) -> Path:
        """Written last. It has the name that `make VENV=...` looks for."""
        return self.folder / "installed"

    @property
    def recipe(self) -> str:
        """What the environment is made of."""
        project = PROJECT.read_text() if "--editable" in self.install else ""
        return "\n".join((self.version, *self.install, project))

    def find(self) -> Path | None:
        """Its Python, if it has been made, and of this recipe."""
        done = self.stamp.is_file() and self.stamp.read_text() == self.recipe
        return self.python if done and self.python.exists() else None

    def make(self) -> bool:
        """Make it, unless that has been done. False, with a message, where its Python is missing."""
        if self.find() is None:
            python = find_python(self.version)
            if python is None:
                print(system.lacking(python_need(self.version)), flush=True)
                return False
            print(f"Making {self.folder.name} with {python}: {' '.join(self.install)}", flush=True)
            _uv("venv", "--quiet", "--clear", "--python", python, self.folder)
            _uv("pip", "install", "--quiet", "--python", self.python, *self.install)
            self.stamp.write_text(self.recipe)
        # make compares the times of files.
        self.stamp.touch()
        return True

    def run(self, *command: str | Path) -> bool:
        """Whether a command succeeds at the repository's root."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0

    def test(self, tests: Sequence[str]) -> bool:
        """Whether these tests pass in it."""
        versions = (
            "import sys, torch, onnx; print(sys.version.split()[0], torch.__version__, onnx.__version__)"
        )
        print(
            f"{self.folder.name}: Python, torch and onnx {_answer(self.python, '-c', versions)}", flush=True
        )
        return self.run(self.python, "-m", "pytest", "-n", "2", "--dist", "loadfile", *tests)


LOWEST = Environment("lowest", FLOOR, ("--resolution", "lowest-direct", "--editable", ".[dev]"))
CAFFE2 = Environment("caffe2", "3.8", ("torch==1.9.1", "numpy<1.24", "protobuf==3.20.3", "future", "six"))
"""Caffe2 was last built into torch 1.9.1, whose wheels need Python 3.8."""


def _uv(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "uv", *arguments], cwd=ROOT, check=True)


def _answer(*command: str | Path) -> str | None:
    """What a command prints, or None if it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def find_python(version: str) -> str | None:
    """A Python of that version that runs: a shim of pyenv's may be on PATH without a version behind it."""
    program = f"python{version}"
    candidates = [sys.executable, shutil.which(program)]
    for installed in (_answer("pyenv", "versions", "--bare") or "").split():
        if installed.startswith(f"{version}."):
            candidates.append(f"{_answer('pyenv', 'prefix', installed)}/bin/{program}")
    told = "import sys; print('%d.%d' % sys.version_info[:2])"
    return next((each for each in candidates if each and _answer(each, "-c", told) == version), None)


def python_need(version: str) -> system.Need:
    """A Python of that version as something that tests need."""
    return system.Need(
        lambda: find_python(version), f"Python {version} on PATH or in pyenv", f"pyenv install {version}"
    )


def lowest() -> bool:
    """Lint and tests with the lowest versions."""
    if not LOWEST.make():
        return not system.in_ci()
    return LOWEST.run("make", f"VENV={LOWEST.folder.name}", "lint") and LOWEST.test(LONG)


def pythons() -> bool:
    """Tests on each Python other than the one that runs."""
    own = "{}.{}".format(*sys.version_info)
    others = [
        Environment(version, version, ("--editable", ".[dev]")) for version in PYTHONS if version != own
    ]
    made = [environment for environment in others if environment.make()]
    results = [environment.test(SHORT) for environment in made]
    return all(results) and bool(made or not system.in_ci())


def caffe2() -> bool:
    return CAFFE2.make() or not system.in_ci()


COMMANDS = {"lowest": lowest, "pythons": pythons, "caffe2": caffe2}


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=COMMANDS)
    return int(not COMMANDS[parser.parse_args().command]())


if __name__ == "__main__":
    sys.exit(main())
