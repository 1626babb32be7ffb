"""What is built and installed: every package, the data, nothing unexplained; and that it runs, extras or none."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

import detc
from detc.ir.extras import extra
from tests import installation

ROOT = Path(__file__).resolve().parent.parent
ROOTS = ("driver", "frontend", "ir", "passes", "backends")
LARGEST = 5_000_000
"""Bytes of a package; three million are the bundled model's."""


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
    dependencies = [*metadata["dependencies"], *chain(*metadata["optional-dependencies"].values())]
    for dependency in dependencies:
        assert re.search(rf'^    "{re.escape(dependency)}", +# \S', text, re.MULTILINE), dependency
        assert "==" not in dependency


def test_one_lowest_python() -> None:
    """What the README, the Makefile and the linter say of Python is what the package requires."""
    floor = project()["project"]["requires-python"].removeprefix(">=")
    major, minor = floor.split(".")
    for name in ("README.md", "CONTRIBUTING.md", "Makefile"):
        assert set(re.findall(r"(3\.\d+) or later", (ROOT / name).read_text())) == {floor}, name
    assert f"sys.version_info < ({major}, {minor})" in (ROOT / "Makefile").read_text()
    assert project()["tool"]["ruff"]["target-version"] == f"py{major}{minor}"
    example = tomllib.loads((ROOT / "examples" / "custom_pass" / "pyproject.toml").read_text())
    assert example["project"]["requires-python"] == f">={floor}"


def test_all_is_every_extra_of_users() -> None:
    extras = project()["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    assert set(re.findall(r"\w+", everything)) - {"detc"} == set(extras) - {"all", "dev"}
    assert "detc[all]" in extras["dev"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel made from it."""
    return installation.build(tmp_path_factory.mktemp("built"))


def test_the_packages_hold_what_is_imported_and_no_more(built: tuple[Path, Path]) -> None:
    sdist, wheel = built
    ignored = installation.NOT_COPIED
    code = {
        str(path.relative_to(ROOT))
        for root in ROOTS
        for path in (ROOT / root).rglob("*")
        if path.is_file() and not any(part in ignored for part in path.parts)
    }
    top = f"detc-{project()['project']['version']}"
    with tarfile.open(sdist) as archive:
        files = {name.removeprefix(f"{top}/") for name in (file.name for file in archive if file.isfile())}
    files = {name for name in files if not name.startswith("detc.egg-info/")}
    about = {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "MANIFEST.in"}
    assert files - {"PKG-INFO", "setup.cfg"} == about | code
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if not name.startswith(f"{top}.dist-info/")}
    assert files == {f"detc/{name}".replace("detc/driver/", "detc/") for name in code}
    assert {"detc/py.typed", "detc/backends/caffe2/caffe2.proto", "detc/report/static/page.html"} <= files
    assert all(path.stat().st_size < LARGEST for path in built)


def test_the_index_takes_the_packages(built: tuple[Path, Path]) -> None:
    checked = [sys.executable, "-m", "twine", "--no-color", "check", "--strict", *map(str, built)]
    done = subprocess.run(checked, capture_output=True, text=True, check=False)
    assert done.stdout.count("PASSED") == 2, done.stdout + done.stderr


def test_installed_it_compiles_and_runs(built: tuple[Path, Path], tmp_path: Path) -> None:
    """Without extras, where each command that wants one says which, and with all."""
    environment, elsewhere = tmp_path / "environment", tmp_path / "elsewhere"
    commands = installation.make_environment(environment, built[1])
    elsewhere.mkdir()
    installation.link(environment)
    installation.check_demo(commands, elsewhere, pictures=False)
    installation.check_commands(commands, elsewhere, extras=False)
    installation.link(environment, "all")
    installation.check_commands(commands, elsewhere, extras=True)


def test_a_library_that_does_not_load_is_told_from_one_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV without the system's libGL is such."""
    (tmp_path / "unloadable.py").write_text("raise ImportError('libGL.so.1: cannot open', name='unloadable')")
    monkeypatch.syspath_prepend(tmp_path)
    broken = r"^drawing needs unloadable, which cannot be loaded: libGL\.so\.1: cannot open$"
    with pytest.raises(detc.InputError, match=broken), extra("pictures", "drawing"):
        import unloadable  # noqa: F401
    missing = r"^drawing needs no_such: pip install 'detc\[pictures\]'$"
    with pytest.raises(detc.InputError, match=missing), extra("pictures", "drawing"):
        import no_such  # noqa: F401


def test_public_names() -> None:
    assert sorted(detc.__all__) == detc.__all__
    for name in detc.__all__:
        assert getattr(detc, name).__module__.startswith("detc."), name
    assert set(detc.__all__) <= set(dir(detc))
    checked = (
        "import sys, detc; assert 'torch' not in sys.modules; detc.capture; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", checked], check=True)
