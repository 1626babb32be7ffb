"""What some tests need of the system, beyond Python's packages: Chromium, libpng's headers, a C++ compiler.

    python -m tests.system      install Debian's, where something is missing and one may

Where something is missing its tests are skipped with a message, except in CI (CI=true), where they must run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
)


def find_browser() -> str | None:
    """The browser that the report is tested in: named by CHROMIUM, or on PATH; None where there is none."""
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, BROWSERS)), None)


def find_compiler() -> str | None:
    """The C++ compiler."""
    return next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)


def find_libpng() -> str | None:
    """The headers of libpng, which the C++ example reads pictures with."""
    roots = ("/usr/include", "/usr/local/include", "/opt/homebrew/include")
    return next((root for root in roots if (Path(root) / "png.h").exists()), None)


NEEDS: dict[str, tuple[Callable[[], str | None], str, tuple[str, ...]]] = {
    "browser": (find_browser, "Chromium, or another that CHROMIUM names", ("chromium", "fonts-dejavu-core")),
    "compiler": (find_compiler, "a C++ compiler", ("g++",)),
    "libpng": (find_libpng, "libpng's headers", ("libpng-dev",)),
}
"""Name -> how it is found, what it is, and the Debian packages that bring it."""


def need(*names: str) -> None:
    """Skip the running test, in CI fail it, where something of these is missing."""
    missing = [NEEDS[name] for name in names if NEEDS[name][0]() is None]
    if missing:
        packages = " ".join(package for _, _, brought in missing for package in brought)
        message = f"this needs {', '.join(what for _, what, _ in missing)}: apt-get install {packages}"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(message)
        pytest.skip(message)


def main() -> int:
    """Install what is missing with apt-get, if that is at hand and allowed; returns 1 in CI where it cannot be had."""
    packages = [p for find, _, brought in NEEDS.values() if find() is None for p in brought]
    if packages and shutil.which("apt-get") and os.geteuid() == 0:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
            subprocess.run(
                ["apt-get", "-qq", *command], check=False, env=environment, stdin=subprocess.DEVNULL
            )
    missing = [what for find, what, _ in NEEDS.values() if find() is None]
    print(
        f"missing: {', '.join(missing)}; their tests are skipped"
        if missing
        else "the system has what the tests need"
    )
    return int(bool(missing) and os.environ.get("CI", "").lower() in ("1", "true"))


if __name__ == "__main__":
    sys.exit(main())
