"""Libraries that come with one of detc's extras, and not with detc itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import InputError


@contextmanager
def extra(name: str, purpose: str) -> Iterator[None]:
    """Imports within the block are of libraries that detc's extra `name` installs. `purpose` is what needs them, and
    begins the message: "drawing pictures".

    Errors:
        InputError: a library is not installed (the message names the extra), or it is and fails to load.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"{purpose} needs {error.name}: pip install 'detc[{name}]'") from None
    except ImportError as error:
        # Installed, but not what it is linked with: OpenCV fails so where the system has no libGL.
        raise InputError(f"{purpose} needs {error.name or name}, which cannot be loaded: {error}") from error
