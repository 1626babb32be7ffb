"""Which ops may stand at which level of lowering. One table, read top to bottom."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import IRError
from .types import TensorType, Type


@dataclass(frozen=True)
class Spec:
    """What a level allows.

    Attributes:
        dialects: dialects whose ops may stand there.
        excluded: ops of those dialects that may not.
        tensors_only: whether every value must be a tensor.
    """

    level: str
    dialects: frozenset[str]
    excluded: frozenset[str] = frozenset()
    tensors_only: bool = False

    def problem(self, op_name: str, dialect: str) -> str | None:
        """Why an op may not stand at this level, or None."""
        if dialect not in self.dialects:
            allowed = ", ".join(sorted(self.dialects))
            return f"ops of {dialect!r} may not stand at the level {self.level!r} ({allowed})"
        if op_name in self.excluded:
            return f"{op_name} may not stand at the level {self.level!r}"
        return None

    def type_problem(self, type: Type) -> str | None:
        """Why a value of that type may not stand at this level, or None."""
        if self.tensors_only and not isinstance(type, TensorType):
            return f"only tensors may stand at the level {self.level!r}, not {type}"
        return None


def _spec(level: str, *dialects: str, excluded: tuple[str, ...] = (), tensors_only: bool = True) -> Spec:
    return Spec(level, frozenset(dialects), frozenset(excluded), tensors_only)


SPECS: dict[str, Spec] = {
    spec.level: spec
    for spec in (
        # What capture yields: tensors, structure, and what a detector means.
        _spec("captured", "aten", "torchvision", "instances", "det", tensors_only=False),
        # No structure any more; det ops on tensors.
        _spec("flat", "aten", "torchvision", "det", excluded=("det.postprocess",)),
        # Targets.
        _spec("onnx", "onnx"),
        _spec("caffe2", "caffe2"),
        _spec("torchscript", "aten", "torchvision", "torchscript"),
        # A lowering that was stopped half way, to find its first wrong rewrite.
        _spec(
            "mixed",
            *("aten", "torchvision", "instances", "det", "onnx", "caffe2", "torchscript"),
            tensors_only=False,
        ),
    )
}


def get_spec(level: str) -> Spec:
    """The spec of a level. Raises IRError when there is no such level."""
    if level not in SPECS:
        raise IRError(f"there is no level {level!r}; there are {', '.join(SPECS)}")
    return SPECS[level]
