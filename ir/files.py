"""Writing files so that a failure leaves the old file, or none."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from . import InputError
from .spans import span


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file to write into. It replaces `path` when the block ends well, and vanishes otherwise.

    Errors:
        InputError: the folder does not exist, or the file cannot be written there.
    """
    with atomic_path(path) as beside, beside.open("wb") as file:
        yield file


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The same for a library that opens its file itself: an empty file beside `path` for it to write."""
    target = Path(path)
    folder = target.parent
    if not folder.is_dir():
        raise InputError(f"the output folder does not exist: {folder}")
    if target.is_dir():
        raise InputError(f"the output is a folder: {target}")
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=folder)
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror}") from None
    beside = Path(name)
    try:
        # mkstemp makes private files; the result gets the permissions that any new file gets.
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(descriptor, 0o666 & ~mask)
        os.close(descriptor)
        with span("write", file=target.name):
            yield beside
        os.replace(beside, target)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)
