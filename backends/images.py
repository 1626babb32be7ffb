"""Pictures: reading and writing them, and making a model's input of one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from detc.ir import InputError
from detc.ir.files import atomic_write


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
    format = check_image_name(path)
    with atomic_write(path) as file:
        image.save(file, format=format)


def check_image_name(path: str | os.PathLike[str]) -> str:
    """The picture format that the file's ending names.

    Errors:
        InputError: it names none that can be written.
    """
    suffix = Path(path).suffix.lower()
    format = Image.registered_extensions().get(suffix)
    if format not in Image.SAVE:
        raise InputError(
            f"cannot write a picture to {os.fspath(path)}: its name must end in .png, .jpg or the like"
        )
    return format


def model_input(image: Image.Image, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A picture as the model takes it, as detectron2's DefaultPredictor makes it.

    `metadata` is the graph's, or an artifact's: min_size_test and max_size_test in pixels, and input_format. Returns
    "image", an array f32[3,h,w], 0 to 255, and the picture's own "height" and "width".

    Errors:
        InputError: the input format is neither BGR nor RGB.
    """
    order = metadata.get("input_format", "BGR")
    if order not in ("BGR", "RGB"):
        raise InputError(f"the model takes images as {order}; pictures are turned into BGR or RGB only")
    resized = _resize_shortest_edge(
        image.convert("RGB"), int(metadata.get("min_size_test", 0)), int(metadata.get("max_size_test", 0))
    )
    pixels = np.asarray(resized)[:, :, :: -1 if order == "BGR" else 1]
    array = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)
    return {"image": array, "height": image.height, "width": image.width}


def _resize_shortest_edge(image: Image.Image, shortest: int, longest: int) -> Image.Image:
    """The picture with its shorter side at `shortest` pixels, or less where the longer one would get too long; in
    its own size where `shortest` is 0. The arithmetic, rounding included, is detectron2's ResizeShortestEdge."""
    if shortest <= 0:
        return image
    scale = shortest / min(image.size)
    width, height = (shortest if side == min(image.size) else scale * side for side in image.size)
    if 0 < longest < max(width, height):
        scale = longest / max(width, height)
        width, height = width * scale, height * scale
    size = (int(width + 0.5), int(height + 0.5))
    return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)
