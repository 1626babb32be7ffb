"""The zoo's models, loaded, captured and compiled: each made once in a process, and not to be changed."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

import detc
from tests import zoo


@functools.cache
def loaded(name: str) -> nn.Module:
    """The model of the zoo."""
    return detc.load_model(zoo.config_path(name), zoo.weights_path(name))


@functools.cache
def captured(name: str) -> detc.Graph:
    """Its graph."""
    return detc.capture(loaded(name))


@functools.cache
def compiled(name: str, **options: Any) -> detc.Artifact:
    """What `detc.compile` gives for it."""
    if "class_names" in options:
        return detc.compile(loaded(name), **options)
    target = options.pop("target", "onnx")
    return detc.emit(detc.pipeline(target, **options).run(captured(name)), target)
