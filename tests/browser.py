"""The browser that the report is tested in: Chromium, found on PATH, or named by CHROMIUM.

    python -m tests.browser      install Debian's, where there is none and one may

Without one its tests are skipped with a message, except in CI (CI=true), where they must run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MISSING = (
    "The report is tested in Chromium, and none was found on PATH: install one (for example: apt-get install chromium), "
    "or set CHROMIUM to it."
)
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


def find_browser() -> str | None:
    """The path of the browser, None where there is none."""
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


def in_ci() -> bool:
    """Whether skipping is not allowed."""
    return os.environ.get("CI", "").lower() in ("1", "true")


def main() -> int:
    """Install it with apt-get, if that is at hand and allowed; returns 1 in CI where it cannot be had."""
    if find_browser() is None and shutil.which("apt-get") and os.geteuid() == 0:
        for command in (
            ["update"],
            ["install", "--yes", "--no-install-recommends", "chromium", "fonts-dejavu-core"],
        ):
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            subprocess.run(
                ["apt-get", "-qq", *command], check=False, env=environment, stdin=subprocess.DEVNULL
            )
    found = find_browser()
    print(found or MISSING)
    return 0 if found or not in_ci() else 1


if __name__ == "__main__":
    sys.exit(main())
