"""Looks up what a config names.

A registry maps a name that stands in a config to what builds the component: a class or a function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from ..errors import InputError
from .config import Config
from .layers import ShapeSpec

T = TypeVar("T")


def look_up(registry: Mapping[str, T], cfg: Config, key: str) -> T:
    """The entry that the config's value of `key` ("MODEL.ROI_HEADS.NAME") names.

    Raises:
        InputError: there is none; it says which key, and what there is.
    """
    name = cfg
    for part in key.split("."):
        name = name[part]
    if not isinstance(name, str) or name not in registry:
        raise InputError(
            f"{cfg.source}: {key} '{name}' is not supported; there are {', '.join(registry)}. "
            f'A component of your own is registered with @detc.register("{key}")'
        )
    return registry[name]


def select_features(shapes: Mapping[str, ShapeSpec], names: Sequence[str], key: str) -> list[ShapeSpec]:
    """The shapes of the features that the config's value of `key` names.

    Raises:
        InputError: the backbone has no such feature, or none is named.
    """
    for name in names:
        if name not in shapes:
            raise InputError(f"{key} names '{name}', but the backbone's features are {', '.join(shapes)}")
    if not names:
        raise InputError(f"{key} names no feature; the backbone's are {', '.join(shapes)}")
    return [shapes[name] for name in names]
