"""Code that branches on sizes is traced along one branch. Here is found out for which sizes that is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from detc.ir import Condition, Graph, SymExpr, TensorType, UnsupportedError, evaluate, run
from detc.ir.conditions import MIRRORED
from detc.ir.questions import Questions
from detc.ir.types import type_symbols

IMAGE_SIZES = ("H", "W")
"""The sizes of the batch's images, padded, in pixels."""
ASSUMPTIONS = "assumptions"
"""The graph's metadata about sizes it does not hold for: a list of {"condition": "H/32 > 7", "where": ...}."""

_LARGEST = 2048
_PIXELS = 1280 * 1280
_FAR = (5_000, 20_000, 100_000, 1_000_000)
_TRIALS = 4


@dataclass
class Trial:
    """A traced function and its graph, to be run side by side at given sizes."""

    function: Callable[..., tuple[list[Any], Any]]
    """It returns a flat list first."""
    graph: Graph
    """Its inputs are the function's tensors in their order, its outputs those that `function` returns."""
    agreed: dict[tuple[int, int], bool | None] = field(default_factory=dict)

    def agrees(self, height: int, width: int) -> bool | None:
        """Whether both give the same for images of that size; None if the function itself takes none."""
        if (height, width) not in self.agreed:
            threads = torch.get_num_threads()
            # On images that small, threads wait for each other longer than they work.
            torch.set_num_threads(1)
            try:
                self.agreed[height, width] = self._agrees({"H": height, "W": width})
            finally:
                torch.set_num_threads(threads)
        return self.agreed[height, width]

    def _agrees(self, sizes: dict[str, int]) -> bool | None:
        generator = torch.Generator().manual_seed(0)
        inputs = {v.name: _random(v.tensor_type, sizes, generator) for v in self.graph.inputs}
        if any(weight.data.is_meta for weight in self.graph.weights.values()):
            return False
        try:
            with torch.no_grad():
                wanted, _ = self.function(*inputs.values())
        except Exception:  # whatever a stranger's code raises for a size that it does not take
            return None
        try:
            found = list(run(self.graph, inputs).values())
        except Exception:  # a kernel's error too says that the graph is not for this size
            return False
        tensors = [w for w in wanted if isinstance(w, Tensor)]
        return len(found) == len(tensors) and all(map(_close, found, tensors))


def _random(type: TensorType, sizes: dict[str, int], generator: torch.Generator) -> Tensor:
    known = {s.name: 2 * s.multiple for s in type_symbols(type)} | {"N": 1} | sizes
    shape = [evaluate(dim, known) for dim in type.shape]
    return torch.randn(shape, generator=generator).to(type.dtype)


def _close(found: Tensor, wanted: Tensor) -> bool:
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return False
    scale = wanted.abs().max().item() if wanted.is_floating_point() and wanted.numel() else 0.0
    return torch.allclose(found, wanted, rtol=1e-3, atol=1e-4 * scale, equal_nan=True)


def note_branches(graph: Graph, questions: Questions, path: str, trial: Trial) -> None:
    """What the function asked about sizes: of the images, an assumption of the graph; of a count, an error.

    Many branches only save work: nothing is cut off where nothing was padded. Where the condition is false, the
    function and the graph are run on random tensors at some sizes; if they agree, nothing is assumed.
    """
    for condition, line in questions:
        if condition is not None and _not_empty(condition):
            # With no rows there is nothing to get wrong: the other branch only saves work.
            continue
        where = f"{path} ({line})" if path else line
        if condition is None or any(s.name not in IMAGE_SIZES for s in condition.symbols()):
            asked = f" ({condition})" if condition is not None else ""
            raise UnsupportedError(
                f"{where} branches on a number of rows or images{asked}, and one branch only can be traced. Write it "
                "without the branch, or register an importer for its class with @detc.importer"
            )
        assumption = {"condition": str(condition), "where": where}
        assumptions = graph.metadata.setdefault(ASSUMPTIONS, [])
        if any(known["condition"] == assumption["condition"] for known in assumptions):
            continue
        if not _is_harmless(condition, trial):
            assumptions.append(assumption)
    if not graph.metadata.get(ASSUMPTIONS, True):
        del graph.metadata[ASSUMPTIONS]


def _not_empty(condition: Condition) -> bool:
    """Whether it says of a size, a product, that it is not 0."""
    left, relation, right = condition.left, condition.relation, condition.right
    if isinstance(left, int):
        left, right = right, left
        relation = relation.translate(MIRRORED)
    product = isinstance(left, SymExpr) and len(left.terms) == 1
    return product and (relation, right) in (("!=", 0), (">", 0), (">=", 1))


def _is_harmless(condition: Condition, trial: Trial) -> bool:
    multiples = {"H": 1, "W": 1}
    for value in trial.graph.inputs:
        multiples.update({s.name: s.multiple for s in type_symbols(value.type) if s.name in multiples})
    names = {s.name for s in condition.symbols()}
    heights, widths = ([m * k for k in range(1, _LARGEST // m + 1)] for m in multiples.values())
    against = _against(condition, names, heights, widths)
    found = [size for size in against if size[0] * size[1] <= _PIXELS]
    if not found:
        far = [[m * (pixels // m) for pixels in _FAR] for m in multiples.values()]
        return not against and not list(_violating(condition, far[0], far[1]))
    verdicts: list[bool] = []
    for height, width in found:
        verdict = trial.agrees(height, width)
        if verdict is not None:
            verdicts.append(verdict)
        if verdict is False or len(verdicts) == _TRIALS:
            break
    return bool(verdicts) and all(verdicts)


def _against(
    condition: Condition, names: set[str], heights: Sequence[int], widths: Sequence[int]
) -> list[tuple[int, int]]:
    """Sizes for which the condition is false: unlike ones, small and square ones among them."""
    ordinary = [next(w for w in widths if w >= least) for least in (64, 200)]
    if names == {"H"}:
        false = [h for h, _ in _violating(condition, heights, ordinary[:1])]
        return _unlike([(h, w) for h in false for w in (ordinary[0], h, ordinary[1]) if w in set(widths)])
    if names == {"W"}:
        false = [w for _, w in _violating(condition, [heights[0]], widths)]
        return _unlike([(h, w) for w in false for h in (ordinary[0], w, ordinary[1]) if h in set(heights)])
    step = [max(1, len(sizes) // 64) for sizes in (heights, widths)]
    false_pairs = _violating(condition, heights[:: step[0]], widths[:: step[1]])
    return _unlike(sorted(false_pairs, key=lambda size: size[0] * size[1]))


def _violating(
    condition: Condition, heights: Sequence[int], widths: Sequence[int]
) -> Iterator[tuple[int, int]]:
    for height in heights:
        for width in widths:
            if not condition.holds({"H": height, "W": width}):
                yield height, width


def _unlike(sizes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The first few, and some spread over the rest."""
    return list(dict.fromkeys([*sizes[:3], *sizes[3 :: max(1, len(sizes) // 8)]]))
