"""The report's page: its parts put into one file with the data of a run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from detc.ir.extras import extra
from detc.ir.files import atomic_write

with extra("report", "the report"):
    import jinja2

SCRIPTS = ("rows.js", "diff.js", "drawing.js", "details.js", "main.js")


def write_report(data: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the page for what `Recorder.data` gave.

    Errors:
        InputError: the file cannot be written.
    """
    with atomic_write(path) as file:
        file.write(render(data).encode())


def render(data: Mapping[str, Any]) -> str:
    """The page as text."""
    static = files(__package__) / "static"
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    template = environment.from_string((static / "page.html").read_text(encoding="utf-8"))
    # A "<" inside a script could end it.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return template.render(
        title=data["graph"],
        style=(static / "style.css").read_text(encoding="utf-8"),
        script="\n".join((static / name).read_text(encoding="utf-8") for name in SCRIPTS),
        data=text,
    )
