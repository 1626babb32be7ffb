"""detc as its users have it: built, installed into an environment of its own, run from another folder.

    python -m tests.installation [--python PYTHON]      pip installs all that the wheel asks for, which takes minutes

`make test` checks the same in environments that are linked from the tests' own, see `link`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
NOT_COPIED = (".*", "build", "dist", "*.egg-info", "__pycache__", "demo-output")

PLAIN = (
    (("passes",), ""),
    (("passes", "--explain", "fold-batch-norm"), ""),
    (("show", "--config", "{model}/config.yaml", "--weights", "{model}/model_final.pth"), ""),
    (("run", "out/model.onnx", "{scene}", "--json", "found.json"), ""),
    (("opt", "out/ir/000_captured.ir", "--passes", "dead-code", "-o", "small.ir"), ""),
    (("analyze", "small.ir", "--size", "H=64", "--size", "W=64"), ""),
    (
        ("run", "none.onnx", "{scene}", "--output", "drawn.png"),
        "drawing pictures needs cv2: pip install 'detc[pictures]'",
    ),
    (
        ("report", "none.ir", "--passes", "dead-code", "-o", "page.html"),
        "the report needs fast_sugiyama: pip install 'detc[report]'",
    ),
    (
        ("run", "out/model.onnx", "{scene}", "--runtime", "openvino"),
        "running in OpenVINO needs openvino: pip install 'detc[openvino]'",
    ),
)
"""Commands without any extra, and what each says is missing, if something is: for a picture and the report before the
model or the graph is looked for."""
ALL = (
    (("run", "out/model.onnx", "{scene}", "--output", "drawn.png", "--runtime", "openvino"), ""),
    (("report", "out/ir/000_captured.ir", "--passes", "dead-code", "-o", "page.html"), ""),
)
"""Commands that want extras."""
OPTIONAL = {
    "detc.show.picture": "pictures",
    "detc.backends.caffe2.drawing": "report",
    "detc.report": "report",
    "detc.commands.report": "report",
}
"""The modules (a package's with it) that cannot be imported without an extra."""

_PROGRAM = """
import contextlib, importlib, io, json, pkgutil, sys
import detc
from detc.commands.main import main
from detc.ir import InputError

def failing():
    for module in pkgutil.walk_packages(detc.__path__, "detc.", onerror=lambda name: None):
        if module.name != "detc.__main__":
            try:
                importlib.import_module(module.name)
            except InputError as error:
                yield module.name, str(error)

def results(commands):
    for arguments in commands:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(arguments)
        yield status, out.getvalue(), err.getvalue()

commands = json.load(sys.stdin)
print(json.dumps({"home": detc.__file__, "failing": dict(failing()), "results": list(results(commands))}))
"""


def build(folder: Path, *, isolated: bool = False) -> tuple[Path, Path]:
    """The sdist, and the wheel that is made from the sdist, in a folder. `isolated`: by the newest setuptools, which is
    downloaded for it."""
    # In the repository an egg-info may tell setuptools of files that are gone.
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*NOT_COPIED))
    options = ["--outdir", str(folder), *([] if isolated else ["--no-isolation"])]
    _run(sys.executable, "-m", "build", *options, str(folder / "source"))
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def make_environment(folder: Path, wheel: Path) -> Path:
    """An environment with the wheel alone. Returns the folder of its commands."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    _run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        str(wheel),
    )
    return python.parent


def link(folder: Path, extra: str = "") -> None:
    """Give an environment with the wheel links to what it requires, with an extra if one is named: to that alone, out of
    the environment that runs.

    So what a fresh environment would miss is missing, and nothing is downloaded.
    """
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    for distribution in _required(f"detc[{extra}]" if extra else "detc", [str(site), *sys.path]):
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(distribution.locate_file(top))).resolve())


def _required(text: str, path: Sequence[str]) -> Iterator[Distribution]:
    """The distribution that a requirement names, and all that it requires in turn."""
    pending, seen = [Requirement(text)], set()
    while pending:
        wanted = pending.pop()
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        found = next(iter(distributions(name=wanted.name, path=list(path))), None)
        assert found is not None, f"{wanted} is required and not installed"
        yield found
        for further in map(Requirement, found.requires or ()):
            extras = wanted.extras or {""}
            if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in extras):
                pending.append(further)


def install(environment: Path, wheel: Path, extra: str = "") -> Path:
    """Have an environment's pip install the wheel and what it requires, with an extra if one is named. Returns the
    folder of its commands."""
    commands = environment / "bin"
    _run(str(commands / "pip"), "install", "--quiet", f"{wheel}[{extra}]" if extra else str(wheel))
    return commands


def check_demo(commands: Path, folder: Path, *, pictures: bool) -> None:
    """`detc demo` in a folder, to which it writes `out`; without the extra `pictures` it says so, and draws none."""
    printed = _run(str(commands / "detc"), "demo", "--output", "out", cwd=folder)
    missing = "out/annotated.png: not written: drawing pictures needs cv2: pip install 'detc[pictures]'\n"
    assert (missing in printed) is not pictures
    assert (folder / "out" / "annotated.png").exists() is pictures
    assert (folder / "out" / "model.onnx").exists()
    assert printed.count(" agrees") == 4


def check_commands(commands: Path, folder: Path, *, extras: bool) -> None:
    """The commands in a folder that has the `out` of `check_demo`, in an environment with all extras or none."""
    data = ROOT / "driver" / "data"
    places = {"model": data / "mask_rcnn_R_50_FPN", "scene": data / "scenes" / "shapes.png"}
    expected = ALL if extras else PLAIN
    lines = [[argument.format(**places) for argument in arguments] for arguments, _ in expected]
    told = json.loads(_run(str(commands / "python"), "-c", _PROGRAM, cwd=folder, input=json.dumps(lines)))
    assert Path(told["home"]).is_relative_to(commands.parent), told["home"]
    for line, (_, message), (status, _, error) in zip(lines, expected, told["results"], strict=True):
        assert (status, error) == ((2, f"detc: error: {message}\n") if message else (0, "")), line
    missing = {} if extras else OPTIONAL
    assert set(missing) <= set(told["failing"])
    for name, message in told["failing"].items():
        extra = next((extra for of, extra in missing.items() if f"{name}.".startswith(f"{of}.")), None)
        assert message.endswith(f": pip install 'detc[{extra}]'"), f"{name}: {message}"


def _run(*command: str, cwd: Path | None = None, input: str = "") -> str:
    """What a command prints. It sees no PYTHONPATH, which could lead it into the repository."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, input=input, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command[:4])}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def main() -> None:
    """Build, install without extras and then with all, and check both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="the Python to install into")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sdist, wheel = build(folder, isolated=True)
        print(
            *(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB" for file in (sdist, wheel)),
            sep="\n",
            flush=True,
        )
        environment, elsewhere = folder / "environment", folder / "elsewhere"
        _run(options.python, "-m", "venv", str(environment))
        elsewhere.mkdir()
        for extra in ("", "all"):
            commands = install(environment, wheel, extra)
            check_demo(commands, elsewhere, pictures=bool(extra))
            check_commands(commands, elsewhere, extras=bool(extra))
            print(f"detc{f'[{extra}]' if extra else ''}: installed, compiles, runs", flush=True)


if __name__ == "__main__":
    main()
