"""What some tests need beyond the packages that `detc[dev]` brings: programs, headers, environments of their own.

    python -m tests.system      install Debian's packages of what is missing, where one may

Where something is missing its tests are skipped with a message, except in CI (CI=true), where they must run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
)


@dataclass(frozen=True)
class Need:
    """Something that a test needs.

    Attributes:
        find: where it is, None if it is missing.
        what: its name in messages.
        remedy: how it is had.
        packages: the Debian packages that bring it, if any do.
        in_ci: whether CI has it, so that its tests must run there.
    """

    find: Callable[[], object | None]
    what: str
    remedy: str
    packages: tuple[str, ...] = ()
    in_ci: bool = True


def debian(find: Callable[[], object | None], what: str, *packages: str) -> Need:
    """What Debian packages bring."""
    return Need(find, what, f"apt-get install {' '.join(packages)}", packages)


def find_browser() -> str | None:
    """The browser that the report is tested in: named by CHROMIUM, or on PATH."""
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, BROWSERS)), None)


def find_compiler() -> str | None:
    """The C++ compiler."""
    return next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)


def find_cmake() -> str | None:
    """CMake: the environment's own, where it has one."""
    return shutil.which("cmake", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def find_libpng() -> str | None:
    """The headers of libpng, which the C++ example reads pictures with."""
    roots = ("/usr/include", "/usr/local/include", "/opt/homebrew/include")
    return next((root for root in roots if (Path(root) / "png.h").exists()), None)


BROWSER = debian(
    find_browser, "Chromium, or another browser that CHROMIUM names", "chromium", "fonts-dejavu-core"
)
COMPILER = debian(find_compiler, "a C++ compiler", "g++")
CMAKE = debian(find_cmake, "CMake", "cmake")
LIBPNG = debian(find_libpng, "libpng's headers", "libpng-dev")
GIT = debian(lambda: shutil.which("git"), "git", "git")
INSTALLABLE = (BROWSER, COMPILER, CMAKE, LIBPNG, GIT)


def in_ci() -> bool:
    """Whether this is CI, where nothing may be skipped for want of an environment."""
    return os.environ.get("CI", "").lower() in ("1", "true")


def lacking(*needs: Need) -> str:
    """The line that says what is missing of these and how it is had; empty if nothing is."""
    missing = [need for need in needs if need.find() is None]
    return "; ".join(f"this needs {need.what}: {need.remedy}" for need in missing)


def need(*needs: Need) -> None:
    """Skip the running test, in CI fail it, where something of these is missing."""
    if in_ci() and (message := lacking(*(one for one in needs if one.in_ci))):
        pytest.fail(message)
    if message := lacking(*needs):
        pytest.skip(message)


def main() -> int:
    """Install what is missing with apt-get, if that is at hand and allowed; returns 1 in CI where it cannot be had."""
    packages = [package for one in INSTALLABLE if one.find() is None for package in one.packages]
    if packages and shutil.which("apt-get") and os.geteuid() == 0:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
            subprocess.run(
                ["apt-get", "-qq", *command], check=False, env=environment, stdin=subprocess.DEVNULL
            )
    missing = [one.what for one in INSTALLABLE if one.find() is None]
    if missing:
        print(
            f"missing: {', '.join(missing)}; " + ("CI must have it" if in_ci() else "such tests are skipped")
        )
    else:
        print("the system has what the tests need")
    return int(bool(missing) and in_ci())


if __name__ == "__main__":
    sys.exit(main())
