"""Reading and writing pictures."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from detc.backends.files import atomic_write
from detc.ir import InputError


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """A picture as RGB, turned upright as its EXIF data says (as detectron2 does).

    Errors:
        InputError: there is no such file, or it is no picture, or it is damaged.
    """
    if not Path(path).is_file():
        raise InputError(f"there is no image {os.fspath(path)}")
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read the image {os.fspath(path)}: {error}") from None


def save_image(image: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write a picture in the format that the file's ending names.

    Errors:
        InputError: the ending names no picture format, or the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    format = Image.registered_extensions().get(suffix)
    if format is None:
        raise InputError(
            f"cannot write a picture as {suffix or 'a file without an ending'}: use .png or .jpg"
        )
    with atomic_write(path) as file:
        image.save(file, format=format)
