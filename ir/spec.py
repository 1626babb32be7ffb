"""Which ops may stand at which level of lowering."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import IRError
from .ops import load_dialect
from .types import TensorType, Type


@dataclass(frozen=True)
class Spec:
    """What a level allows.

    Attributes:
        dialects: dialects whose ops may stand there; None for all.
        excluded: ops of those dialects that may not.
        tensors_only: whether every value must be a tensor.
    """

    level: str
    dialects: frozenset[str] | None
    excluded: frozenset[str] = frozenset()
    tensors_only: bool = False

    def problem(self, op_name: str, dialect: str) -> str | None:
        """Why an op may not stand at this level, or None."""
        if self.dialects is not None and dialect not in self.dialects:
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


_SPECS: dict[str, Spec] = {
    spec.level: spec
    for spec in (
        # What capture yields: tensors, structure, and what a detector means.
        _spec("captured", "aten", "torchvision", "instances", "det", tensors_only=False),
        # No structure any more; det ops on tensors.
        _spec("flat", "aten", "torchvision", "det", excluded=("det.postprocess",)),
        # A lowering that was stopped half way, to find its first wrong rewrite.
        Spec("mixed", None),
    )
}
"""The levels above any target. Those of targets are registered by their dialects."""


def register_level(level: str, *dialects: str) -> None:
    """Declare a level: the ops of these dialects may stand there, and every value is a tensor."""
    _SPECS[level] = _spec(level, *dialects)


def get_spec(level: str) -> Spec:
    """The spec of a level. A target's level is declared by the dialect of its name.

    Errors:
        IRError: there is no such level.
    """
    if level not in _SPECS:
        load_dialect(level)
    if level not in _SPECS:
        raise IRError(f"there is no level {level!r}; there are {', '.join(_SPECS)}")
    return _SPECS[level]
