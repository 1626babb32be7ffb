"""`TracingAdapter`: a model whose inputs and outputs are flat, so that torch.jit.trace takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from detc.backends.torchscript import is_tracing
from detc.ir import InputError, UnsupportedError

from .detectors import CompiledDetector, detectors_in
from .schemas import Schema, flatten_to_tuple


class TracingAdapter(nn.Module):
    """A model with nested inputs and outputs, as one that takes and gives tensors only.

        adapter = TracingAdapter(model, inputs)
        traced = torch.jit.trace(adapter, adapter.flattened_inputs)
        outputs = adapter.outputs_schema(traced(*adapter.flattened_inputs))

    A detector in the model is compiled (for that it is run once), so that the traced module serves images of any
    size, with any number of objects, none included; how many images there are is fixed by the inputs' structure. What
    else the model does is traced as it runs. The model itself is not changed.

    Attributes:
        flattened_inputs: the inputs' tensors.
        inputs_schema: rebuilds the inputs; None where they hold more than tensors.
        outputs_schema: rebuilds the outputs; None before the first call, and where they hold more than tensors.
    """

    flattened_inputs: tuple[Tensor, ...]
    inputs_schema: Schema | None
    outputs_schema: Schema | None

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        inference_func: Callable[..., Any] | None = None,
        allow_non_tensor: bool = False,
    ) -> None:
        """Flatten the inputs.

        Args:
            model: any nn.Module, in evaluation mode.
            inputs: the model's argument, or a tuple of its arguments.
            inference_func: called with the model and the inputs; by default it calls the model with them.
            allow_non_tensor: leave what is no tensor out of the flat inputs and outputs. Without schemas the adapter
                then runs on `flattened_inputs` only.

        Errors:
            InputError: the model is in training mode, or the inputs hold something else than tensors.
        """
        super().__init__()
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        if not isinstance(model, nn.Module):
            raise InputError(f"the model is an nn.Module, not {type(model).__name__}")
        if model.training:
            raise InputError("the model is in training mode; call model.eval() before tracing it")
        self.model = model
        self.inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        self.allow_non_tensor = allow_non_tensor
        self.inference_func = inference_func or _call
        values, self.inputs_schema = flatten_to_tuple(self.inputs)
        self.flattened_inputs = tuple(value for value in values if isinstance(value, Tensor))
        self.outputs_schema = None
        self.training = False
        others = [value for value in values if not isinstance(value, Tensor)]
        if others and not allow_non_tensor:
            raise InputError(
                f"the inputs hold {_kind(others[0])}, and what is traced takes tensors only; turn it into a tensor, "
                "leave it out, or pass allow_non_tensor=True"
            )
        if others:
            self.inputs_schema = None
        self._compiled = self._compile_detectors()

    @torch.no_grad()
    def forward(self, *args: Tensor) -> tuple[Tensor, ...]:
        """The model's outputs, flat.

        Errors:
            InputError: the inputs are not `flattened_inputs` though there is no schema for others; the outputs hold
                something else than tensors, or have another structure than in the call before.
        """
        with self._detectors_compiled():
            outputs = self.inference_func(self.model, *self._rebuilt(args))
        values, schema = flatten_to_tuple(outputs)
        tensors = tuple(value for value in values if isinstance(value, Tensor))
        if len(tensors) < len(values):
            if not self.allow_non_tensor:
                other = next(value for value in values if not isinstance(value, Tensor))
                raise InputError(
                    f"the outputs hold {_kind(other)}, and what is traced gives tensors only; let inference_func leave "
                    "it out, or pass allow_non_tensor=True"
                )
            self.outputs_schema = None
        elif self.outputs_schema is None:
            self.outputs_schema = schema
        elif self.outputs_schema != schema:
            raise InputError(
                "the outputs' structure differs from that of the call before; what is traced has one structure: let "
                "inference_func give the same lists, keys and fields whatever the inputs are"
            )
        return tensors

    def _rebuilt(self, args: tuple[Tensor, ...]) -> tuple[Any, ...]:
        if self.inputs_schema is not None:
            rebuilt: tuple[Any, ...] = self.inputs_schema(args)
            return rebuilt
        # While torch traces, the arguments are aliases of the example's tensors.
        same = len(args) == len(self.flattened_inputs) and all(
            mine is given or mine.data_ptr() == given.data_ptr()
            for mine, given in zip(self.flattened_inputs, args, strict=True)
        )
        if not same:
            raise InputError(
                "the inputs hold more than tensors, so there is no schema to rebuild others from: call this with "
                "flattened_inputs"
            )
        return self.inputs

    def _compile_detectors(self) -> dict[str, CompiledDetector]:
        """The detectors that `inference_func` calls, compiled: torch.jit.trace wants to know a module's parts first."""
        compiled = {path: CompiledDetector(module) for path, module in _detectors(self.model).items()}
        if compiled:
            with torch.no_grad(), _patched(compiled, lambda detector: detector.observe):
                self.inference_func(self.model, *self.inputs)
        for number, detector in enumerate(compiled.values()):
            for name, module in detector.modules.items():
                self.add_module(f"detector{number}_{name}", module)
        return compiled

    @contextmanager
    def _detectors_compiled(self) -> Iterator[None]:
        """While torch traces, let the detectors' `inference` run their compiled modules."""
        if not is_tracing():
            yield
            return
        with _patched(self._compiled, lambda detector: detector.inference):
            yield

    def _create_wrapper(self, traced_model: Callable[..., Any]) -> Callable[..., Any]:
        """A function with the model's own inputs and outputs that calls the traced module."""

        def forward(*args: Any) -> Any:
            if self.outputs_schema is None:
                raise InputError("the outputs' schema is not known: trace the adapter first")
            return self.outputs_schema(traced_model(*flatten_to_tuple(args)[0]))

        return forward


def _detectors(model: nn.Module) -> dict[str, nn.Module]:
    try:
        return detectors_in(model)
    except UnsupportedError:
        # What cannot be compiled is traced as it runs, as torch would do by itself.
        return {}


@contextmanager
def _patched(
    detectors: Mapping[str, CompiledDetector], inference: Callable[[CompiledDetector], Callable[..., Any]]
) -> Iterator[None]:
    # On the objects, so that their classes stay as they are.
    try:
        for detector in detectors.values():
            vars(detector.model)["inference"] = inference(detector)
        yield
    finally:
        for detector in detectors.values():
            vars(detector.model).pop("inference", None)


def _call(model: nn.Module, *inputs: Any) -> Any:
    return model(*inputs)


def _kind(value: Any) -> str:
    return "None" if value is None else f"{value!r} ({type(value).__name__})"
