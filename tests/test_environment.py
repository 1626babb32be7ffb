"""The tests need nothing beside the repository, and what else they need is named where it is missing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import system

ROOT = Path(__file__).resolve().parent.parent


def test_no_file_looks_beside_the_repository() -> None:
    """What .gitignore names is passed over. This holds for a copy without .git, too."""
    system.need(system.GIT)
    pattern = r"""\bshared[/]|[/] *["']shared["']"""
    command = ["git", "grep", "--no-index", "--exclude-standard", "-nIE", pattern, "--", "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


@pytest.mark.parametrize(
    ("ci", "in_ci", "outcome"),
    [
        ("", True, pytest.skip.Exception),
        ("true", True, pytest.fail.Exception),
        ("true", False, pytest.skip.Exception),
    ],
)
def test_what_is_missing_is_named(
    ci: str, in_ci: bool, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)
    hammer = system.Need(lambda: None, "a hammer", "buy one", in_ci=in_ci)
    there = system.Need(lambda: "here", "a nail", "buy one")
    system.need(there)
    with pytest.raises(outcome, match=r"^this needs a hammer: buy one$"):
        system.need(there, hammer)
