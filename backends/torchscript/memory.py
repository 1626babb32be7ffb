"""How the tensors of a TorchScript module lie in memory.

A graph has values only; these are the emitter's choices, and none changes a value by more than rounding:

- Convolutions' weights are stored with their channels last, and torch keeps all that follows in that order: its
  libraries for CPUs and GPUs compute convolutions that way, and reorder what comes otherwise, each time.
- Operators write into memory that nothing else reads. A feature map of a large image does not come out of the
  allocator's cache: each new one costs page faults.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from detc.ir import Constant, Graph, Node, TensorType, Value

_CONVOLUTIONS = frozenset({"aten.conv2d", "aten.convolution", "aten.conv_transpose2d.input"})
# These read how their operand lies in memory, and fail, or give something else, where it is not in its usual order.
# Group normalization sums squares there, which costs precision.
_WITH_CHANNELS_FIRST = frozenset(
    f"aten.{name}"
    for name in (
        *("view", "view.dtype", "view_as", "view_as_complex", "view_as_real", "_unsafe_view"),
        *("_reshape_alias", "unflatten.int", "as_strided", "unfold", "group_norm", "native_group_norm"),
    )
)
# What these give is memory of its own (no view, no operand again), of which autograd keeps nothing.
_OWN_MEMORY = frozenset(
    f"aten.{name}"
    for name in (
        *("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose2d.input"),
        *("linear", "addmm", "bmm", "mm", "abs", "batch_norm", "group_norm", "layer_norm"),
        *("add.Tensor", "add.Scalar", "sub.Tensor", "sub.Scalar", "rsub.Scalar"),
        *("mul.Tensor", "mul.Scalar", "div.Tensor", "div.Scalar"),
        *("upsample_nearest2d", "upsample_nearest2d.vec", "upsample_bilinear2d", "upsample_bilinear2d.vec"),
        *("cat", "index_select", "gather", "new_zeros", "zeros", "full", "index_copy"),
    )
)
_OVERWRITING = frozenset(
    f"aten.{name}"
    for name in (
        *("relu", "leaky_relu", "hardtanh", "hardswish", "silu", "clamp_min", "clamp_max", "abs"),
        *("add.Tensor", "add.Scalar", "sub.Tensor", "sub.Scalar", "mul.Tensor", "mul.Scalar"),
        *("div.Tensor", "div.Scalar", "index_copy"),
    )
)
"""Operators that torch has in place as well, under the name with an underscore."""
_SYMMETRIC = frozenset({"aten.add.Tensor", "aten.mul.Tensor"})


@dataclass(frozen=True)
class Memory:
    """The choices for one graph.

    Attributes:
        overwritten: the position of the operand that a node overwrites, for each node that does.
        channels_last: the weights [O,I,h,w] that are stored as [O,h,w,I].
    """

    overwritten: Mapping[Node, int] = field(default_factory=dict)
    channels_last: Set[Constant] = frozenset()


def plan_memory(graph: Graph) -> Memory:
    """The choices for a graph of the level `torchscript`. O(n)."""
    return Memory(_overwritten(graph), _channels_last(graph))


def _channels_last(graph: Graph) -> Set[Constant]:
    nodes = list(graph)
    if any(node.op.name in _WITH_CHANNELS_FIRST for node in nodes):
        return frozenset()
    weights = (node.operand(1) for node in nodes if node.op.name in _CONVOLUTIONS)
    return {value for value in weights if isinstance(value, Constant) and value.rank == 4}


def _overwritten(graph: Graph) -> dict[Node, int]:
    """An operand is overwritten that nothing else reads, no output, as large as the result and of its type."""
    found: dict[Node, int] = {}
    for node in graph:
        if node.op.name in _OVERWRITING:
            symmetric = node.op.name in _SYMMETRIC and node.attributes.get("alpha", 1) == 1
            for position, operand in enumerate(node.operands[: 2 if symmetric else 1]):
                if isinstance(operand, Value) and _may_overwrite(node, operand):
                    found[node] = position
                    break
    return found


def _may_overwrite(node: Node, value: Value) -> bool:
    return (
        value.producer is not None
        and value.producer.op.name in _OWN_MEMORY
        and isinstance(value.type, TensorType)
        and value.type == node.result.type
        and value.only_user is node
        and sum(operand is value for operand in node.operand_values) == 1
    )
