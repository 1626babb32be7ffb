"""Capturing a model: `capture(model)` walks its modules and gives a graph of high level.

A detection component (a meta-architecture, an RPN, a pooler, ROI heads) is captured by an importer that is
registered for its class: a function that reads the module's attributes and emits ops. A module without an importer
must compute with tensors only, and is traced. No image takes part in either.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import torch
from torch import nn

from detc.ir import (
    Builder,
    Dim,
    Graph,
    InputError,
    TensorType,
    UnsupportedError,
    Value,
    paused_collector,
    symbol,
    verify,
)
from detc.ir.tracing import ASSUMPTIONS, trace, weight_names

from .detectron2.config import Config
from .detectron2.dataset import known_class_names, test_settings

Importer: TypeAlias = Callable[..., Any]
"""importer(capture, module, *arguments): emits what the module computes, returns its outputs as values."""
I = TypeVar("I", bound=Importer)  # noqa: E741

_LIBRARIES = ("detectron2.", "point_rend.", "detc.frontend.detectron2.")
"""Where the classes live that an importer given by name is for: detectron2's own, and detc's twins of them."""


@dataclass(frozen=True)
class _Registration:
    importer: Importer
    relies_on: tuple[str, ...]


_by_class: dict[type[nn.Module], _Registration] = {}
_by_name: dict[str, _Registration] = {}


def importer(*classes: type[nn.Module] | str, relies_on: Sequence[str] = ()) -> Callable[[I], I]:
    """Register the importer of one or several classes.

    A class is given itself, or, for one of detectron2's, by its name: that covers detectron2's and detc's twin.
    `relies_on` names the methods whose behaviour the importer reproduces: a subclass that overrides one of them is
    an error, until an importer of its own is registered.

        @detc.importer(MyRPN)
        def my_rpn(capture, module, images, features):
            ...
    """

    def register(function: I) -> I:
        registration = _Registration(function, tuple(relies_on))
        for cls in classes:
            if isinstance(cls, str):
                _by_name[cls] = registration
            else:
                _by_class[cls] = registration
        return function

    return register


def find_importer(module: nn.Module) -> Importer | None:
    """The importer for a module: of its class, or of the nearest base class that has one.

    Errors:
        UnsupportedError: the class overrides a method that its base class's importer relies on.
    """
    passed: list[type] = []
    for cls in type(module).__mro__:
        registration = _by_class.get(cls)
        if registration is None and f"{cls.__module__}.".startswith(_LIBRARIES):
            registration = _by_name.get(cls.__name__)
        if registration is not None:
            for method in registration.relies_on:
                for derived in passed:
                    if method in vars(derived):
                        raise UnsupportedError(
                            f"{derived.__module__}.{derived.__qualname__} overrides {cls.__name__}.{method}, on which "
                            f"the importer of {cls.__name__} relies. Register an importer for it with "
                            f"@detc.importer({derived.__qualname__})"
                        )
            return registration.importer
        passed.append(cls)
    return None


@dataclass(frozen=True)
class Images:
    """The batch as importers see it: the normalized images f32[N,C,H,W], and im_info f32[N,3]."""

    tensor: Value
    im_info: Value


class AssumptionWarning(UserWarning):
    """Code of the model branches on the images' size, and was captured as for large images."""

    def __init__(self, condition: str, where: str) -> None:
        super().__init__(f"the compiled model holds for images (padded) with {condition}, because of {where}")


class Capture:
    """What an importer works with: a builder, and ways to capture a module inside another."""

    def __init__(self, model: nn.Module, name: str) -> None:
        self.model = model
        self.graph = Graph(name, level="captured")
        self.build = Builder(self.graph, created_by="capture")
        self._paths: dict[int, str] = {id(module): path for path, module in model.named_modules()}
        self._weights = weight_names(model)

    def path(self, module: nn.Module) -> str:
        """The module's path in the model."""
        return self._paths.get(id(module), self.build.source)

    @contextmanager
    def at(self, module: nn.Module) -> Iterator[Builder]:
        """Within the block, new nodes come from this module."""
        with self.build.at(self.path(module)) as build:
            yield build

    def call(self, module: nn.Module, *arguments: Any) -> Any:
        """Capture a call of a module: by its importer, or, where there is none, by tracing it."""
        found = find_importer(module)
        if found is None:
            return self.trace(module, *arguments)
        with self.at(module):
            return found(self, module, *arguments)

    def trace(self, function: Callable[..., Any], *arguments: Any, module: nn.Module | None = None) -> Any:
        """Capture a pure function of tensors. `module` says where it belongs, if it is no module itself."""
        owner = function if isinstance(function, nn.Module) else module
        path = self.path(owner) if owner is not None else self.build.source
        return trace(self.build, function, arguments, root=self.model, path=path)

    def weight(self, tensor: torch.Tensor, name: str = "constant") -> Value:
        """A tensor of the model as a weight under its own name; any other tensor as a constant."""
        known = self._weights.get(id(tensor))
        if known is not None:
            return self.graph.add_weight(known, tensor)
        return self.graph.constant(tensor, f"{self.build.source}.{name}")

    def image_inputs(self, channels: int, size_divisibility: int) -> tuple[Value, Value]:
        """The graph's inputs `data` f32[N,C,H,W] and `im_info` f32[N,3]; H and W are multiples as given."""
        height, width = (symbol(name, max(size_divisibility, 1)) for name in "HW")
        batch: Dim = symbol("N")
        data = self.graph.add_input("data", TensorType(torch.float32, (batch, channels, height, width)))
        im_info = self.graph.add_input("im_info", TensorType(torch.float32, (batch, 3)))
        return data, im_info

    def output_size_input(self) -> Value:
        """The graph's input `output_size` i64[N,2]: height and width of each output image."""
        return self.graph.add_input("output_size", TensorType(torch.int64, (symbol("N"), 2)))

    def proposals_input(self) -> Value:
        """The graph's inputs `proposal_boxes` f32[P,4], in pixels of the network's input, and `proposal_batch_index`
        i64[P], the image of each, as instances."""
        count = symbol(self.graph.fresh_symbol("proposals"))
        boxes = self.graph.add_input("proposal_boxes", TensorType(torch.float32, (count, 4)))
        index = self.graph.add_input("proposal_batch_index", TensorType(torch.int64, (count,)))
        made = self.build.instances.make([index, boxes], names=("batch_index", "proposal_boxes"))
        made.name = "proposals"
        return made


@paused_collector()
def capture(
    model: nn.Module, *, class_names: Sequence[str] | None = None, cfg: Config | None = None
) -> Graph:
    """Capture a detector as a graph of the level `captured`. No sample image is needed, no weight is copied.

    `class_names` are written into the graph's metadata, and from there into artifacts; a model whose config names
    COCO as its dataset has COCO's without being told. `cfg` is the model's config where it does not hold it itself, as
    detectron2's own models.

    Code that branches on the images' size is captured as for large images, with an AssumptionWarning; the graph's
    metadata says for which sizes it holds, and detc's runtimes check them.

    Errors:
        InputError: the model is in training mode, or not on the CPU, or has another number of classes.
        UnsupportedError: it holds a component that has no importer and cannot be traced; the message names it.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"capture takes an nn.Module, not {type(model).__name__}")
    if any(module.training for module in model.modules()):
        raise InputError("the model is in training mode: call model.eval() before capturing it")
    devices = {
        str(t.device) for t in [*model.parameters(), *model.buffers()] if t.device.type not in ("cpu", "meta")
    }
    if devices:
        raise InputError(
            f"the model is on {', '.join(sorted(devices))}: move it with model.cpu() before capturing it"
        )
    found = find_importer(model)
    if found is None:
        raise UnsupportedError(
            f"{type(model).__module__}.{type(model).__qualname__} is no meta-architecture with an importer; there are "
            f"importers for {', '.join(sorted(_by_name))}. Register one with @detc.importer({type(model).__name__})"
        )
    session = Capture(model, _graph_name(type(model).__name__))
    found(session, model)
    graph = session.graph
    graph.metadata.setdefault("meta_architecture", type(model).__name__)
    cfg, count = cfg or getattr(model, "cfg", None), graph.metadata.get("num_classes")
    if isinstance(cfg, Config):
        graph.metadata.update(test_settings(cfg))
        class_names = class_names or known_class_names(cfg, count)
        stuff = known_class_names(cfg, graph.metadata.get("num_sem_seg_classes"))
        if stuff:
            graph.metadata["stuff_class_names"] = stuff
    if class_names:
        if count is not None and count != len(class_names):
            raise InputError(f"{len(class_names)} class names for a model of {count} classes")
        graph.metadata["class_names"] = list(class_names)
    for assumption in graph.metadata.get(ASSUMPTIONS, []):
        warnings.warn(AssumptionWarning(**assumption), stacklevel=2)
    graph.prune_weights()
    verify(graph, after="capture")
    return graph


def _graph_name(class_name: str) -> str:
    """GeneralizedRCNN -> generalized_rcnn."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", class_name).lower()
