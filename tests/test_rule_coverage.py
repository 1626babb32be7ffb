"""The suite's own rule, on a suite in which no rule matches."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("arguments", "code"), [(["-n", "1"], 1), (["-k", "nothing_matches"], 0)], ids=["whole", "narrowed"]
)
def test_a_rule_that_never_matches_fails_the_whole_suite(
    tmp_path: Path, arguments: list[str], code: int
) -> None:
    shutil.copy(Path(__file__).with_name("rule_coverage.py"), tmp_path / "conftest.py")
    (tmp_path / "test_it.py").write_text(
        "import detc.passes\n\ndef test_nothing_matches() -> None:\n    pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert ("detc.passes.generic.canonicalize.DropCopy" in done.stdout) == bool(code)
    assert "1 passed" in done.stdout
