"""Make the environment of the real Caffe2, `.venv-caffe2` at the repository's root.

    python -m tests.caffe2_real.provision

Caffe2 was last built into torch 1.9.1, whose wheels need Python 3.8. Where there is none, this says so; it fails then
only in CI, see `tests.system`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests import system

ENVIRONMENT = Path(__file__).resolve().parents[2] / ".venv-caffe2"
REQUIREMENTS = ("torch==1.9.1", "numpy<1.24", "protobuf==3.20.3", "future", "six")


def interpreter() -> Path | None:
    """The Python that has Caffe2, if it has been provisioned."""
    python = ENVIRONMENT / "bin" / "python"
    stamp = ENVIRONMENT / "provisioned.txt"
    done = stamp.is_file() and stamp.read_text() == "\n".join(REQUIREMENTS)
    return python if done and python.exists() else None


def _answer(command: list[str]) -> str | None:
    """What a command prints, or None if it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def find_python38() -> str | None:
    """A Python 3.8 that runs: a shim of pyenv's may be on PATH without a version behind it."""
    candidates = []
    on_path = shutil.which("python3.8")
    if on_path:
        candidates.append(on_path)
    versions = _answer(["pyenv", "versions", "--bare"]) or ""
    for version in versions.split():
        if version.startswith("3.8."):
            prefix = _answer(["pyenv", "prefix", version])
            if prefix:
                candidates.append(f"{prefix}/bin/python3.8")
    for candidate in candidates:
        if _answer([candidate, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"]) == "3.8":
            return candidate
    return None


PYTHON38 = system.Need(find_python38, "Python 3.8 on PATH or in pyenv", "pyenv install 3.8")
CAFFE2 = system.Need(interpreter, "the real Caffe2", "make test-caffe2, which needs Python 3.8")


def main() -> int:
    """Provision, unless that has been done. The exit status."""
    if interpreter():
        return 0
    python = find_python38()
    if python is None:
        print(system.lacking(PYTHON38), file=sys.stderr)
        return int(system.in_ci())
    print(f"Making {ENVIRONMENT.name} with {python}: {', '.join(REQUIREMENTS)}", flush=True)
    subprocess.run([python, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
    subprocess.run(
        [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True
    )
    (ENVIRONMENT / "provisioned.txt").write_text("\n".join(REQUIREMENTS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
