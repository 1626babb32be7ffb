"""The suite's own rule: a rewrite rule of detc that matches in no test fails the run."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import pytest


def _seen() -> tuple[set[str], set[str]]:
    """The names of all rule classes of detc, and of those that have rewritten something."""
    if "detc.passes" not in sys.modules:
        return set(), set()
    for package in ("detc.passes", "detc.backends"):
        for module in walk_packages(import_module(package).__path__, f"{package}."):
            import_module(module.name)
    rewrite = sys.modules["detc.passes.rewrite.rules"]
    known = {_name(rule) for rule in rewrite.RewriteRule.known if rule.__module__.startswith("detc.")}
    return known, known & {_name(rule) for rule in rewrite.RewriteRule.matched}


def _name(rule: type) -> str:
    return f"{rule.__module__}.{rule.__qualname__}"


class RuleCoverage:
    """Collects which rules matched; with pytest-xdist each worker reports, and the controller judges."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.known: set[str] = set()
        self.matched: set[str] = set()
        self.dead: list[str] = []

    def pytest_testnodedown(self, node: Any, error: object) -> None:
        self.known.update(node.workeroutput.get("known_rules", ()))
        self.matched.update(node.workeroutput.get("matched_rules", ()))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        known, matched = _seen()
        output = getattr(self.config, "workeroutput", None)
        if output is not None:
            output["known_rules"], output["matched_rules"] = sorted(known), sorted(matched)
            return
        self.known |= known
        self.matched |= matched
        if exitstatus == pytest.ExitCode.OK and _is_whole_suite(self.config):
            self.dead = sorted(self.known - self.matched)
            if self.dead:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.dead:
            terminalreporter.section("rules that match in no test")
            for name in self.dead:
                terminalreporter.line(name, red=True)


def _is_whole_suite(config: pytest.Config) -> bool:
    option = config.option
    root = Path(__file__).parent
    paths = [Path(str(argument).split("::", maxsplit=1)[0]).resolve() for argument in config.args]
    narrowed = (
        option.keyword
        or option.markexpr
        or getattr(option, "lf", False)
        or getattr(option, "collectonly", False)
        or getattr(option, "deselect", None)
        or getattr(option, "ignore", None)
        or getattr(option, "maxfail", 0)
        or any("::" in str(argument) for argument in config.args)
    )
    return not narrowed and any(path == root or path in root.parents for path in paths)


def pytest_configure(config: pytest.Config) -> None:
    plugin = RuleCoverage(config)
    config.pluginmanager.register(plugin, "rule-coverage")
