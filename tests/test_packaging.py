"""What is installed: every package, the data, nothing unexplained."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import detc

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
ROOTS = ("driver", "frontend", "ir", "passes", "backends")


def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def test_every_package_is_installed() -> None:
    folders = [path.parent for root in ROOTS for path in (ROOT / root).rglob("*.py")]
    there = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    names = {f"detc.{name}".replace("detc.driver", "detc") for name in there}
    setuptools = project()["tool"]["setuptools"]
    assert set(setuptools["packages"]) == names
    assert set(setuptools["package-dir"].values()) == set(ROOTS)
    assert all((folder / "__init__.py").exists() for folder in folders)


def test_data_is_installed() -> None:
    data = files("detc") / "data"
    for name in ("mask_rcnn_R_50_FPN/config.yaml", "mask_rcnn_R_50_FPN/model_final.pth", "scenes/shapes.png"):
        assert (data / name).is_file()
    assert (files("detc") / "py.typed").is_file()


def test_each_dependency_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    metadata = project()["project"]
    for dependency in [*metadata["dependencies"], *metadata["optional-dependencies"]["dev"]]:
        assert re.search(rf'^    "{re.escape(dependency)}", +# \S', text, re.MULTILINE), dependency
        assert "==" not in dependency


def test_public_names() -> None:
    assert sorted(detc.__all__) == detc.__all__
    for name in detc.__all__:
        assert getattr(detc, name).__module__.startswith("detc."), name
    assert set(detc.__all__) <= set(dir(detc))
    checked = (
        "import sys, detc; assert 'torch' not in sys.modules; detc.capture; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", checked], check=True)
