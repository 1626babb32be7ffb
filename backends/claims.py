"""Checking what a file says about itself, before anything relies on it: files come from strangers too."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from detc.ir import InputError

_Check = Callable[[Any], bool]


def _whole(most: int) -> _Check:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _list_of(item: _Check) -> _Check:
    return lambda value: isinstance(value, list | tuple) and all(map(item, value))


def _names(item: _Check) -> _Check:
    return lambda value: (
        isinstance(value, Mapping) and all(map(_text, value)) and all(map(item, value.values()))
    )


def _optional(item: _Check) -> _Check:
    return lambda value: value is None or item(value)


_CHECKS: dict[str, tuple[_Check, str]] = {
    "size_divisibility": (_whole(4096), "a whole number, at most 4096"),
    "min_size_test": (_whole(1 << 16), "a whole number of pixels"),
    "max_size_test": (_whole(1 << 16), "a whole number of pixels"),
    "num_classes": (_whole(1 << 24), "a whole number"),
    "detections_per_image": (lambda value: isinstance(value, int), "a whole number"),
    "score_thresh": (_optional(_number), "a number"),
    "mask_threshold": (_number, "a number"),
    "input_format": (_text, "text"),
    "class_names": (_optional(_list_of(_text)), "a list of names"),
    "stuff_class_names": (_optional(_list_of(_text)), "a list of names"),
    "instances": (_names(_names(_text)), "fields and the outputs that they are"),
    "assumptions": (
        _list_of(lambda item: isinstance(item, Mapping) and {"condition", "where"} <= item.keys()),
        "a list of conditions",
    ),
    "panoptic": (_optional(_names(_number)), "thresholds by name"),
}
"""What runtimes rely on: key -> whether a value can be used, and what it should be."""


def check_metadata(metadata: Mapping[str, Any], source: str) -> None:
    """Check the entries that runtimes read; `source` is what the message calls the file.

    Errors:
        InputError: entries of another kind than they should be; all of them are listed.
    """
    wrong = [
        f"{key} is {metadata[key]!r:.80}, not {wanted}"
        for key, (good, wanted) in _CHECKS.items()
        if key in metadata and not good(metadata[key])
    ]
    if wrong:
        raise InputError(f"{source} says of itself what cannot be used: {'; '.join(wrong)}")
