"""What a contributor meets: the guide, the changelog, the templates and the public CI say what is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from detc.backends.target import known_targets
from tests.installation import ROOT
from tests.test_packaging import project

CI = ROOT / ".github" / "workflows" / "ci.yml"
GUIDES = ("README.md", "CONTRIBUTING.md", ".github/pull_request_template.md", ".github/workflows/ci.yml")
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text()


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def made(text: str) -> set[str]:
    """The targets of the commands `make TARGET ...` in a text."""
    commands = re.findall(r"(?:^|run: |`|&& )make((?: [\w=.-]+)+)", text, re.MULTILINE)
    return {word for command in commands for word in command.split() if "=" not in word}


@pytest.mark.parametrize("guide", GUIDES)
def test_what_is_made_can_be_made(guide: str) -> None:
    rules = set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))
    targets = made((ROOT / guide).read_text())
    assert targets and targets <= rules, targets - rules


def test_the_guide_and_the_makefile_name_every_command() -> None:
    phony = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split())
    assert phony - {"clean"} <= made((ROOT / "CONTRIBUTING.md").read_text())
    assert {name for name in phony if name.startswith("test")} <= made(
        MAKEFILE.partition("PYTHON ?=")[0].replace("# ", "")
    )


def test_the_public_ci_tests_every_python_and_all_that_is_tested() -> None:
    jobs = read(CI)["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert all("uses" in step or "run" in step for step in steps)
    run = {target for step in steps for target in made(step.get("run", ""))}
    assert {"system", "test", "test-lowest", "test-caffe2", "test-install"} <= run
    pythons = jobs["test"]["strategy"]["matrix"]["python"]
    assert project()["project"]["requires-python"] == f">={pythons[0]}"
    used = [
        step["with"]["python-version"].split()[-1] for step in steps if "setup-python" in step.get("uses", "")
    ]
    assert set(used) <= {pythons[0], "}}"}


def test_the_changelog_has_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(.*?)\]", text, re.MULTILINE)
    assert versions[0] == project()["project"]["version"]
    kinds = set(re.findall(r"^### (.*)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_forms_ask_for_something(form: Path) -> None:
    read_form = read(form)
    assert {"name", "description", "body"} <= set(read_form)
    fields = {field["id"]: field for field in read_form["body"]}
    assert len(fields) == len(read_form["body"])
    assert all(
        field["attributes"]["label"] and field["type"] in ("input", "textarea", "dropdown")
        for field in fields.values()
    )
    assert any(field.get("validations", {}).get("required") for field in fields.values())
    if "target" in fields:
        assert fields["target"]["attributes"]["options"] == [*known_targets(), "every target"]


def test_hooks_run_what_the_environment_and_the_makefile_have() -> None:
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local", "a hook that is fetched"
    commands = [shlex.split(hook["entry"]) for hook in repository["hooks"]]
    assert {command[0] for command in commands} == {".venv/bin/ruff", "make"}
    rules = set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))
    assert {target for command in commands if command[0] == "make" for target in command[1:]} <= rules


def test_links_of_the_guide_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)", (ROOT / "CONTRIBUTING.md").read_text())
    assert targets and [target for target in targets if not (ROOT / target).exists()] == []
    named = set(re.findall(r"`([\w/]+(?:/|\.py|\.md|\.toml))`", (ROOT / "CONTRIBUTING.md").read_text()))
    missing = [name for name in named if not any((ROOT / folder / name).exists() for folder in ("", "tests"))]
    assert missing == []
